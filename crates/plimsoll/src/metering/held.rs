//! One running container as it is metered.

use std::time::Duration;

use plimsoll_core::entity::{ProjectId, TeamId, UserId};
use plimsoll_host::collector::{Rates, Sample, rate};
use plimsoll_host::network::{Namespace, Traffic};
use plimsoll_store::{Counted, UsageTotals};

use super::found::Running;
use crate::meter::{ContainerUse, Flows, Whose};

/// Rates over less than this would be noise: they are taken from the reading before.
const RATE_MIN: Duration = Duration::from_millis(50);

/// Whose a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: UserId,
    /// The team it is charged to.
    pub team: Option<TeamId>,
    /// The project, where one of that name is registered.
    pub project: Option<ProjectId>,
    /// It runs under its owner's cgroup, whose counters have its CPU time.
    pub is_under_parent: bool,
}

/// Whom a container counts for.
pub(super) fn everyone(owner: Option<Owner>) -> impl Iterator<Item = Whose> {
    let whose = match owner {
        None => [Some(Whose::Unmanaged), None, None],
        Some(owner) => [
            Some(Whose::User(owner.user)),
            owner.team.map(Whose::Team),
            owner.project.map(Whose::Project),
        ],
    };
    std::iter::once(Whose::System).chain(whose.into_iter().flatten())
}

/// A container that is watched.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) running: Running,
    pub(super) owner: Option<Owner>,
    /// Its network, where it has one of its own.
    pub(super) namespace: Option<Namespace>,
    /// Its counters as accounted.
    pub(super) counted: Counted,
    pub(super) totals: UsageTotals,
    /// The last reading that rates were taken from.
    before: Option<(Sample, Option<Traffic>)>,
    /// The last reading.
    pub(super) sample: Option<Sample>,
    pub(super) traffic: Option<Traffic>,
    pub(super) connections: Option<u64>,
    rates: Option<(Rates, Flows)>,
    /// Up to when its time is counted, monotonic milliseconds.
    pub(super) spent_ms: u64,
    /// When it ended, monotonic milliseconds.
    pub(super) ended_ms: Option<u64>,
}

impl Held {
    pub(super) fn new(
        running: Running,
        owner: Option<Owner>,
        counted: Counted,
        totals: UsageTotals,
    ) -> Self {
        Self {
            spent_ms: running.from_ms,
            running,
            owner,
            namespace: None,
            counted,
            totals,
            before: None,
            sample: None,
            traffic: None,
            connections: None,
            rates: None,
            ended_ms: None,
        }
    }

    /// Takes a reading in.
    pub(super) fn read(&mut self, sample: Sample, traffic: Option<Traffic>, interval: Duration) {
        self.sample = Some(sample);
        self.traffic = traffic.or(self.traffic);
        let Some((before, traffic_before)) = &self.before else {
            self.before = Some((sample, self.traffic));
            return;
        };
        let rates = rate(before, &sample, interval);
        let Some(rates) = rates.filter(|rates| rates.elapsed >= RATE_MIN) else {
            return;
        };
        let a_second = |before: u64, now: u64| {
            let bytes = now.saturating_sub(before) as f64;
            (bytes / rates.elapsed.as_secs_f64()).round() as u64
        };
        let now = self.traffic.unwrap_or_default();
        let then = traffic_before.unwrap_or(now);
        let flows = Flows {
            received: a_second(then.received_bytes, now.received_bytes),
            sent: a_second(then.sent_bytes, now.sent_bytes),
            block_read: rates.block_read.unwrap_or(0.0).round() as u64,
            block_written: rates.block_written.unwrap_or(0.0).round() as u64,
        };
        self.rates = Some((rates, flows));
        self.before = Some((sample, self.traffic));
    }

    /// Its counters now. What could not be read is as it was.
    pub(super) fn counters(&self) -> Counted {
        let was = self.counted;
        let sample = self.sample.unwrap_or_default();
        Counted {
            started_ms: self.running.started_ms,
            cpu_ns: sample.cpu_ns.unwrap_or(was.cpu_ns),
            received_bytes: self
                .traffic
                .map_or(was.received_bytes, |t| t.received_bytes),
            sent_bytes: self.traffic.map_or(was.sent_bytes, |t| t.sent_bytes),
            block_read_bytes: sample.block_read_bytes.unwrap_or(was.block_read_bytes),
            block_written_bytes: sample
                .block_written_bytes
                .unwrap_or(was.block_written_bytes),
            oom_kills: sample.oom_kills.unwrap_or(was.oom_kills),
        }
    }

    pub(super) fn flows(&self) -> Option<Flows> {
        self.rates.map(|(_, flows)| flows)
    }

    pub(super) fn cpu_milli(&self) -> Option<u64> {
        let cpu = self.rates.and_then(|(rates, _)| rates.cpu_millicores);
        cpu.map(|milli| milli.round() as u64)
    }

    /// As it is shown.
    pub(super) fn shown(&self, now_ms: i64) -> ContainerUse {
        let sample = self.sample.unwrap_or_default();
        let throttled = self.rates.and_then(|(rates, _)| rates.throttled_share);
        ContainerUse {
            cpu_milli: self.cpu_milli(),
            memory_bytes: sample.working_set_bytes(),
            memory_peak_bytes: sample.memory_peak_bytes,
            pids: sample.pids,
            oom_kills: sample.oom_kills,
            throttled_permille: throttled.map(|share| (share * 1000.0).round() as u64),
            flows: self.flows(),
            connections: self.connections,
            totals: self.totals,
            started_ms: self.running.started_ms,
            has_ended: self.ended_ms.is_some(),
            updated_ms: now_ms,
        }
    }
}

/// What was counted between two readings; what went back counts nothing and is told.
pub(super) fn since(before: Counted, now: Counted) -> (Counted, bool) {
    let mut went_back = false;
    let mut delta = |before: u64, now: u64| {
        went_back |= now < before;
        now.saturating_sub(before)
    };
    let counted = Counted {
        started_ms: now.started_ms,
        cpu_ns: delta(before.cpu_ns, now.cpu_ns),
        received_bytes: delta(before.received_bytes, now.received_bytes),
        sent_bytes: delta(before.sent_bytes, now.sent_bytes),
        block_read_bytes: delta(before.block_read_bytes, now.block_read_bytes),
        block_written_bytes: delta(before.block_written_bytes, now.block_written_bytes),
        oom_kills: delta(before.oom_kills, now.oom_kills),
    };
    (counted, went_back)
}

/// Adds what was counted, but for the CPU time, which has more than one source.
pub(super) fn add(totals: &mut UsageTotals, counted: &Counted) {
    totals.received_bytes += counted.received_bytes;
    totals.sent_bytes += counted.sent_bytes;
    totals.block_read_bytes += counted.block_read_bytes;
    totals.block_written_bytes += counted.block_written_bytes;
    totals.oom_kills += counted.oom_kills;
    totals.seen_cpu_ns += counted.cpu_ns;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_went_back_counts_nothing_and_the_others_do() {
        let before = Counted {
            cpu_ns: 100,
            received_bytes: 50,
            ..Counted::default()
        };
        let now = Counted {
            cpu_ns: 130,
            received_bytes: 10,
            sent_bytes: 7,
            ..Counted::default()
        };
        let (delta, went_back) = since(before, now);
        assert_eq!(
            (delta.cpu_ns, delta.received_bytes, delta.sent_bytes),
            (30, 0, 7)
        );
        assert!(went_back);
        assert!(!since(now, now).1);
    }

    #[test]
    fn what_is_nobodys_counts_for_the_system_and_as_unmanaged() {
        let all: Vec<_> = everyone(None).collect();
        assert_eq!(all, [Whose::System, Whose::Unmanaged]);
    }
}
