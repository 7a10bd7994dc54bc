//! What happened between two samples.

use std::time::Duration;

use super::Sample;

/// Intervals without a sample beyond which a rate is marked as spanning a gap.
const GAP_INTERVALS: u32 = 3;

/// What happened between two samples of one cgroup. `None` where a counter is absent in either, or
/// went backwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Between the samples.
    pub elapsed: Duration,
    /// Mean CPU use in thousandths of a core.
    pub cpu_millicores: Option<f64>,
    /// Share of the periods in which the CPU cap held it back, 0 to 1; `None` when it did not run
    /// under a cap.
    pub throttled_share: Option<f64>,
    /// Processes killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// Times memory use met the cap.
    pub memory_limit_hits: Option<u64>,
    /// Read from disks, bytes a second.
    pub block_read: Option<f64>,
    /// Written to disks, bytes a second.
    pub block_written: Option<f64>,
    /// A counter went backwards: it is another cgroup of the same name. Nothing is interpolated.
    pub reset: bool,
    /// The samples are more than three intervals apart: the rates are means over a time that nobody
    /// watched.
    pub gap: bool,
}

/// The rates from `previous` to `next`, taken every `interval`. `None` when no time passed between
/// them or they are in the wrong order.
#[must_use]
pub fn rate(previous: &Sample, next: &Sample, interval: Duration) -> Option<Rates> {
    let elapsed = next
        .at
        .checked_sub(previous.at)
        .filter(|elapsed| !elapsed.is_zero())?;
    let mut reset = false;
    let mut delta = |previous: Option<u64>, next: Option<u64>| {
        let (previous, next) = (previous?, next?);
        let delta = next.checked_sub(previous);
        reset |= delta.is_none();
        delta
    };
    let cpu_ns = delta(previous.cpu_ns, next.cpu_ns);
    let periods = delta(
        previous.throttling.map(|throttling| throttling.periods),
        next.throttling.map(|throttling| throttling.periods),
    );
    let throttled = delta(
        previous
            .throttling
            .map(|throttling| throttling.throttled_periods),
        next.throttling
            .map(|throttling| throttling.throttled_periods),
    );
    let oom_kills = delta(previous.oom_kills, next.oom_kills);
    let mut a_second = |previous, next| {
        let bytes = delta(previous, next)?;
        Some(bytes as f64 / elapsed.as_secs_f64())
    };
    let block_read = a_second(previous.block_read_bytes, next.block_read_bytes);
    let block_written = a_second(previous.block_written_bytes, next.block_written_bytes);
    let memory_limit_hits = delta(previous.memory_limit_hits, next.memory_limit_hits);
    Some(Rates {
        elapsed,
        cpu_millicores: cpu_ns.map(|ns| ns as f64 * 1000.0 / elapsed.as_nanos() as f64),
        throttled_share: match (throttled, periods) {
            (Some(throttled), Some(periods)) if periods > 0 => {
                // Both are read from one text, but the kernel updates them one after the other.
                Some((throttled as f64 / periods as f64).min(1.0))
            }
            _ => None,
        },
        oom_kills,
        memory_limit_hits,
        block_read,
        block_written,
        reset,
        gap: elapsed > interval.saturating_mul(GAP_INTERVALS),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Throttling;
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn sample(at_ms: u64, cpu_ns: u64) -> Sample {
        Sample {
            at: Duration::from_millis(at_ms),
            cpu_ns: Some(cpu_ns),
            ..Sample::default()
        }
    }

    #[test]
    fn cpu_is_time_used_over_time_passed() {
        let rates = rate(&sample(1_000, 500), &sample(3_000, 3_000_000_500), INTERVAL).unwrap();
        assert_eq!(rates.cpu_millicores, Some(1500.0));
        assert_eq!(rates.elapsed, INTERVAL);
        assert!(!rates.reset && !rates.gap);
        assert_eq!(rates.throttled_share, None, "absent counters have no rate");
    }

    #[test]
    fn bytes_are_a_second() {
        let with = |at_ms, bytes| Sample {
            block_read_bytes: Some(bytes),
            block_written_bytes: Some(10),
            ..sample(at_ms, 0)
        };
        let rates = rate(&with(0, 500), &with(2_000, 900), INTERVAL).unwrap();
        assert_eq!(
            (rates.block_read, rates.block_written),
            (Some(200.0), Some(0.0))
        );
    }

    #[test]
    fn no_time_has_no_rate() {
        assert_eq!(rate(&sample(5, 1), &sample(5, 2), INTERVAL), None);
        assert_eq!(rate(&sample(6, 1), &sample(5, 2), INTERVAL), None);
    }

    #[test]
    fn a_counter_that_went_back_is_marked_and_the_others_still_count() {
        let previous = Sample {
            oom_kills: Some(1),
            ..sample(0, 900)
        };
        let next = Sample {
            oom_kills: Some(3),
            ..sample(2_000, 100)
        };
        let rates = rate(&previous, &next, INTERVAL).unwrap();
        assert!(rates.reset);
        assert_eq!(rates.cpu_millicores, None);
        assert_eq!(rates.oom_kills, Some(2));
    }

    #[test]
    fn more_than_three_intervals_are_a_gap() {
        for (elapsed_ms, gap) in [(2_000, false), (6_000, false), (6_001, true)] {
            let rates = rate(&sample(0, 0), &sample(elapsed_ms, 1), INTERVAL).unwrap();
            assert_eq!(rates.gap, gap, "{elapsed_ms} ms");
        }
    }

    #[test]
    fn throttling_is_a_share_of_the_periods_that_ran() {
        let with = |at_ms, periods, throttled_periods| Sample {
            throttling: Some(Throttling {
                periods,
                throttled_periods,
                throttled_ns: 0,
            }),
            ..sample(at_ms, 0)
        };
        for (periods, throttled, share) in [(20, 5, Some(0.25)), (0, 0, None), (10, 11, Some(1.0))]
        {
            let next = with(2_000, 100 + periods, 7 + throttled);
            let rates = rate(&with(0, 100, 7), &next, INTERVAL).unwrap();
            assert_eq!(rates.throttled_share, share, "{throttled} of {periods}");
        }
    }
}
