//! `GET /metrics`: limits, charges, use and Plimsoll's own health in the Prometheus text format.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{EntityKind, SYSTEM_ID, UserId};
use plimsoll_host::load::Pressure;
use plimsoll_store::{DecisionCount, StoreError};

use super::auth::Caller;
use super::problem::Answer;
use crate::meter::{Usage, Whose};
use crate::state::App;

/// The format's own name for itself.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric's lines.
struct Family {
    name: String,
    help: String,
    lines: String,
}

impl Family {
    fn new(name: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            lines: String::new(),
        }
    }

    fn add(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.lines, "{} {value}", self.name)
        } else {
            writeln!(self.lines, "{}{{{labels}}} {value}", self.name)
        };
    }

    fn write(&self, out: &mut String) {
        if !self.lines.is_empty() {
            let kind = if self.name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            let (name, help) = (&self.name, &self.help);
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{}",
                self.lines
            );
        }
    }
}

/// A charged dimension's name with its base unit.
const fn with_unit(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Cpu => "cpu_cores",
        Dimension::Memory => "memory_bytes",
        Dimension::Storage => "storage_bytes",
        Dimension::TempStorage => "temp_storage_bytes",
        other => other.name(),
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

/// Whom a line is about, and what they hold.
struct Entity {
    kind: EntityKind,
    name: String,
    whose: Whose,
    limits: Limits,
    reserved: Amounts,
}

/// Everybody, with a user's holdings summed over their teams.
async fn entities(app: &App) -> Result<Vec<Entity>, StoreError> {
    let (teams, users) = (app.store.teams().await?, app.store.users().await?);
    let mut in_teams: HashMap<UserId, Amounts> = HashMap::new();
    for team in &teams {
        for member in app.store.members(Some(team.id), None).await? {
            let sum = in_teams.entry(member.user).or_default();
            *sum = sum.checked_add(&member.reserved).unwrap_or(*sum);
        }
    }
    let mut all = vec![(
        EntityKind::System,
        SYSTEM_ID,
        "system".to_owned(),
        Whose::System,
    )];
    all.extend(
        teams
            .into_iter()
            .map(|t| (EntityKind::Team, t.id.0, t.name, Whose::Team(t.id))),
    );
    all.extend(
        users
            .into_iter()
            .map(|u| (EntityKind::User, u.id.0, u.name, Whose::User(u.id))),
    );
    let mut entities = Vec::with_capacity(all.len());
    for (kind, id, name, whose) in all {
        let standing = match app.store.standing(kind, id) {
            // Deleted since the list was read.
            Err(StoreError::NotFound { .. }) => continue,
            standing => standing?,
        };
        let more = match whose {
            Whose::User(user) => in_teams.get(&user).copied().unwrap_or_default(),
            _ => Amounts::ZERO,
        };
        entities.push(Entity {
            kind,
            name,
            whose,
            limits: standing.limits,
            reserved: standing
                .reserved
                .checked_add(&more)
                .unwrap_or(standing.reserved),
        });
        // Each is a handful of reads on this thread: others get their turn in between.
        tokio::task::yield_now().await;
    }
    Ok(entities)
}

fn of_entities(app: &App, entities: &[Entity]) -> Vec<Family> {
    let mut families = Vec::new();
    for d in Dimension::CHARGED {
        let unit = with_unit(d);
        let mut limit = Family::new(
            format!("plimsoll_limit_{unit}"),
            format!("Effective limit of {d}; absent where there is none."),
        );
        let mut reserved =
            Family::new(format!("plimsoll_reserved_{unit}"), format!("Charged {d}."));
        for entity in entities {
            let labels = labels(entity);
            if let Some(most) = entity.limits[d].at_most() {
                limit.add(&labels, base(d, most));
            }
            reserved.add(&labels, base(d, entity.reserved.get(d)));
        }
        families.extend([limit, reserved]);
    }
    let mut cpu = Family::new("plimsoll_used_cpu_cores", "CPU over the last interval.");
    let mut memory = Family::new("plimsoll_used_memory_bytes", "Working set.");
    let mut pids = Family::new("plimsoll_used_pids", "Processes and threads.");
    let mut running = Family::new("plimsoll_running_containers", "Running containers.");
    let mut seconds = Family::new("plimsoll_cpu_seconds_total", "CPU time used.");
    for entity in entities {
        let (used, labels) = (app.meter.usage(entity.whose), labels(entity));
        cpu.add(&labels, Dimension::Cpu.to_human(used.cpu_milli));
        memory.add(&labels, used.memory_bytes);
        pids.add(&labels, used.pids);
        running.add(&labels, used.containers);
        seconds.add(&labels, used.total_cpu_ns as f64 / 1e9);
    }
    families.extend([cpu, memory, pids, running, seconds]);
    families.extend(FLOWS.map(|(name, help, of)| {
        let mut family = Family::new(name, help);
        for entity in entities {
            family.add(&labels(entity), of(&app.meter.usage(entity.whose)));
        }
        family
    }));
    families
}

type Flow = (&'static str, &'static str, fn(&Usage) -> u64);

/// What goes over the network and to disks.
const FLOWS: [Flow; 5] = [
    (
        "plimsoll_connections",
        "TCP sockets in use, those that listen included.",
        |used| used.connections,
    ),
    (
        "plimsoll_network_receive_bytes_total",
        "Received from the network.",
        |used| used.total_received_bytes,
    ),
    (
        "plimsoll_network_transmit_bytes_total",
        "Sent to the network.",
        |used| used.total_sent_bytes,
    ),
    (
        "plimsoll_block_read_bytes_total",
        "Read from disks.",
        |used| used.total_block_read_bytes,
    ),
    (
        "plimsoll_block_write_bytes_total",
        "Written to disks.",
        |used| used.total_block_written_bytes,
    ),
];

/// What the kernel does not tell has no line.
fn of_the_host(app: &App) -> Vec<Family> {
    let Some(host) = app.meter.host() else {
        return Vec::new();
    };
    let ratio = |pressure: Option<Pressure>| pressure.map(|p| p.some as f64 / 10_000.0);
    let cpu = host.cpu_milli.map(|milli| Dimension::Cpu.to_human(milli));
    let all = [
        (
            "plimsoll_host_used_cpu_cores",
            "CPU in use on the host.",
            cpu,
        ),
        (
            "plimsoll_host_used_memory_bytes",
            "Memory in use on the host.",
            Some(host.memory_bytes as f64),
        ),
        (
            "plimsoll_host_load1",
            "Processes that want to run, mean of a minute.",
            Some(host.load_centi as f64 / 100.0),
        ),
        (
            "plimsoll_cpu_pressure_ratio",
            "Share of the last ten seconds in which something waited for a processor.",
            ratio(host.cpu_pressure),
        ),
        (
            "plimsoll_memory_pressure_ratio",
            "The same for memory.",
            ratio(host.memory_pressure),
        ),
        (
            "plimsoll_block_pressure_ratio",
            "The same for disks.",
            ratio(host.block_pressure),
        ),
    ];
    let family = |(name, help, value): (&str, &str, Option<f64>)| {
        let mut family = Family::new(name, help);
        family.add("", value?);
        Some(family)
    };
    all.into_iter().filter_map(family).collect()
}

/// Names hold nothing that would need escaping.
fn labels(entity: &Entity) -> String {
    format!("entity_type=\"{}\",entity=\"{}\"", entity.kind, entity.name)
}

fn of_the_server(app: &App, decisions: DecisionCount, open_violations: usize) -> Vec<Family> {
    let mut decided = Family::new(
        "plimsoll_decisions_total",
        "Claims decided since the server started.",
    );
    decided.add("outcome=\"allowed\"", decisions.allowed);
    decided.add("outcome=\"refused\"", decisions.refused);
    let mut violations = Family::new("plimsoll_open_violations", "Limits exceeded now.");
    violations.add("", open_violations);
    let mut build = Family::new("plimsoll_build_info", "Always 1.");
    build.add(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    let mut up = Family::new("plimsoll_uptime_seconds", "Time since the server started.");
    up.add("", app.clock.monotonic().as_secs_f64());
    let mut ok = Family::new(
        "plimsoll_task_ok",
        "Whether a background task's last run succeeded.",
    );
    let mut took = Family::new(
        "plimsoll_task_duration_seconds",
        "How long its last run took.",
    );
    let mut at = Family::new(
        "plimsoll_task_last_run_timestamp_seconds",
        "When its last run ended.",
    );
    let mut runs = Family::new("plimsoll_task_runs_total", "Runs since the server started.");
    for (name, status) in app.tasks.all() {
        let labels = format!("task=\"{name}\"");
        ok.add(&labels, u8::from(status.outcome.is_ok()));
        took.add(&labels, status.took_us as f64 / 1e6);
        at.add(&labels, status.at_ms as f64 / 1e3);
        runs.add(&labels, status.runs);
    }
    let mut cycle = Family::new(
        "plimsoll_collector_cycle_seconds",
        "How long the last reading of all containers took.",
    );
    let cost = app.meter.cost();
    cycle.add("", cost.wall_us as f64 / 1e6);
    let mut cycle_cpu = Family::new(
        "plimsoll_collector_cycle_cpu_seconds",
        "The processor time that the last reading took.",
    );
    cycle_cpu.add("", cost.cpu_us as f64 / 1e6);
    let mut irregular = Family::new(
        "plimsoll_collector_irregularities_total",
        "What was not in order about the time between readings, and counters that went back.",
    );
    for (what, count) in app.meter.irregular().named() {
        irregular.add(&format!("what=\"{what}\""), count);
    }
    vec![
        decided, violations, build, up, ok, took, at, runs, cycle, cycle_cpu, irregular,
    ]
}

pub(super) async fn metrics(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.reads_all()?;
    let entities = entities(&app).await?;
    let decisions = app.store.decision_count();
    let open = app.store.violations(None, u32::MAX).await?.len();
    let mut out = String::new();
    for family in of_entities(&app, &entities)
        .iter()
        .chain(&of_the_host(&app))
        .chain(&of_the_server(&app, decisions, open))
    {
        family.write(&mut out);
    }
    let response: Response = ([(CONTENT_TYPE, FORMAT)], out).into_response();
    Ok(response)
}
