//! How often everything is read: more often while somebody is near a limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::milliseconds;
use crate::config::Metering;

/// Readings that events ask for are no closer than this.
const SPACING_MAX: Duration = Duration::from_millis(500);

/// When the next reading is due.
#[derive(Debug, Default)]
pub struct Cadence {
    /// Somebody was near a limit not long before, monotonic milliseconds.
    near_until_ms: AtomicU64,
    last_ms: AtomicU64,
}

impl Cadence {
    /// Notes a reading, and whether somebody is near a limit. Calm is only believed after an ordinary
    /// interval of it.
    pub fn note(&self, is_near: bool, now: Duration, metering: &Metering) {
        self.last_ms.store(milliseconds(now), Ordering::Relaxed);
        if is_near {
            let until = now + Duration::from_secs_f64(metering.interval_s);
            self.near_until_ms
                .store(milliseconds(until), Ordering::Relaxed);
        }
    }

    /// From one reading to the next.
    #[must_use]
    pub fn interval(&self, now: Duration, metering: &Metering) -> Duration {
        let is_near = milliseconds(now) < self.near_until_ms.load(Ordering::Relaxed);
        let near_s = metering.near_interval_s.min(metering.interval_s);
        Duration::from_secs_f64(if is_near { near_s } else { metering.interval_s })
    }

    /// How long a reading that an event asks for has to wait.
    #[must_use]
    pub fn wait(&self, now: Duration, metering: &Metering) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        let spacing = self.interval(now, metering).min(SPACING_MAX);
        spacing.saturating_sub(now.saturating_sub(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_closer_near_a_limit_and_until_it_has_been_calm() {
        let metering = Metering {
            interval_s: 10.0,
            near_interval_s: 2.0,
            ..Metering::default()
        };
        let cadence = Cadence::default();
        let second = Duration::from_secs;
        for (now, is_near, next) in [
            (10, false, 10),
            (20, true, 2),
            (22, false, 2),
            (29, false, 2),
            (30, false, 10),
        ] {
            cadence.note(is_near, second(now), &metering);
            assert_eq!(
                cadence.interval(second(now), &metering),
                second(next),
                "at {now} s"
            );
        }
        let quick = Metering {
            interval_s: 0.1,
            ..metering
        };
        cadence.note(true, second(40), &quick);
        let interval = cadence.interval(second(40), &quick);
        assert_eq!(interval, Duration::from_millis(100), "never slower");
    }

    #[test]
    fn events_do_not_make_readings_follow_each_other_at_once() {
        let (cadence, metering) = (Cadence::default(), Metering::default());
        let now = Duration::from_secs(100);
        assert_eq!(cadence.wait(now, &metering), Duration::ZERO);
        cadence.note(false, now, &metering);
        assert_eq!(cadence.wait(now, &metering), SPACING_MAX);
        let later = now + Duration::from_millis(400);
        assert_eq!(cadence.wait(later, &metering), Duration::from_millis(100));
    }
}
