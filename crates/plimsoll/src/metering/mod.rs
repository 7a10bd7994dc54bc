//! Reads what containers use and keeps the sums.
//!
//! CPU time of a user comes from the counters of their parent cgroups, which include containers that
//! lived between two readings; everything else is the sum over containers, each of which is read when
//! it starts, from time to time, and when its first process ends. The counters are kept with the
//! totals, so what was used while the server was away is counted, too. Memory is the sum over running
//! containers, because pages of removed files stay with a parent and are nobody's use.
//!
//! This module must not decide anything about limits, and asks the engine only in [`found`].

mod cadence;
pub mod found;
mod held;
mod host;
mod sums;
mod timeline;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::entity::{TeamId, UserId};
use plimsoll_host::cgroup::{Hierarchy, ParentPath};
use plimsoll_host::collector::{
    Collector, Cycle, Disks, Sample, Settings, raise_descriptor_limit, rate,
};
use plimsoll_host::engine::ContainerSummary;
use plimsoll_host::network::{Namespace, Network, Traffic};
use plimsoll_store::{Counted, Metrics, StoreError, UsageTotals};
use tokio::sync::Mutex;

use crate::caps::parent;
use crate::meter::{ContainerUse, Cost, Reading, Stranger, Usage, Whose};
use crate::state::App;
use crate::tasks::in_full;
pub use cadence::Cadence;
use found::Running;
pub use held::Owner;
use held::{Held, add, everyone, since};
use host::Host;
use sums::Sums;
use timeline::Span;
use timeline::Timeline;
pub use timeline::{Irregularities, Moment, milliseconds};

/// Descriptors to ask for: some ten a container at several thousand containers.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// What changes slowly, or costs more than it says, is looked at every so many readings.
const SLOW_EVERY: u64 = 10;

/// Who runs containers where: a user in a team, or outside.
pub type Parent = (Option<TeamId>, UserId);

/// What the containers under one parent cgroup use now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlaceUse {
    /// Millicores.
    pub cpu_milli: u64,
    /// Working set, bytes.
    pub memory_bytes: u64,
    /// Share of the periods in which the parent's CPU cap held them back, thousandths.
    pub throttled_permille: u64,
    /// Processes that the parent's memory cap killed.
    pub killed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Parent(Parent),
    Container(String),
}

/// A run of a container that ended since the last reading.
#[derive(Debug)]
struct Past {
    id: String,
    owner: Option<Owner>,
    from_ms: u64,
    to_ms: u64,
    memory_bytes: u64,
    used: Option<ContainerUse>,
}

/// What is kept of a container between its runs.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    counted: Counted,
    totals: UsageTotals,
}

/// Everything between two readings.
#[derive(Debug)]
pub struct Collecting {
    collector: Collector<Key>,
    network: Option<Network>,
    held: HashMap<String, Held>,
    past: Vec<Past>,
    kept: HashMap<String, Kept>,
    /// CPU counters of parents as accounted.
    parents: HashMap<Parent, u64>,
    last_parents: HashMap<Parent, Sample>,
    host: Host,
    sums: Sums,
    timeline: Timeline,
    readings: u64,
    /// Before this nobody watched, monotonic milliseconds.
    floor_ms: u64,
    /// Up to when an entity's runtime is counted, monotonic milliseconds.
    reached_ms: HashMap<Whose, u64>,
    /// What strangers had counted before is not counted here.
    since_ms: i64,
}

/// A collector that several tasks share.
pub type SharedCollecting = Arc<Mutex<Collecting>>;

/// What a reading came to.
#[derive(Debug)]
pub struct Outcome {
    /// In words.
    pub summary: String,
    /// Everybody who uses something now.
    pub now: Vec<(Whose, Usage)>,
    /// By user, in each team by itself.
    pub places: HashMap<Parent, PlaceUse>,
    /// Whether it could be kept.
    pub saved: Result<(), StoreError>,
}

impl Collecting {
    /// Starts from what was kept, and shows it until the first reading.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub fn open(app: &App, metrics: Metrics) -> Result<Self, StoreError> {
        let loaded = metrics.load()?;
        let now_ms = app.clock.now_ms();
        let totals = &loaded.totals;
        let keep = |(id, counted): (String, Counted)| {
            let totals = totals.get(&container_key(&id));
            let totals = totals.copied().unwrap_or_default();
            (id, Kept { counted, totals })
        };
        let kept = loaded.containers.into_iter().map(keep).collect();
        let parents = loaded.counters.iter();
        let parents = parents.filter_map(|(key, ns)| Some((parse_parent_key(key)?, *ns)));
        let network = Network::open(found::PROC.into());
        let network = network.inspect_err(|error| tracing::warn!(%error, "no network is metered"));
        let mut sums = Sums::new(metrics, &loaded.totals, loaded.peaks);
        sums.forget_old_peaks(now_ms);
        app.meter.publish(Reading {
            entities: sums.publishable(&HashMap::new(), None),
            ..Reading::default()
        });
        Ok(Self {
            collector: Collector::new(settings()),
            network: network.ok(),
            held: HashMap::new(),
            past: Vec::new(),
            kept,
            parents: parents.collect(),
            last_parents: HashMap::new(),
            host: Host::default(),
            sums,
            timeline: Timeline::default(),
            readings: 0,
            floor_ms: 0,
            reached_ms: HashMap::new(),
            since_ms: loaded.last_tick_ms.unwrap_or(now_ms),
        })
    }

    /// Meters a container from now on and reads it for the first time. Returns whether it is new.
    fn begin(
        &mut self,
        app: &App,
        hierarchy: &Hierarchy,
        running: Running,
        owner: Option<Owner>,
    ) -> bool {
        let id = running.id.clone();
        if let Some(owner) = owner.filter(|owner| owner.is_under_parent) {
            self.watch_parent(app, hierarchy, (owner.team, owner.user));
        }
        if let Some(held) = self.held.get_mut(&id) {
            if held.running.started_ms == running.started_ms {
                (held.owner, held.running.name) = (owner, running.name);
                return false;
            }
            self.retire(app, &id);
        }
        let now = app.clock.monotonic();
        let key = Key::Container(id.clone());
        self.collector.watch(key.clone(), running.dirs.clone());
        let sample = self.collector.read_now(&key, now);
        let kept = self.kept.get(&id).copied();
        let fresh = Counted {
            started_ms: running.started_ms,
            ..Counted::default()
        };
        let is_strange = owner.is_none() && running.started_ms <= self.since_ms;
        let counted = kept
            .map(|kept| kept.counted)
            .filter(|counted| counted.started_ms == running.started_ms);
        let totals = kept.map(|kept| kept.totals).unwrap_or_default();
        let mut held = Held::new(running, owner, counted.unwrap_or(fresh), totals);
        let traffic = self.first_traffic(&mut held);
        if let Some(sample) = sample {
            held.read(sample, traffic, Duration::MAX);
        }
        if kept.is_none() && is_strange {
            held.counted = held.counters();
        }
        self.held.insert(id, held);
        true
    }

    fn first_traffic(&mut self, held: &mut Held) -> Option<Traffic> {
        let network = self.network.as_mut().filter(|_| held.running.has_network)?;
        held.namespace = network.watch(held.running.pid).ok();
        held.connections = network.connections(held.running.pid);
        network.read_now(held.namespace?).ok()?
    }

    fn watch_parent(&mut self, app: &App, hierarchy: &Hierarchy, of: Parent) {
        let key = Key::Parent(of);
        if !self.collector.is_watched(&key) {
            let dirs = hierarchy.dirs(&parent(&app.instance, of.0, of.1));
            self.collector.watch(key, dirs);
        }
    }

    /// Reads a container whose first process has just ended.
    fn last_look(&mut self, app: &App, id: &str, started_ms: i64) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        if held.running.started_ms != started_ms || held.ended_ms.is_some() {
            return;
        }
        let now = app.clock.monotonic();
        held.ended_ms = Some(milliseconds(now));
        let namespace = held.namespace;
        let sample = self.collector.read_now(&Key::Container(id.to_owned()), now);
        let network = self.network.as_mut();
        let traffic = network.and_then(|n| n.read_now(namespace?).ok()?);
        if let Some(sample) = sample {
            held.read(sample, traffic, Duration::MAX);
        }
    }

    /// The engine shows no run of it, but perhaps the last one, which nobody may have seen.
    fn ended(&mut self, app: &App, id: &str, owner: Option<Owner>, last: Option<(i64, i64)>) {
        let ended_ms = last.map(|(_, ended)| app.clock.monotonic_ms_of(ended));
        if let Some(held) = self.held.get_mut(id) {
            held.ended_ms = ended_ms.or(held.ended_ms);
            return self.retire(app, id);
        }
        let Some((began, ended)) = last else { return };
        let known = self.kept.get(id).map(|kept| kept.counted.started_ms);
        if known != Some(began) && began > self.since_ms {
            self.missed(app, id, owner, (began, ended));
        }
    }

    /// A run that was over before anybody looked: its time is known, and its CPU time is its parent's.
    fn missed(&mut self, app: &App, id: &str, owner: Option<Owner>, (began, ended): (i64, i64)) {
        let kept = self.kept.entry(id.to_owned()).or_default();
        kept.counted = Counted {
            started_ms: began,
            ..Counted::default()
        };
        let counted = Some(kept.counted);
        self.sums.tick.containers.insert(id.to_owned(), counted);
        self.past.push(Past {
            id: id.to_owned(),
            owner,
            from_ms: app.clock.monotonic_ms_of(began),
            to_ms: app.clock.monotonic_ms_of(ended),
            memory_bytes: 0,
            used: None,
        });
    }

    /// Accounts a run that is over and meters it no longer.
    fn retire(&mut self, app: &App, id: &str) {
        self.account(id);
        let Some(mut held) = self.held.remove(id) else {
            return;
        };
        let now = app.clock.moment();
        let to_ms = *held.ended_ms.get_or_insert(milliseconds(now.monotonic));
        self.collector.unwatch(&Key::Container(id.to_owned()));
        if let (Some(network), Some(namespace)) = (&mut self.network, held.namespace) {
            network.unwatch(namespace);
        }
        let (counted, totals) = (held.counted, held.totals);
        self.kept.insert(id.to_owned(), Kept { counted, totals });
        self.sums.tick.totals.insert(container_key(id), totals);
        let sample = held.sample.unwrap_or_default();
        self.past.push(Past {
            id: id.to_owned(),
            owner: held.owner,
            from_ms: held.spent_ms,
            to_ms,
            memory_bytes: sample.working_set_bytes().unwrap_or(0),
            used: Some(held.shown(now.wall_ms)),
        });
    }

    /// A container that the engine no longer has.
    fn forget(&mut self, id: &str) {
        if self.kept.remove(id).is_some() {
            self.sums.tick.containers.insert(id.to_owned(), None);
        }
    }

    /// Containers of the engine's list that are not metered as it shows them. Forgets those that are
    /// not on it.
    fn differing(&mut self, app: &App, listed: &[ContainerSummary]) -> Vec<String> {
        let by_id: HashMap<&str, bool> = listed
            .iter()
            .map(|c| {
                (
                    c.id.as_str(),
                    matches!(c.state.as_str(), "running" | "paused"),
                )
            })
            .collect();
        let is_listed = |id: &str| by_id.contains_key(id);
        let lost = self.kept.keys().filter(|id| !is_listed(id)).cloned();
        let lost: Vec<String> = lost.filter(|id| !self.held.contains_key(id)).collect();
        for id in lost {
            self.forget(&id);
        }
        let has_owner = |id: &str| {
            let row = app.store.by_container(&app.lease.host, id);
            row.is_ok_and(|row| row.is_some())
        };
        let agrees = |id: &str, runs: bool| match self.held.get(id) {
            Some(held) => runs && (held.owner.is_some() || !has_owner(id)),
            None => !runs,
        };
        let held = self.held.keys().filter(|id| !is_listed(id)).cloned();
        let listed = by_id.iter().filter(|(id, runs)| !agrees(id, **runs));
        listed.map(|(id, _)| (*id).to_owned()).chain(held).collect()
    }

    /// One reading of everything.
    pub fn cycle(&mut self, app: &App, hierarchy: &Hierarchy, interval: Duration) -> Outcome {
        let (began, cpu_began) = (app.clock.moment(), app.clock.thread_cpu());
        let span = self.timeline.tick(began, interval);
        self.readings += 1;
        if self.readings == 1 {
            count_block_io(app, hierarchy);
        }
        for of in self.parents.keys().copied().collect::<Vec<_>>() {
            self.watch_parent(app, hierarchy, of);
        }
        let mut samples = HashMap::with_capacity(self.collector.len());
        let cycle = self.collector.cycle_with(
            || app.clock.monotonic(),
            |key, sample| {
                samples.insert(key.clone(), *sample);
            },
        );
        self.take_containers(app, &samples, &cycle, interval);
        let mut now: HashMap<Whose, Usage> = HashMap::new();
        let mut places = HashMap::new();
        self.take_parents(&samples, &cycle, interval, &mut now, &mut places);
        for id in self.held.keys().cloned().collect::<Vec<_>>() {
            self.account(&id);
        }
        self.sum_up(&mut now, &mut places);
        let past = std::mem::take(&mut self.past);
        self.spend(milliseconds(began.monotonic), span, &past);
        self.sums.note_peaks(&now, began.wall_ms);
        self.keep_containers();
        let saved = self.sums.save(began.wall_ms);
        let entities = self.sums.publishable(&now, Some(began.wall_ms));
        let watched = now.keys().filter_map(|w| Some((*w, *entities.get(w)?)));
        let watched = watched.collect();
        let summary = format!("{} containers, {} idle", self.held.len(), cycle.idle);
        let containers = self.shown(began.wall_ms, past);
        app.meter.publish(Reading {
            entities,
            containers,
            strangers: self.strangers(),
            host: self.host.read(began.monotonic),
            cost: Cost {
                wall_us: micros(app.clock.monotonic().saturating_sub(began.monotonic)),
                cpu_us: micros(app.clock.thread_cpu().saturating_sub(cpu_began)),
            },
            irregular: self.timeline.irregular,
        });
        app.wake.history.notify_one();
        Outcome {
            summary,
            now: watched,
            places,
            saved,
        }
    }

    /// Takes in what was read of containers, and retires those that are over.
    fn take_containers(
        &mut self,
        app: &App,
        samples: &HashMap<Key, Sample>,
        cycle: &Cycle<Key>,
        interval: Duration,
    ) {
        let traffic = self.read_network();
        let is_slow_turn = self.readings.is_multiple_of(SLOW_EVERY);
        for (id, held) in &mut self.held {
            let Some(sample) = samples.get(&Key::Container(id.clone())) else {
                continue;
            };
            if held.ended_ms.is_some() {
                // Its last look was the last.
                continue;
            }
            let traffic = held.namespace.and_then(|n| traffic.get(&n).copied());
            held.read(*sample, traffic, interval);
            if (!sample.is_carried || is_slow_turn)
                && let (Some(network), Some(_)) = (&self.network, held.namespace)
            {
                held.connections = network.connections(held.running.pid);
            }
        }
        let over = |(id, held): (&String, &Held)| held.ended_ms.map(|_| id.clone());
        let mut over: Vec<String> = self.held.iter().filter_map(over).collect();
        for (key, _) in &cycle.gone {
            if let Key::Container(id) = key {
                over.push(id.clone());
            }
        }
        for id in over {
            self.retire(app, &id);
        }
    }

    fn read_network(&mut self) -> HashMap<Namespace, Traffic> {
        let mut all = HashMap::new();
        if let Some(network) = &mut self.network {
            let read = network.cycle(|namespace, traffic| {
                all.insert(namespace, traffic);
            });
            if let Err(error) = read {
                tracing::warn!(%error, "the network's counters could not be read");
            }
        }
        all
    }

    /// Takes in the CPU time of everybody's parent cgroups.
    fn take_parents(
        &mut self,
        samples: &HashMap<Key, Sample>,
        cycle: &Cycle<Key>,
        interval: Duration,
        now: &mut HashMap<Whose, Usage>,
        places: &mut HashMap<Parent, PlaceUse>,
    ) {
        for (key, sample) in samples {
            let Key::Parent(of) = key else { continue };
            let Some(counter) = sample.cpu_ns else {
                continue;
            };
            let before = self.last_parents.insert(*of, *sample);
            let rates = before.and_then(|before| rate(&before, sample, interval));
            let milli = rates.and_then(|r| r.cpu_millicores).unwrap_or(0.0);
            let throttled = rates.and_then(|r| r.throttled_share).unwrap_or(0.0);
            let place = places.entry(*of).or_default();
            place.cpu_milli += milli.round() as u64;
            place.throttled_permille = (throttled * 1000.0).round() as u64;
            place.killed = rates.and_then(|r| r.oom_kills).unwrap_or(0);
            // A counter that went back is that of a new cgroup, counting from zero.
            let before = self.parents.insert(*of, counter).unwrap_or(0);
            let delta = counter.checked_sub(before);
            self.timeline.irregular.counter_resets += u64::from(delta.is_none());
            let delta = delta.unwrap_or(counter);
            if delta > 0 {
                let counters = &mut self.sums.tick.counters;
                counters.insert(parent_key(*of), Some(counter));
            }
            for whose in everyone_of(*of) {
                self.sums.of(whose).cpu_ns += delta;
                now.entry(whose).or_default().cpu_milli += milli.round() as u64;
            }
        }
        for (key, _) in &cycle.gone {
            if let Key::Parent(of) = key {
                self.parents.remove(of);
                self.last_parents.remove(of);
                self.sums.tick.counters.insert(parent_key(*of), None);
            }
        }
    }

    /// Adds what a container has counted since it was last accounted.
    fn account(&mut self, id: &str) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        let counters = held.counters();
        if counters == held.counted {
            return;
        }
        let (delta, went_back) = since(held.counted, counters);
        self.timeline.irregular.counter_resets += u64::from(went_back);
        held.counted = counters;
        add(&mut held.totals, &delta);
        held.totals.cpu_ns += delta.cpu_ns;
        for whose in everyone(held.owner) {
            let totals = self.sums.of(whose);
            add(totals, &delta);
            if !is_parents(held.owner, whose) {
                totals.cpu_ns += delta.cpu_ns;
            }
        }
        let changed = (id.to_owned(), Some(counters));
        self.sums.tick.containers.extend([changed]);
        self.sums.tick.totals.insert(container_key(id), held.totals);
    }

    /// What everybody uses now.
    fn sum_up(&self, now: &mut HashMap<Whose, Usage>, places: &mut HashMap<Parent, PlaceUse>) {
        for held in self.held.values() {
            let sample = held.sample.unwrap_or_default();
            if let Some(owner) = held.owner {
                let place = places.entry((owner.team, owner.user)).or_default();
                place.memory_bytes += sample.working_set_bytes().unwrap_or(0);
                if !owner.is_under_parent {
                    place.cpu_milli += held.cpu_milli().unwrap_or(0);
                }
            }
            for whose in everyone(held.owner) {
                let usage = now.entry(whose).or_default();
                usage.memory_bytes += sample.working_set_bytes().unwrap_or(0);
                usage.pids += sample.pids.unwrap_or(0);
                usage.containers += 1;
                usage.flows += held.flows().unwrap_or_default();
                usage.connections += held.connections.unwrap_or(0);
                if !is_parents(held.owner, whose) {
                    usage.cpu_milli += held.cpu_milli().unwrap_or(0);
                }
            }
        }
    }

    /// Adds the time in which containers ran, and what they held meanwhile.
    fn spend(&mut self, now_ms: u64, span: Option<Span>, past: &[Past]) {
        let Some(span) = span.filter(|span| !span.is_gap) else {
            // Nothing is said of the time up to now.
            self.floor_ms = now_ms;
            return;
        };
        let floor = self.floor_ms;
        let mut times: HashMap<Whose, Vec<(u64, u64)>> = HashMap::new();
        let mut held = |sums: &mut Sums, owner, (from, to): (u64, u64), memory_bytes: u64| {
            let time = (from.max(floor), to.min(span.to_ms));
            let ms = time.1.saturating_sub(time.0);
            let byte_ms = u128::from(memory_bytes) * u128::from(ms);
            for whose in everyone(owner) {
                sums.of(whose).memory_byte_ms += byte_ms;
                times.entry(whose).or_default().push(time);
            }
            (ms, byte_ms)
        };
        for one in self.held.values_mut() {
            let memory = one.sample.and_then(|sample| sample.working_set_bytes());
            let time = (one.spent_ms, span.to_ms);
            let (ms, byte_ms) = held(&mut self.sums, one.owner, time, memory.unwrap_or(0));
            one.spent_ms = span.to_ms;
            one.totals.runtime_ms += ms;
            one.totals.memory_byte_ms += byte_ms;
        }
        for one in past {
            let time = (one.from_ms, one.to_ms);
            let (ms, byte_ms) = held(&mut self.sums, one.owner, time, one.memory_bytes);
            let Some(kept) = self.kept.get_mut(&one.id) else {
                continue;
            };
            kept.totals.runtime_ms += ms;
            kept.totals.memory_byte_ms += byte_ms;
            let totals = &mut self.sums.tick.totals;
            totals.insert(container_key(&one.id), kept.totals);
        }
        for (whose, mut times) in times {
            let reached = self.reached_ms.entry(whose).or_default();
            let (ms, now) = timeline::covered_ms(floor.max(*reached), &mut times);
            *reached = now;
            self.sums.of(whose).runtime_ms += ms;
        }
    }

    /// Time passes for idle containers, too; theirs is written now and then.
    fn keep_containers(&mut self) {
        if self.readings.is_multiple_of(SLOW_EVERY) {
            for (id, held) in &self.held {
                self.sums.tick.totals.insert(container_key(id), held.totals);
            }
        }
    }

    fn shown(&self, now_ms: i64, past: Vec<Past>) -> HashMap<String, ContainerUse> {
        let ended = past.into_iter().filter_map(|past| {
            let totals = self.kept.get(&past.id).map(|kept| kept.totals);
            let mut used = past.used?;
            used.totals = totals.unwrap_or(used.totals);
            Some((past.id, used))
        });
        let held = self.held.iter();
        ended
            .chain(held.map(|(id, held)| (id.clone(), held.shown(now_ms))))
            .collect()
    }

    fn strangers(&self) -> Vec<Stranger> {
        let nobodys = self.held.values().filter(|held| held.owner.is_none());
        let shown = nobodys.map(|held| Stranger {
            id: held.running.id.clone(),
            name: held.running.name.clone(),
            image: held.running.image.clone(),
            started_ms: held.running.started_ms,
        });
        shown.collect()
    }
}

/// Without it block I/O reads 0 on cgroup v1; see [`Hierarchy::count_block_io`].
fn count_block_io(app: &App, hierarchy: &Hierarchy) {
    let root = ParentPath::root(app.instance.clone());
    let disks = Disks::read("/sys".as_ref()).unwrap_or_default();
    if let Err(error) = hierarchy.count_block_io(&root, &disks.physical) {
        tracing::warn!(error = in_full(&error), "block I/O may not be counted");
    }
}

/// Takes back what was done to the host for the counters.
pub fn end(app: &App) {
    let Some(facts) = app.engine_facts.get() else {
        return;
    };
    let root = ParentPath::root(app.instance.clone());
    if let Err(error) = facts.hierarchy.lift_block_rules(&root) {
        tracing::warn!(
            error = in_full(&error),
            "the rules that count block I/O stay"
        );
    }
}

fn settings() -> Settings {
    let descriptors = raise_descriptor_limit(DESCRIPTORS_WANTED).unwrap_or(1024);
    let disks = Disks::read("/sys".as_ref()).unwrap_or_default();
    Settings {
        descriptors_max: usize::try_from(descriptors / 2).unwrap_or(512),
        stacked: disks.stacked,
        ..Settings::default()
    }
}

/// Whether an entity's CPU time comes from a parent cgroup, for this owner's containers.
fn is_parents(owner: Option<Owner>, whose: Whose) -> bool {
    owner.is_some_and(|owner| owner.is_under_parent) && !matches!(whose, Whose::Project(_))
}

/// Whom the CPU time of a parent cgroup counts for.
fn everyone_of((team, user): Parent) -> impl Iterator<Item = Whose> {
    let all = [Whose::System, Whose::User(user)];
    all.into_iter().chain(team.map(Whose::Team))
}

fn container_key(id: &str) -> String {
    format!("container:{id}")
}

fn parent_key((team, user): Parent) -> String {
    match team {
        Some(team) => format!("{team}/{user}"),
        None => format!("/{user}"),
    }
}

fn parse_parent_key(key: &str) -> Option<Parent> {
    let (team, user) = key.split_once('/')?;
    let team = match team {
        "" => None,
        team => Some(team.parse().ok()?),
    };
    Some((team, user.parse().ok()?))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
