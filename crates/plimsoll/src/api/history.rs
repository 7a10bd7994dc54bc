//! `/api/usage/.../history`: one entity over time.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use plimsoll_core::entity::SYSTEM_ID;
use plimsoll_core::metric::{Kind, Metric};
use plimsoll_store::StoreError;
use plimsoll_store::history::{Ask, Bucket, History};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Params;
use super::output::time;
use super::problem::{Answer, Problem};
use super::projects;
use crate::clock::rfc3339;
use crate::meter::Whose;
use crate::state::App;
use crate::tasks::history::{CONTAINER, HOST};
use crate::tasks::{in_full, remote};

/// The most points in one answer.
const POINTS_MAX: usize = 10_000;
/// As many without a step: about one a pixel.
const POINTS: usize = 400;
/// How far back an answer looks unless told.
const SPAN_MS: i64 = 24 * 3_600_000;

/// A metric as it was asked for: by our name, or by that of the quota it is held against.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) metric: Metric,
    pub(super) name: String,
    pub(super) unit: &'static str,
    /// Stored units in one of these.
    pub(super) divisor: f64,
}

/// Names of quotas, in their units.
const QUOTA_NAMES: [(&str, Metric, &str, u64); 8] = [
    ("cpu_cores", Metric::Cpu, "cores", 1000),
    ("memory_gb", Metric::Memory, "GB", 1 << 30),
    ("storage_gb", Metric::Storage, "GB", 1 << 30),
    ("concurrent_containers", Metric::Containers, "count", 1),
    ("gpus", Metric::Gpu, "devices", 1000),
    ("reserved_cpu_cores", Metric::CpuReserved, "cores", 1000),
    ("reserved_memory_gb", Metric::MemoryReserved, "GB", 1 << 30),
    ("gpu_memory_gb", Metric::GpuMemory, "GB", 1 << 30),
];

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            let names = Metric::ALL.map(Metric::name).join(", ");
            serde::de::Error::custom(format!("must be one of {names}"))
        })
    }
}

impl Asked {
    pub(super) fn named(name: &str) -> Option<Self> {
        let quota = QUOTA_NAMES.into_iter().find(|(quota, ..)| *quota == name);
        let (metric, unit, scale) = match quota {
            Some((_, metric, unit, scale)) => (metric, unit, scale),
            None => {
                let metric = Metric::parse(name)?;
                (metric, unit_of(metric), metric.scale())
            }
        };
        Some(Self {
            metric,
            name: name.to_owned(),
            unit,
            divisor: scale as f64,
        })
    }

    pub(super) fn shown(&self, stored: f64) -> f64 {
        // A tenth of a thousandth of what is stored is noise.
        let shown = stored / self.divisor;
        (shown * 1e6).round() / 1e6
    }

    /// A total: of gauges, units times hours.
    pub(super) fn total(&self, stored: f64) -> f64 {
        match self.metric.kind() {
            Kind::Gauge => self.shown(stored / 3600.0),
            Kind::Events => self.shown(stored),
        }
    }
}

/// The unit in which a metric is read, from the end of its series' name.
fn unit_of(metric: Metric) -> &'static str {
    let units = [
        ("_cores", "cores"),
        ("_bytes", "bytes"),
        ("_bytes_per_second", "bytes/s"),
        ("_ratio", "ratio"),
        ("_devices", "devices"),
    ];
    let found = units
        .into_iter()
        .find(|(end, _)| metric.series().ends_with(end));
    found.map_or("count", |(_, unit)| unit)
}

/// A span of time: `30s`, `5m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) i64);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        span_ms(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom("must be a span like 30s, 5m, 1h or 7d, 400 days at most")
        })
    }
}

fn span_ms(text: &str) -> Option<i64> {
    let unit_s = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: i64 = text[..text.len() - 1].parse().ok()?;
    let seconds = number.checked_mul(unit_s)?;
    (1..=400 * 86_400)
        .contains(&seconds)
        .then_some(seconds * 1000)
}

/// In which form an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// As the query says, else as the headers do.
    pub(super) fn of(asked: Option<Self>, headers: &HeaderMap) -> Self {
        let accepts_csv = || {
            let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
            accept.is_some_and(|accept| accept.trim_start().starts_with("text/csv"))
        };
        match asked {
            Some(format) => format,
            None if accepts_csv() => Self::Csv,
            None => Self::Json,
        }
    }
}

/// What a table is.
pub(super) const CSV: &str = "text/csv; charset=utf-8";

/// Rows as CSV.
pub(super) fn csv(head: &str, rows: impl Iterator<Item = String>) -> Response {
    let mut text = format!("{head}\n");
    for row in rows {
        let _ = writeln!(text, "{row}");
    }
    ([(CONTENT_TYPE, CSV)], text).into_response()
}

/// A time as text.
pub(super) fn time_text(ms: i64) -> String {
    rfc3339(ms).unwrap_or_default()
}

/// The span an answer is about.
pub(super) fn period(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    now_ms: i64,
) -> Result<(i64, i64), Problem> {
    let to_ms = to.map_or(now_ms, Timestamp::as_millisecond);
    let from_ms = from.map_or(to_ms.saturating_sub(SPAN_MS), Timestamp::as_millisecond);
    if from_ms < to_ms {
        Ok((from_ms, to_ms))
    } else {
        Err(Problem::field("to", "must be after from"))
    }
}

/// Asks the history, off the asynchronous threads.
pub(super) async fn ask<T: Send + 'static>(
    app: &App,
    job: impl FnOnce(&History) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let history = Arc::clone(&app.history);
    let answered = tokio::task::spawn_blocking(move || job(&history)).await;
    Ok(answered.map_err(|_| StoreError::Stopped)??)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    metric: Asked,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    step: Option<Span>,
    format: Option<Format>,
}

/// Whose history.
struct Subject {
    kind: &'static str,
    id: String,
    name: String,
    key: String,
}

pub(super) async fn user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    let user = caller.user(&app, &user).await?;
    let subject = Subject {
        kind: "user",
        id: user.id.to_string(),
        name: user.name,
        key: Whose::User(user.id).key(),
    };
    answer(&app, subject, which, &headers).await
}

pub(super) async fn team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    let team = caller.team(&app, &team)?;
    let subject = Subject {
        kind: "team",
        id: team.id.to_string(),
        name: team.name,
        key: Whose::Team(team.id).key(),
    };
    answer(&app, subject, which, &headers).await
}

pub(super) async fn system(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    caller.reads_all()?;
    let subject = Subject {
        kind: "system",
        id: SYSTEM_ID.to_string(),
        name: "system".to_owned(),
        key: Whose::System.key(),
    };
    answer(&app, subject, which, &headers).await
}

pub(super) async fn project(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    let project = projects::find(&app, &caller, &project).await?;
    let subject = Subject {
        kind: "project",
        id: project.id.to_string(),
        name: project.name,
        key: Whose::Project(project.id).key(),
    };
    answer(&app, subject, which, &headers).await
}

/// A host that was never measured has no points.
pub(super) async fn host(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(host): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    caller.reads_all()?;
    let subject = Subject {
        kind: "host",
        key: format!("{HOST}{host}"),
        name: host.clone(),
        id: host,
    };
    answer(&app, subject, which, &headers).await
}

pub(super) async fn container(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(container): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    let absent = || Problem::not_found("container", &container);
    let row = app.store.by_container(&app.lease.host, &container)?;
    let row = row.ok_or_else(absent)?;
    if !caller.sees_charge(&app, row.user, row.team)? {
        return Err(absent());
    }
    let subject = Subject {
        kind: "container",
        key: format!("{CONTAINER}{container}"),
        name: row.container_name.unwrap_or_else(|| container.clone()),
        id: container,
    };
    answer(&app, subject, which, &headers).await
}

/// An entity over time, from the store that is configured: the step, and the points.
async fn series(app: &App, ask: &Ask<'_>) -> Result<(i64, Vec<Bucket>), Problem> {
    if let Some(remote) = remote::reader(app) {
        let step_ms = app.history.step_ms(ask);
        let points = remote.series(ask, step_ms).await.map_err(|error| {
            let code = StatusCode::BAD_GATEWAY;
            Problem::new(code, "remote_store", in_full(&error))
        })?;
        return Ok((step_ms, points));
    }
    let entity = ask.entity.to_owned();
    let (metric, from_ms, to_ms) = (ask.metric, ask.from_ms, ask.to_ms);
    let (step_ms, points_max, now_ms) = (ask.step_ms, ask.points_max, ask.now_ms);
    let series = self::ask(app, move |history| {
        history.series(&Ask {
            entity: &entity,
            metric,
            from_ms,
            to_ms,
            step_ms,
            points_max,
            now_ms,
        })
    });
    let series = series.await?;
    Ok((series.step_ms, series.points))
}

async fn answer(app: &App, subject: Subject, which: Which, headers: &HeaderMap) -> Answer {
    let now_ms = app.clock.now_ms();
    let (from_ms, to_ms) = period(which.from, which.to, now_ms)?;
    let Subject {
        kind,
        id,
        name,
        key,
    } = subject;
    let step_ms = which.step.map(|step| step.0);
    let metric = which.metric.metric;
    let ask = Ask {
        entity: &key,
        metric,
        from_ms,
        to_ms,
        step_ms,
        points_max: step_ms.map_or(POINTS, |_| POINTS_MAX),
        now_ms,
    };
    let (step_ms, points) = series(app, &ask).await?;
    let asked = &which.metric;
    if Format::of(which.format, headers) == Format::Csv {
        let row = |point: &Bucket| {
            format!(
                "{},{},{},{}",
                time_text(point.at_ms),
                asked.shown(point.value),
                asked.shown(point.max as f64),
                asked.total(point.total)
            )
        };
        let head = "time,average,max,total";
        return Ok(csv(head, points.iter().map(row)));
    }
    let points = points.iter().map(|point| {
        json!([
            point.at_ms,
            asked.shown(point.value),
            asked.shown(point.max as f64)
        ])
    });
    let body = json!({
        "entityType": kind, "entityId": id, "name": name,
        "metric": asked.name, "unit": asked.unit,
        "from": time(from_ms), "to": time(to_ms), "stepSeconds": step_ms as f64 / 1000.0,
        "points": points.collect::<Vec<Value>>(),
    });
    Ok(Json(body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_number_and_a_unit() {
        for (text, ms) in [
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("400d", Some(400 * 86_400_000)),
            ("401d", None),
            ("0s", None),
            ("-1h", None),
            ("h", None),
            ("", None),
            ("1w", None),
            ("5ä", None),
        ] {
            assert_eq!(span_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn every_metric_and_quota_name_is_known_with_its_unit() {
        for metric in Metric::ALL {
            assert_eq!(Asked::named(metric.name()).unwrap().metric, metric);
        }
        let memory = Asked::named("memory_gb").unwrap();
        assert_eq!((memory.shown(f64::from(1 << 29)), memory.unit), (0.5, "GB"));
        let cpu = Asked::named("cpu").unwrap();
        assert_eq!((cpu.shown(1500.0), cpu.unit), (1.5, "cores"));
        assert_eq!(cpu.total(3_600_000.0), 1.0, "core-hours");
        assert!(Asked::named("cpus").is_none());
        assert_eq!(Asked::named("net_receive").unwrap().unit, "bytes/s");
    }
}
