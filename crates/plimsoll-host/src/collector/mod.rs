//! Reads the counters of many cgroups, cheaply and again and again.
//!
//! Descriptors are kept open and read with `pread` into one buffer, by one thread: measured,
//! opening each file every time costs three times as much, and threads and io_uring made it worse.
//! A cgroup whose CPU counter has not moved has done nothing, so only that counter is read; the
//! others are read when it moved, and every [`Settings::detail_every`] cycles because memory
//! changes from outside too (reclaim, other cgroups' shared pages). Those turns are spread over the
//! cycles.
//!
//! A kept descriptor holds a page of kernel memory (its text buffer), so 1 000 containers cost
//! about 32 MB at most; [`Settings::descriptors_max`] bounds it. Beyond the bound, cgroups that are
//! idle are read by open, read and close, and lend their descriptors to busy ones.
//!
//! This module must not read the clock, keep history or decide what a number means: it yields
//! [`Sample`]s, and [`rate`] is a pure function of two of them.

mod disks;
mod rates;
mod reader;
mod sample;

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use disks::Disks;
pub use rates::{Rates, rate};
pub use sample::{Sample, Throttling};

use crate::cgroup::CgroupDirs;
use reader::{Files, Outcome, Reader};

/// How a [`Collector`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// An idle cgroup is read in full every this many cycles; at least 1, which reads all always.
    pub detail_every: u32,
    /// How many descriptors may be kept open. Leave room for everything else in the process; see
    /// [`raise_descriptor_limit`].
    pub descriptors_max: usize,
    /// Disks whose bytes are counted on the disks below them, too: [`Disks::stacked`].
    pub stacked: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            detail_every: 10,
            descriptors_max: 8_000,
            stacked: Vec::new(),
        }
    }
}

/// What one cycle came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle<K> {
    /// Cgroups read in full.
    pub detailed: usize,
    /// Cgroups of which only the CPU counter was read, because it had not moved.
    pub idle: usize,
    /// Cgroups that no longer exist, with the last that was read of them. They are not watched any
    /// more. What they used after that last reading is in their parent's counters.
    pub gone: Vec<(K, Sample)>,
    /// Files that had to be opened.
    pub opened: usize,
    /// Files that could not be read for a reason other than their being absent. Their values are
    /// `None`.
    pub failed: usize,
}

/// Reads the counters of the cgroups it watches. `K` is whatever the caller knows them by.
#[derive(Debug)]
pub struct Collector<K> {
    settings: Settings,
    entries: Vec<Entry<K>>,
    index: HashMap<K, usize>,
    reader: Reader,
    cycle: u64,
    /// Spreads full readings of idle cgroups over the cycles.
    next_turn: u64,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    files: Files,
    sample: Sample,
    turn: u64,
    /// Has been read in full at least once.
    primed: bool,
    /// The last cycle read only the CPU counter.
    idle: bool,
}

impl<K: Eq + Hash + Clone> Collector<K> {
    /// A collector that watches nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            reader: Reader::new(&settings),
            settings,
            entries: Vec::new(),
            index: HashMap::new(),
            cycle: 0,
            next_turn: 0,
        }
    }

    /// Watches a cgroup from the next cycle on, in place of what `key` stood for before. It may be
    /// a container's or a parent's. Nothing is opened yet; one that does not exist by then is
    /// reported gone.
    pub fn watch(&mut self, key: K, dirs: CgroupDirs) {
        self.unwatch(&key);
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push(Entry {
            key,
            files: Files::new(dirs),
            sample: Sample::default(),
            turn: self.next_turn,
            primed: false,
            idle: false,
        });
        self.next_turn += 1;
    }

    /// Stops watching; returns what was last read, or `None` when `key` was not watched or never
    /// read.
    pub fn unwatch(&mut self, key: &K) -> Option<Sample> {
        let at = *self.index.get(key)?;
        let entry = self.remove(at);
        entry.primed.then_some(entry.sample)
    }

    /// Whether the cgroup of `key` is watched.
    #[must_use]
    pub fn is_watched(&self, key: &K) -> bool {
        self.index.contains_key(key)
    }

    /// How many cgroups are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many descriptors are open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.reader.open
    }

    /// Reads every watched cgroup once and hands each sample to `sink`, stamped `now` (monotonic,
    /// from any fixed origin).
    pub fn cycle(&mut self, now: Duration, sink: impl FnMut(&K, &Sample)) -> Cycle<K> {
        self.cycle_with(|| now, sink)
    }

    /// As [`Collector::cycle`], with each sample stamped by `clock` when its own reading begins.
    /// With thousands of cgroups a cycle takes long enough to matter for rates over short
    /// intervals.
    pub fn cycle_with(
        &mut self,
        mut clock: impl FnMut() -> Duration,
        mut sink: impl FnMut(&K, &Sample),
    ) -> Cycle<K> {
        let mut report = Cycle {
            detailed: 0,
            idle: 0,
            gone: Vec::new(),
            opened: 0,
            failed: 0,
        };
        self.reader.begin();
        let every = u64::from(self.settings.detail_every.max(1));
        let mut at = 0;
        while let Some(entry) = self.entries.get_mut(at) {
            let is_turn = (self.cycle + entry.turn).is_multiple_of(every);
            let mut sample = Sample {
                at: clock(),
                ..entry.sample
            };
            match entry.read(&mut self.reader, &mut sample, is_turn) {
                Outcome::Gone => {
                    let entry = self.remove(at);
                    report.gone.push((entry.key, entry.sample));
                    // Another entry has taken its place.
                    continue;
                }
                Outcome::Done => {}
            }
            entry.sample = sample;
            if entry.idle {
                report.idle += 1;
            } else {
                report.detailed += 1;
            }
            sink(&entry.key, &entry.sample);
            at += 1;
        }
        self.cycle += 1;
        self.lend_descriptors();
        report.opened = self.reader.opened;
        report.failed = self.reader.failed;
        report
    }

    /// Reads one watched cgroup at once, in full, and keeps its descriptors. `None` when it is not
    /// watched or gone; the next cycle says so. What was gone before the rest could be read is as it
    /// was read last.
    pub fn read_now(&mut self, key: &K, now: Duration) -> Option<Sample> {
        let entry = self.entries.get_mut(*self.index.get(key)?)?;
        let mut sample = Sample {
            at: now,
            is_carried: false,
            ..entry.sample
        };
        if entry.files.read_cpu(&mut self.reader, &mut sample) == Outcome::Gone {
            return None;
        }
        let _ = entry
            .files
            .read_detail(&mut self.reader, &mut sample, false);
        (entry.sample, entry.primed) = (sample, true);
        Some(sample)
    }

    fn remove(&mut self, at: usize) -> Entry<K> {
        let mut entry = self.entries.swap_remove(at);
        entry.files.close(&mut self.reader);
        self.index.remove(&entry.key);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.key.clone(), at);
        }
        entry
    }

    /// Where files had to be opened for one reading that the next cycle will want again, closes as
    /// many that it will not: those of idle cgroups, but for their CPU counters.
    fn lend_descriptors(&mut self) {
        let mut wanted = self.reader.starved;
        for entry in &mut self.entries {
            if wanted == 0 {
                break;
            }
            if entry.idle {
                wanted = wanted.saturating_sub(entry.files.close_detail(&mut self.reader));
            }
        }
    }
}

impl<K> Entry<K> {
    fn read(&mut self, reader: &mut Reader, sample: &mut Sample, is_turn: bool) -> Outcome {
        let before = self.sample.cpu_ns;
        if self.files.read_cpu(reader, sample) == Outcome::Gone {
            return Outcome::Gone;
        }
        // Without a CPU counter nothing tells whether it is idle.
        let is_idle = self.primed && sample.cpu_ns.is_some() && sample.cpu_ns == before;
        self.idle = is_idle && !is_turn;
        sample.is_carried = self.idle;
        if self.idle {
            return Outcome::Done;
        }
        self.primed = true;
        self.files.read_detail(reader, sample, is_idle)
    }
}

/// Raises this process's limit on open files to `wanted`, or as far as it may, and returns the
/// limit that now holds. Never lowers it. A privileged process may pass its hard limit, up to the
/// kernel's `fs.nr_open`.
///
/// # Errors
/// The kernel's error when it refuses although the hard limit allows it.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(current) = current.filter(|&current| current < wanted) else {
        return Ok(current.unwrap_or(u64::MAX));
    };
    if let Some(hard) = maximum.filter(|&hard| hard < wanted) {
        let beyond = Rlimit {
            current: Some(wanted),
            maximum: Some(wanted),
        };
        if setrlimit(Resource::Nofile, beyond).is_ok() {
            return Ok(wanted);
        }
        if hard <= current {
            return Ok(current);
        }
    }
    let reachable = maximum.map_or(wanted, |hard| wanted.min(hard));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(reachable),
            maximum,
        },
    )?;
    Ok(reachable)
}

#[cfg(test)]
mod tests;
