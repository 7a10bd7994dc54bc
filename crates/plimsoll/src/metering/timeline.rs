//! The time between readings, and what is not in order about it.
//!
//! What is counted is spread over monotonic time, which stands still while the host sleeps, as
//! containers do. A time that nobody watched is never filled with guesses.

use std::time::Duration;

/// What a reading may be late by before nothing is said of the time since the last one: three
/// intervals, but never less than this.
const GAP_MIN: Duration = Duration::from_secs(1);
const GAP_INTERVALS: u32 = 3;

/// Differences between clocks below this are the jitter of reading them.
const STEP_MIN: Duration = Duration::from_secs(1);

/// All clocks at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Unix milliseconds.
    pub wall_ms: i64,
    /// Stands still while the host sleeps.
    pub monotonic: Duration,
    /// Goes on while the host sleeps.
    pub boot: Duration,
}

/// The time since the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Up to this reading, monotonic milliseconds.
    pub(super) to_ms: u64,
    /// Nobody watched for too long: counters say what was used, nothing says what was held.
    pub(super) is_gap: bool,
}

/// What was not in order, counted since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Irregularities {
    /// The wall clock was set forward.
    pub clock_forward: u64,
    /// The wall clock was set back.
    pub clock_back: u64,
    /// The host slept.
    pub suspended: u64,
    /// Readings that should have been.
    pub missed_ticks: u64,
    /// Times that nobody watched.
    pub gaps: u64,
    /// Counters that went back.
    pub counter_resets: u64,
}

impl Irregularities {
    /// Each with its name in the API and on `/metrics`.
    #[must_use]
    pub fn named(self) -> [(&'static str, u64); 6] {
        [
            ("clockForward", self.clock_forward),
            ("clockBack", self.clock_back),
            ("suspended", self.suspended),
            ("missedTicks", self.missed_ticks),
            ("gaps", self.gaps),
            ("counterResets", self.counter_resets),
        ]
    }
}

/// Follows the clocks from reading to reading.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    last: Option<Moment>,
    /// What was not in order so far.
    pub(super) irregular: Irregularities,
}

impl Timeline {
    /// A reading now; the next is due after `interval`. `None` for the first.
    pub(super) fn tick(&mut self, now: Moment, interval: Duration) -> Option<Span> {
        let last = self.last.replace(now)?;
        let watched = now.monotonic.saturating_sub(last.monotonic);
        let passed = now.boot.saturating_sub(last.boot);
        self.irregular.suspended += u64::from(passed.saturating_sub(watched) >= STEP_MIN);
        let step = (now.wall_ms - last.wall_ms) - milliseconds(passed).cast_signed();
        let is_step = step.unsigned_abs() >= milliseconds(STEP_MIN);
        self.irregular.clock_forward += u64::from(is_step && step > 0);
        self.irregular.clock_back += u64::from(is_step && step < 0);
        let is_gap = watched > (interval * GAP_INTERVALS).max(GAP_MIN);
        self.irregular.gaps += u64::from(is_gap);
        let due = watched.as_nanos() / interval.as_nanos().max(1);
        self.irregular.missed_ticks += u64::try_from(due.saturating_sub(1)).unwrap_or(u64::MAX);
        Some(Span {
            to_ms: milliseconds(now.monotonic),
            is_gap,
        })
    }
}

/// Whole milliseconds.
#[must_use]
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How much of what follows `reached` is covered by any of the times, milliseconds, and up to where.
pub(super) fn covered_ms(mut reached: u64, times: &mut [(u64, u64)]) -> (u64, u64) {
    times.sort_unstable();
    let mut covered = 0;
    for (from, to) in times {
        let (from, to) = ((*from).max(reached), *to);
        if to > from {
            covered += to - from;
            reached = to;
        }
    }
    (covered, reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(wall_s: i64, monotonic_s: u64, boot_s: u64) -> Moment {
        Moment {
            wall_ms: 1_000_000 + wall_s * 1000,
            monotonic: Duration::from_secs(monotonic_s),
            boot: Duration::from_secs(boot_s),
        }
    }

    #[test]
    fn what_is_not_in_order_is_counted_and_a_gap_is_said_to_be_one() {
        let none = Irregularities::default();
        for (what, second, is_gap, counted) in [
            ("in order", at(10, 10, 10), false, none),
            (
                "the clock forward",
                at(3600, 10, 10),
                false,
                Irregularities {
                    clock_forward: 1,
                    ..none
                },
            ),
            (
                "the clock back",
                at(-3600, 10, 10),
                false,
                Irregularities {
                    clock_back: 1,
                    ..none
                },
            ),
            (
                "the host slept",
                at(500, 10, 500),
                false,
                Irregularities {
                    suspended: 1,
                    ..none
                },
            ),
            (
                "one tick missed",
                at(25, 25, 25),
                false,
                Irregularities {
                    missed_ticks: 1,
                    ..none
                },
            ),
            (
                "a gap",
                at(35, 35, 35),
                true,
                Irregularities {
                    missed_ticks: 2,
                    gaps: 1,
                    ..none
                },
            ),
            (
                "slept, and the clock back",
                at(0, 10, 500),
                false,
                Irregularities {
                    suspended: 1,
                    clock_back: 1,
                    ..none
                },
            ),
        ] {
            let mut timeline = Timeline::default();
            assert_eq!(timeline.tick(at(0, 0, 0), INTERVAL), None, "{what}");
            let span = timeline.tick(second, INTERVAL).unwrap();
            assert_eq!(span.is_gap, is_gap, "{what}");
            assert_eq!(span.to_ms, milliseconds(second.monotonic), "{what}");
            assert_eq!(timeline.irregular, counted, "{what}");
        }
    }

    #[test]
    fn times_that_overlap_count_once_and_nothing_before_what_was_reached() {
        for (times, covered) in [
            (&mut [][..], (0, 100)),
            (&mut [(0, 500)], (400, 500)),
            (&mut [(0, 120), (110, 130), (190, 200)], (40, 200)),
            (&mut [(150, 160), (140, 190)], (50, 190)),
            (&mut [(0, 50), (170, 160)], (0, 100)),
        ] {
            assert_eq!(covered_ms(100, times), covered, "{times:?}");
        }
    }
}
