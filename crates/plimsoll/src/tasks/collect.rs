//! Reads what containers use and keeps the sums.
//!
//! CPU time of a user comes from the counters of their parent cgroups, which include containers that
//! lived between two readings; the counters are kept with the totals, so what was used while the
//! server was away is counted, too. Memory is the sum over running containers, because pages of
//! removed files stay with a parent and are nobody's use.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::admit::LevelKind;
use plimsoll_core::entity::{EntityKind, TeamId, UserId};
use plimsoll_core::{Dimension, State};
use plimsoll_host::cgroup::{Hierarchy, ParentPath};
use plimsoll_host::collector::{Collector, Sample, Settings, raise_descriptor_limit, rate};
use plimsoll_host::ids::ContainerId;
use plimsoll_store::{
    Measured, Metrics, Peak, Reservation, ReservationFilter, StoreError, Tick, UsageTotals,
};
use tokio::sync::Mutex;

use crate::caps::parent_of;
use crate::engine_facts::engine_facts;
use crate::meter::{ContainerUse, Reading, Usage, Whose};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "collector";

/// Peaks are kept in spans of this length.
const PEAK_SPAN_MS: i64 = 10 * 60 * 1000;

/// A rolling peak looks back this far.
const PEAK_WINDOW_MS: i64 = 24 * 3600 * 1000;

/// Measured use counts as over a limit from this many thousandths of it on: readings of a container
/// held at its cap waver by a few percent.
const OVER_PERMILLE: u64 = 1050;

/// Descriptors to ask for: six a container at several thousand containers.
const DESCRIPTORS_WANTED: u64 = 65_536;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Parent(Option<TeamId>, UserId),
    Container(String),
}

/// The collector's memory between two readings.
#[derive(Debug)]
pub struct Collecting {
    metrics: Metrics,
    collector: Collector<Key>,
    totals: HashMap<Whose, UsageTotals>,
    peaks: HashMap<Whose, VecDeque<Peak>>,
    /// CPU counters as accounted, by [`counter_key`].
    counters: HashMap<String, u64>,
    last: HashMap<Key, Sample>,
    last_at: Option<Duration>,
    last_running: HashSet<Whose>,
    /// What could not be written yet.
    unsaved: Tick,
}

/// A collector that several runs share.
pub type SharedCollecting = Arc<Mutex<Collecting>>;

impl Collecting {
    /// Starts from what was kept.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub fn open(metrics: Metrics) -> Result<Self, StoreError> {
        let kept = metrics.load()?;
        let descriptors = raise_descriptor_limit(DESCRIPTORS_WANTED).unwrap_or(1024);
        let settings = Settings {
            descriptors_max: usize::try_from(descriptors / 2).unwrap_or(512),
            ..Settings::default()
        };
        let totals = kept
            .totals
            .into_iter()
            .filter_map(|(k, v)| Some((whose(&k)?, v)))
            .collect();
        let peaks = kept
            .peaks
            .into_iter()
            .filter_map(|(k, v)| Some((whose(&k)?, v.into())))
            .collect();
        Ok(Self {
            metrics,
            collector: Collector::new(settings),
            totals,
            peaks,
            counters: kept.counters,
            last: HashMap::new(),
            last_at: None,
            last_running: HashSet::new(),
            unsaved: Tick::default(),
        })
    }

    /// Shows what was kept, until the first reading.
    pub fn publish_kept(&mut self, app: &App) {
        self.forget_old_peaks(app.clock.now_ms());
        app.meter.publish(Reading {
            entities: self.publishable(&HashMap::new(), None),
            ..Reading::default()
        });
    }
}

fn whose(key: &str) -> Option<Whose> {
    match key.split_once(':') {
        None => (key == "system").then_some(Whose::System),
        Some(("team", id)) => id.parse().ok().map(Whose::Team),
        Some(("user", id)) => id.parse().ok().map(Whose::User),
        Some(_) => None,
    }
}

fn counter_key(team: Option<TeamId>, user: UserId) -> String {
    match team {
        Some(team) => format!("{team}/{user}"),
        None => format!("/{user}"),
    }
}

fn parse_counter_key(key: &str) -> Option<(Option<TeamId>, UserId)> {
    let (team, user) = key.split_once('/')?;
    let team = if team.is_empty() {
        None
    } else {
        Some(team.parse().ok()?)
    };
    Some((team, user.parse().ok()?))
}

/// One reading of everything.
///
/// # Errors
/// In words, when the engine was never reached, or the ledger or the metrics cannot be used.
pub async fn run(app: Arc<App>, collecting: SharedCollecting) -> Result<String, String> {
    let facts = engine_facts(&app).await.map_err(|e| in_full(&e))?;
    let filter = ReservationFilter {
        host: Some(app.lease.host.clone()),
        states: vec![State::Active],
        ..Default::default()
    };
    let rows = app
        .store
        .reservations(filter)
        .await
        .map_err(|e| in_full(&e))?;
    let hierarchy = facts.hierarchy.clone();
    let mut collecting = collecting.lock_owned().await;
    let reader = Arc::clone(&app);
    let (summary, watched) =
        tokio::task::spawn_blocking(move || collecting.read(&reader, &hierarchy, &rows))
            .await
            .map_err(|e| e.to_string())??;
    follow_limits(&app, watched)
        .await
        .map_err(|e| in_full(&e))?;
    Ok(summary)
}

impl Collecting {
    fn read(
        &mut self,
        app: &App,
        hierarchy: &Hierarchy,
        rows: &[Reservation],
    ) -> Result<(String, Vec<(Whose, Usage)>), String> {
        let began = app.clock.monotonic();
        let now_ms = app.clock.now_ms();
        let owners = self.watch(app, hierarchy, rows);

        let mut samples: HashMap<Key, Sample> = HashMap::with_capacity(self.collector.len());
        let cycle = self.collector.cycle_with(
            || app.clock.monotonic(),
            |key, sample| {
                samples.insert(key.clone(), *sample);
            },
        );

        let interval = Duration::from_secs_f64(app.config.metering.interval_s);
        let elapsed = self.last_at.map(|last| began.saturating_sub(last));
        let mut now: HashMap<Whose, Usage> = HashMap::new();
        let mut containers = HashMap::new();
        let mut tick = std::mem::take(&mut self.unsaved);
        tick.keep_from_ms = now_ms - PEAK_WINDOW_MS - PEAK_SPAN_MS;

        for (key, sample) in &samples {
            let rates = self
                .last
                .get(key)
                .and_then(|before| rate(before, sample, interval));
            let cpu = rates
                .and_then(|r| r.cpu_millicores)
                .map(|m| m.round() as u64);
            match key {
                Key::Container(id) => {
                    let memory = sample.working_set_bytes();
                    for whose in owners.get(id).into_iter().flatten() {
                        let usage = now.entry(*whose).or_default();
                        usage.memory_bytes += memory.unwrap_or(0);
                        usage.pids += sample.pids.unwrap_or(0);
                        usage.containers += 1;
                    }
                    let used = ContainerUse {
                        cpu_milli: cpu,
                        memory_bytes: memory,
                        memory_peak_bytes: sample.memory_peak_bytes,
                        pids: sample.pids,
                        oom_kills: sample.oom_kills,
                        updated_ms: now_ms,
                    };
                    containers.insert(id.clone(), used);
                }
                Key::Parent(team, user) => {
                    let Some(counter) = sample.cpu_ns else {
                        continue;
                    };
                    let name = counter_key(*team, *user);
                    // A counter that went back is that of a new cgroup, counting from zero.
                    let before = self.counters.get(&name).copied().unwrap_or(0);
                    let delta = counter.checked_sub(before).unwrap_or(counter);
                    if delta > 0 {
                        self.counters.insert(name.clone(), counter);
                        tick.counters.insert(name, Some(counter));
                    }
                    for whose in everyone(*team, *user) {
                        self.totals.entry(whose).or_default().cpu_ns += delta;
                        now.entry(whose).or_default().cpu_milli += cpu.unwrap_or(0);
                    }
                }
            }
        }
        for (key, _) in &cycle.gone {
            if let Key::Parent(team, user) = key {
                let name = counter_key(*team, *user);
                self.counters.remove(&name);
                tick.counters.insert(name, None);
            }
        }
        let running: HashSet<Whose> = now
            .iter()
            .filter(|(_, u)| u.containers > 0)
            .map(|(w, _)| *w)
            .collect();
        if let Some(elapsed) = elapsed {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            for whose in &running {
                let totals = self.totals.entry(*whose).or_default();
                totals.memory_byte_ms += u128::from(now[whose].memory_bytes) * u128::from(ms);
                if self.last_running.contains(whose) {
                    totals.runtime_ms += ms;
                }
            }
        }
        self.note_peaks(&now, now_ms, &mut tick);
        let totals = now
            .keys()
            .filter_map(|whose| Some((whose.key(), *self.totals.get(whose)?)));
        tick.totals.extend(totals);
        let saved = self.metrics.save(&tick);
        if saved.is_err() {
            self.unsaved = tick;
        }

        self.last = samples;
        self.last_at = Some(began);
        self.last_running = running;
        let entities = self.publishable(&now, Some(now_ms));
        let watched = now
            .keys()
            .filter_map(|w| Some((*w, *entities.get(w)?)))
            .collect();
        let cycle_us = u64::try_from(app.clock.monotonic().saturating_sub(began).as_micros());
        let summary = format!("{} containers, {} idle", containers.len(), cycle.idle);
        app.meter.publish(Reading {
            entities,
            containers,
            cycle_us: cycle_us.unwrap_or(u64::MAX),
        });
        app.wake.history.notify_one();
        saved.map_err(|e| in_full(&e))?;
        Ok((summary, watched))
    }

    /// Watches what runs and forgets what does not; returns whom each container counts for.
    fn watch(
        &mut self,
        app: &App,
        hierarchy: &Hierarchy,
        rows: &[Reservation],
    ) -> HashMap<String, Vec<Whose>> {
        let known: HashSet<Key> = self.last.keys().cloned().collect();
        let mut wanted: HashMap<Key, ()> = HashMap::new();
        let mut owners = HashMap::new();
        for name in self.counters.keys() {
            if let Some((team, user)) = parse_counter_key(name) {
                wanted.insert(Key::Parent(team, user), ());
            }
        }
        for row in rows {
            wanted.insert(Key::Parent(row.team, row.user), ());
            let Some(id) = &row.container else { continue };
            owners.insert(id.clone(), everyone(row.team, row.user));
            let key = Key::Container(id.clone());
            if !known.contains(&key)
                && let Ok(parsed) = id.parse::<ContainerId>()
            {
                let dirs = hierarchy.container_dirs(&parent_of(&app.instance, row), &parsed);
                self.collector.watch(key.clone(), dirs);
            }
            wanted.insert(key, ());
        }
        for key in wanted.keys() {
            if let Key::Parent(team, user) = key
                && !known.contains(key)
            {
                let path = ParentPath::user(
                    app.instance.clone(),
                    team.map(|t| t.0.as_u128()),
                    user.0.as_u128(),
                );
                self.collector.watch(key.clone(), hierarchy.dirs(&path));
            }
        }
        for key in known {
            if !wanted.contains_key(&key) {
                self.collector.unwatch(&key);
                self.last.remove(&key);
            }
        }
        owners
    }

    fn note_peaks(&mut self, now: &HashMap<Whose, Usage>, now_ms: i64, tick: &mut Tick) {
        let from_ms = now_ms - now_ms.rem_euclid(PEAK_SPAN_MS);
        for (whose, usage) in now {
            let spans = self.peaks.entry(*whose).or_default();
            if spans.back().is_none_or(|span| span.from_ms != from_ms) {
                spans.push_back(Peak {
                    from_ms,
                    ..Peak::default()
                });
            }
            let span = spans.back_mut().expect("pushed when it was empty");
            let before = *span;
            span.cpu_milli = span.cpu_milli.max(usage.cpu_milli);
            span.memory_bytes = span.memory_bytes.max(usage.memory_bytes);
            span.containers = span.containers.max(usage.containers);
            if *span != before {
                tick.peaks.insert((whose.key(), from_ms), *span);
            }
        }
        self.forget_old_peaks(now_ms);
    }

    fn forget_old_peaks(&mut self, now_ms: i64) {
        for spans in self.peaks.values_mut() {
            while spans
                .front()
                .is_some_and(|span| span.from_ms < now_ms - PEAK_WINDOW_MS)
            {
                spans.pop_front();
            }
        }
    }

    fn publishable(
        &self,
        now: &HashMap<Whose, Usage>,
        updated_ms: Option<i64>,
    ) -> HashMap<Whose, Usage> {
        let known: HashSet<Whose> = self
            .totals
            .keys()
            .chain(self.peaks.keys())
            .chain(now.keys())
            .copied()
            .collect();
        known
            .into_iter()
            .map(|whose| {
                let current = now.get(&whose).copied().unwrap_or_default();
                let totals = self.totals.get(&whose).copied().unwrap_or_default();
                let peaks = self.peaks.get(&whose).into_iter().flatten();
                let peak = peaks.fold(Peak::default(), |most, span| Peak {
                    from_ms: 0,
                    cpu_milli: most.cpu_milli.max(span.cpu_milli),
                    memory_bytes: most.memory_bytes.max(span.memory_bytes),
                    containers: most.containers.max(span.containers),
                });
                let usage = Usage {
                    peak_cpu_milli: peak.cpu_milli,
                    peak_memory_bytes: peak.memory_bytes,
                    peak_containers: peak.containers,
                    total_runtime_ms: totals.runtime_ms,
                    total_cpu_ns: totals.cpu_ns,
                    total_memory_byte_ms: totals.memory_byte_ms,
                    updated_ms,
                    ..current
                };
                (whose, usage)
            })
            .collect()
    }
}

/// Whom a container of `user` in `team` counts for.
fn everyone(team: Option<TeamId>, user: UserId) -> Vec<Whose> {
    let mut all = vec![Whose::System, Whose::User(user)];
    all.extend(team.map(Whose::Team));
    all
}

/// Holds measured use against limits.
async fn follow_limits(app: &App, watched: Vec<(Whose, Usage)>) -> Result<(), StoreError> {
    let mut measured = Vec::new();
    for (whose, usage) in watched {
        let (level, kind, entity) = match whose {
            Whose::System => continue,
            Whose::Team(team) => (LevelKind::Team, EntityKind::Team, team.0),
            Whose::User(user) => (LevelKind::User, EntityKind::User, user.0),
        };
        let (standing, name) = match whose {
            Whose::Team(team) => (
                app.store.standing(kind, entity),
                app.store.team(&team.to_string()).map(|t| t.name),
            ),
            _ => (
                app.store.standing(kind, entity),
                app.store.user(&entity.to_string()).map(|u| u.name),
            ),
        };
        // Somebody deleted while their last container was going.
        let (Ok(standing), Ok(name)) = (standing, name) else {
            continue;
        };
        for (dimension, used) in [
            (Dimension::Cpu, usage.cpu_milli),
            (Dimension::Memory, usage.memory_bytes),
        ] {
            let limit = standing.limits[dimension].at_most();
            let over = limit.is_some_and(|limit| {
                u128::from(used) * 1000 > u128::from(limit) * u128::from(OVER_PERMILLE)
            });
            let used = if over {
                used
            } else {
                limit.map_or(used, |limit| used.min(limit))
            };
            measured.push(Measured {
                level,
                entity,
                name: name.clone(),
                dimension,
                limit,
                used,
            });
        }
    }
    if measured.is_empty() {
        return Ok(());
    }
    app.store.follow_use(measured, app.clock.now_ms()).await
}
