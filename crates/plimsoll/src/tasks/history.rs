//! Adds every reading to the history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Faults, History, Labels, Point, Settings, Tick, Totals};
use plimsoll_store::{Project, StoreError};

use crate::config::Config;
use crate::live::{Reserved, of_project};
use crate::meter::{Flows, HostUse, Reading, Usage, Whose};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "history";

/// How often it looks without being told.
pub const EVERY: Duration = Duration::from_mins(1);

/// What a container's key begins with.
pub const CONTAINER: &str = "container:";
/// And a host's.
pub const HOST: &str = "host:";

/// Opens the history as configured.
///
/// # Errors
/// What the store says.
pub fn open(config: &Config, now_ms: i64) -> Result<History, StoreError> {
    let settings = Settings {
        interval_ms: (config.metering.interval_s * 1000.0) as u32,
        raw_days: config.metrics.raw_days,
        five_days: config.metrics.five_minutes_days,
        rollup_days: config.metrics.rollup_days,
        unsent_hours: match config.metrics.remote_write_url {
            Some(_) => config.metrics.unsent_hours,
            None => 0,
        },
    };
    let history = History::open(&config.data_dir, settings, now_ms)?;
    let faults = history.faults();
    if faults != Faults::default() {
        tracing::warn!(?faults, "the history has holes");
    }
    Ok(history)
}

/// What is remembered between two readings.
#[derive(Debug, Default)]
pub struct Recording {
    last_ms: Option<i64>,
    kills: Kills,
}

/// Kills for lack of memory so far, by container; `None` before the first reading, which may be of
/// containers that are older than this process.
type Kills = Option<HashMap<String, u64>>;

/// One that several runs share.
pub type SharedRecording = Arc<Mutex<Recording>>;

/// Adds the last reading, unless it was added.
///
/// # Errors
/// In words, when it cannot be written; the next run writes both.
pub async fn run(app: Arc<App>, recording: SharedRecording) -> Result<String, String> {
    let ledger = Ledger::now(&app).await;
    let done = tokio::task::spawn_blocking(move || record(&app, &recording, &ledger));
    done.await.map_err(|e| e.to_string())?
}

/// What the ledger says beside a reading.
#[derive(Debug, Default)]
struct Ledger {
    /// `None` where it does not say: that is no zero.
    reserved: Option<Reserved>,
    projects: Vec<Project>,
}

impl Ledger {
    async fn now(app: &App) -> Self {
        let read = async {
            let live = app.store.live_reservations().await?;
            let projects = app.store.projects().await?;
            Ok::<_, StoreError>(Self {
                reserved: Some(Reserved::of(&live, &projects)),
                projects,
            })
        };
        let read = read.await;
        let unread = |error: &StoreError| {
            tracing::warn!(
                error = in_full(error),
                "what is reserved is not in this reading"
            );
        };
        read.inspect_err(unread).unwrap_or_default()
    }
}

fn record(app: &App, recording: &Mutex<Recording>, ledger: &Ledger) -> Result<String, String> {
    let mut recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
    let reading = app.meter.last();
    let Some(at_ms) = read_at(&reading).filter(|at_ms| recording.last_ms != Some(*at_ms)) else {
        return Ok("nothing new".to_owned());
    };
    recording.last_ms = Some(at_ms);
    let mut points = points(&reading, ledger.reserved.as_ref(), &mut recording.kills);
    points.extend(app.meter.host().map(|used| host(&app.lease.host, used)));
    for point in &points {
        if !app.history.knows(&point.entity) {
            let labels = labels(app, &ledger.projects, &point.entity);
            app.history.describe(&point.entity, labels);
        }
    }
    let before = app.history.faults();
    let count = points.len();
    let added = app.history.append(&Tick {
        at_ms,
        points,
        totals: totals(&reading),
    });
    let faults = app.history.faults();
    if faults != before {
        tracing::warn!(?faults, "the history has holes");
    }
    added.map_err(|e| format!("the history is not written: {}", in_full(&e)))?;
    app.wake.remote.notify_one();
    Ok(format!("{count} entities"))
}

pub(crate) fn read_at(reading: &Reading) -> Option<i64> {
    let entities = reading
        .entities
        .values()
        .filter_map(|usage| usage.updated_ms);
    let containers = reading.containers.values().map(|used| used.updated_ms);
    entities.chain(containers).max()
}

/// What of a reading goes into the history.
fn points(reading: &Reading, reserved: Option<&Reserved>, kills: &mut Kills) -> Vec<Point> {
    let before = kills.take();
    let so_far = reading.containers.iter();
    let so_far = so_far.filter_map(|(id, used)| Some((id.clone(), used.oom_kills?)));
    *kills = Some(so_far.collect());
    let entities = reading.entities.iter().map(|(whose, usage)| Point {
        entity: whose.key(),
        values: values(usage).chain(of_entity(reserved, *whose)).collect(),
    });
    let held = reserved.into_iter().flat_map(|reserved| &reserved.entities);
    let unread = held.filter(|(whose, _)| !reading.entities.contains_key(whose));
    let unread = unread.map(|(whose, amounts)| Point {
        entity: whose.key(),
        values: held_of(amounts).to_vec(),
    });
    let containers = reading.containers.iter().map(|(id, used)| {
        let kills = used.oom_kills.map(|now| {
            let known = before.as_ref().map(|before| before.get(id).copied());
            let before = known.map_or(now, Option::unwrap_or_default);
            // A counter that went back counts from zero.
            now.checked_sub(before).unwrap_or(now)
        });
        let values = [
            (Metric::Cpu, used.cpu_milli),
            (Metric::Memory, used.memory_bytes),
            (Metric::Pids, used.pids),
            (Metric::OomKills, kills),
            (Metric::CpuThrottled, used.throttled_permille),
            (Metric::Connections, used.connections),
        ];
        let flows = used.flows.into_iter().flat_map(flows);
        let values = values.into_iter();
        Point {
            entity: format!("{CONTAINER}{id}"),
            values: values
                .filter_map(|(m, value)| Some((m, value?)))
                .chain(flows)
                .chain(of_container(reserved, id))
                .collect(),
        }
    });
    entities.chain(unread).chain(containers).collect()
}

/// What is reserved for an entity; who is not in the ledger has reserved nothing.
fn of_entity(reserved: Option<&Reserved>, whose: Whose) -> impl Iterator<Item = (Metric, u64)> {
    let held = reserved.map(|reserved| reserved.entities.get(&whose).copied());
    held.into_iter()
        .flat_map(|held| held_of(&held.unwrap_or_default()))
}

fn of_container(reserved: Option<&Reserved>, id: &str) -> impl Iterator<Item = (Metric, u64)> {
    let held = reserved.map(|reserved| reserved.containers.get(id).copied());
    held.into_iter()
        .flat_map(|held| held_of(&held.unwrap_or_default()))
}

fn held_of(amounts: &Amounts) -> [(Metric, u64); 2] {
    [
        (Metric::CpuReserved, amounts.get(Dimension::Cpu)),
        (Metric::MemoryReserved, amounts.get(Dimension::Memory)),
    ]
}

/// The whole host. What the kernel does not say is left out.
fn host(name: &str, used: HostUse) -> Point {
    let values = [
        (Metric::Cpu, used.cpu_milli),
        (Metric::Memory, Some(used.memory_bytes)),
        (Metric::CpuPressure, used.cpu_pressure.map(|p| p.some)),
        (Metric::MemoryPressure, used.memory_pressure.map(|p| p.some)),
        (Metric::BlockPressure, used.block_pressure.map(|p| p.some)),
    ];
    let known = values.into_iter();
    Point {
        entity: format!("{HOST}{name}"),
        values: known.filter_map(|(m, value)| Some((m, value?))).collect(),
    }
}

/// What is measured of an entity.
pub(crate) fn values(usage: &Usage) -> impl Iterator<Item = (Metric, u64)> {
    let gauges = [
        (Metric::Cpu, usage.cpu_milli),
        (Metric::Memory, usage.memory_bytes),
        (Metric::Pids, usage.pids),
        (Metric::Containers, usage.containers),
        (Metric::Connections, usage.connections),
    ];
    let storage = usage.storage_bytes.map(|bytes| (Metric::Storage, bytes));
    gauges.into_iter().chain(flows(usage.flows)).chain(storage)
}

fn flows(flows: Flows) -> [(Metric, u64); 4] {
    [
        (Metric::NetReceive, flows.received),
        (Metric::NetTransmit, flows.sent),
        (Metric::BlockRead, flows.block_read),
        (Metric::BlockWrite, flows.block_written),
    ]
}

fn totals(reading: &Reading) -> Vec<Totals> {
    let entities = reading.entities.iter();
    entities
        .map(|(whose, usage)| Totals {
            entity: whose.key(),
            peak_cpu_milli: usage.peak_cpu_milli,
            peak_memory_bytes: usage.peak_memory_bytes,
            peak_containers: usage.peak_containers,
            runtime_ms: usage.total_runtime_ms,
            cpu_ns: usage.total_cpu_ns,
            memory_byte_ms: usage.total_memory_byte_ms,
        })
        .collect()
}

/// What the ledger knows of an entity.
fn labels(app: &App, projects: &[Project], entity: &str) -> Labels {
    let host = Some(app.lease.host.clone());
    if let Some(id) = entity.strip_prefix(CONTAINER) {
        let row = app.store.by_container(&app.lease.host, id).ok().flatten();
        return row.as_ref().map_or_else(Labels::default, Labels::of);
    }
    let is_it = |project: &&Project| Whose::Project(project.id).key() == entity;
    if let Some(project) = projects.iter().find(is_it) {
        return Labels {
            host,
            ..of_project(project)
        };
    }
    let name = match entity.split_once(':') {
        Some(("host", name)) => Some(name.to_owned()),
        Some(("user", id)) => app.store.user(id).map(|user| user.name).ok(),
        Some(("team", id)) => app.store.team(id).map(|team| team.name).ok(),
        _ => None,
    };
    Labels {
        name,
        host,
        ..Labels::default()
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::entity::UserId;
    use uuid::Uuid;

    use super::*;
    use crate::meter::ContainerUse;

    #[test]
    fn kills_are_those_since_the_last_reading_and_what_is_unknown_is_left_out() {
        let mut before = None;
        let mut kills = |total: Option<u64>| {
            let used = ContainerUse {
                oom_kills: total,
                memory_bytes: Some(7),
                ..ContainerUse::default()
            };
            let reading = Reading {
                containers: HashMap::from([("c".to_owned(), used)]),
                ..Reading::default()
            };
            points(&reading, None, &mut before).remove(0).values
        };
        let oom = |values: Vec<(Metric, u64)>| values[1].1;
        assert_eq!(oom(kills(Some(9))), 0, "from before this process");
        assert_eq!(kills(None), [(Metric::Memory, 7)]);
        let seen = [2, 2, 5, 1].map(|total| oom(kills(Some(total))));
        assert_eq!(seen, [2, 0, 3, 1]);
    }

    #[test]
    fn whoever_has_reserved_something_is_there_also_where_nothing_runs() {
        let held = |cpu| Amounts::ZERO.with(Dimension::Cpu, cpu);
        let [idle, busy] = [1, 2].map(|n| Whose::User(UserId(Uuid::from_u128(n))));
        let reading = Reading {
            entities: HashMap::from([(busy, Usage::default()), (Whose::System, Usage::default())]),
            ..Reading::default()
        };
        let reserved = Reserved {
            entities: HashMap::from([(idle, held(500)), (busy, held(700))]),
            ..Reserved::default()
        };
        let reserved_of = |reserved: Option<&Reserved>, whose: Whose| {
            let points = points(&reading, reserved, &mut None);
            let point = points
                .into_iter()
                .find(|point| point.entity == whose.key())?;
            let found = point.values.iter().find(|(m, _)| *m == Metric::CpuReserved);
            found.map(|(_, value)| *value)
        };
        for (whose, value) in [(idle, 500), (busy, 700), (Whose::System, 0)] {
            assert_eq!(reserved_of(Some(&reserved), whose), Some(value));
            assert_eq!(reserved_of(None, whose), None, "the ledger did not say");
        }
    }

    #[test]
    fn a_reading_is_as_old_as_the_newest_in_it() {
        let usage = |updated_ms| Usage {
            updated_ms,
            ..Usage::default()
        };
        let mut reading = Reading::default();
        assert_eq!(read_at(&reading), None);
        reading.entities.insert(Whose::System, usage(Some(5)));
        assert_eq!(read_at(&reading), Some(5));
    }
}
