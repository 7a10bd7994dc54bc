//! The only place that reads the clock and makes ids. Everything else is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

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
