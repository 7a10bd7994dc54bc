//! `GET /metrics`: limits, charges, use and Plimsoll's own health in the Prometheus text format.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use plimsoll_core::dimension::Dimension;
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};

use super::auth::Caller;
use super::problem::Answer;
use crate::meter::Whose;
use crate::state::App;

/// The format's own name for itself.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric's lines.
struct Family {
    name: &'static str,
    help: &'static str,
    lines: String,
}

impl Family {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            lines: String::new(),
        }
    }

    fn add(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.lines, "{}{{{labels}}} {value}", self.name);
    }

    fn write(&self, out: &mut String) {
        if !self.lines.is_empty() {
            let kind = if self.name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            let (name, help) = (self.name, self.help);
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{}",
                self.lines
            );
        }
    }
}

/// Base units, as the format asks: cores, bytes, counts.
fn base(dimension: Dimension, amount: u64) -> f64 {
    if dimension == Dimension::Cpu {
        dimension.to_human(amount)
    } else {
        amount as f64
    }
}

pub(super) async fn metrics(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.reads_all()?;
    let mut limit = Family::new(
        "plimsoll_limit",
        "Effective limit, in cores, bytes or counts.",
    );
    let mut reserved = Family::new("plimsoll_reserved", "Charged, in cores, bytes or counts.");
    let mut cpu = Family::new("plimsoll_cpu_usage_cores", "CPU over the last interval.");
    let mut memory = Family::new("plimsoll_memory_working_set_bytes", "Working set.");
    let mut seconds = Family::new("plimsoll_cpu_usage_seconds_total", "CPU time used.");
    let mut containers = Family::new("plimsoll_running_containers", "Running containers.");

    let mut entities = vec![(
        EntityKind::System,
        SYSTEM_ID,
        "system".to_owned(),
        Whose::System,
    )];
    entities.extend(
        app.store
            .teams()
            .await?
            .into_iter()
            .map(|t| (EntityKind::Team, t.id.0, t.name, Whose::Team(t.id))),
    );
    entities.extend(
        app.store
            .users()
            .await?
            .into_iter()
            .map(|u| (EntityKind::User, u.id.0, u.name, Whose::User(u.id))),
    );
    for (kind, id, name, whose) in entities {
        let standing = app.store.standing(kind, id)?;
        let labels = format!("entity_type=\"{kind}\",entity=\"{name}\"");
        for d in Dimension::CHARGED {
            let labels = format!("{labels},dimension=\"{d}\"");
            if let Some(most) = standing.limits[d].at_most() {
                limit.add(&labels, base(d, most));
            }
            reserved.add(&labels, base(d, standing.reserved.get(d)));
        }
        let used = app.meter.usage(whose);
        cpu.add(&labels, Dimension::Cpu.to_human(used.cpu_milli));
        memory.add(&labels, used.memory_bytes);
        seconds.add(&labels, used.total_cpu_ns as f64 / 1e9);
        containers.add(&labels, used.containers);
    }
    let mut ok = Family::new(
        "plimsoll_task_ok",
        "Whether a background task's last run succeeded.",
    );
    let mut took = Family::new(
        "plimsoll_task_duration_seconds",
        "How long its last run took.",
    );
    let mut runs = Family::new("plimsoll_task_runs_total", "Runs since the server started.");
    for (name, status) in app.tasks.all() {
        let labels = format!("task=\"{name}\"");
        ok.add(&labels, u8::from(status.outcome.is_ok()));
        took.add(&labels, status.took_us as f64 / 1e6);
        runs.add(&labels, status.runs);
    }
    let mut cycle = Family::new(
        "plimsoll_collector_cycle_seconds",
        "How long the last reading took.",
    );
    cycle.add("", app.meter.cycle_us() as f64 / 1e6);
    let mut out = String::new();
    for family in [
        limit, reserved, cpu, memory, seconds, containers, ok, took, runs, cycle,
    ] {
        family.write(&mut out);
    }
    let response: Response = ([(CONTENT_TYPE, FORMAT)], out).into_response();
    Ok(response)
}
