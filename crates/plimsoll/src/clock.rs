//! The only place that reads the clock and makes ids. Everything else is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use uuid::Uuid;

use crate::metering::{Moment, milliseconds};

/// Unix milliseconds as RFC 3339; `None` beyond the calendar.
#[must_use]
pub fn rfc3339(ms: i64) -> Option<String> {
    Timestamp::from_millisecond(ms).ok().map(|t| t.to_string())
}

/// Unix milliseconds for people: RFC 3339, whole seconds.
#[must_use]
pub fn in_seconds(ms: i64) -> String {
    rfc3339(ms / 1000 * 1000).unwrap_or_else(|| ms.to_string())
}

/// Wall-clock and monotonic time. Tests move it forward with [`Clock::advance`].
#[derive(Debug, Clone)]
pub struct Clock {
    started: Instant,
    /// Milliseconds the tests have moved both times forward.
    moved_ms: Arc<AtomicI64>,
}

impl Default for Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge where the clock is read"
    )]
    fn default() -> Self {
        Self {
            started: Instant::now(),
            moved_ms: Arc::default(),
        }
    }
}

impl Clock {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge where the clock is read"
    )]
    pub fn now_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let real = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        real.saturating_add(self.moved_ms.load(Ordering::Relaxed))
    }

    /// Time since the process started, never going back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        let moved = u64::try_from(self.moved_ms.load(Ordering::Relaxed)).unwrap_or(0);
        self.started.elapsed() + Duration::from_millis(moved)
    }

    /// The monotonic millisecond of a moment of the past; now for one that is yet to come.
    #[must_use]
    pub fn monotonic_ms_of(&self, wall_ms: i64) -> u64 {
        let ago = u64::try_from(self.now_ms().saturating_sub(wall_ms)).unwrap_or(0);
        milliseconds(self.monotonic()).saturating_sub(ago)
    }

    /// All clocks at this moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let moved = u64::try_from(self.moved_ms.load(Ordering::Relaxed)).unwrap_or(0);
        Moment {
            wall_ms: self.now_ms(),
            monotonic: self.monotonic(),
            boot: Duration::new(seconds, u32::try_from(boot.tv_nsec).unwrap_or(0))
                + Duration::from_millis(moved),
        }
    }

    /// Processor time that this thread has used.
    #[must_use]
    pub fn thread_cpu(&self) -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or(0))
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.moved_ms.fetch_add(by, Ordering::Relaxed);
    }
}

/// A new id. Ids made later sort later.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
