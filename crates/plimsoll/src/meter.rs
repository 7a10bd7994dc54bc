//! What containers and the people behind them really use, as last measured.
//!
//! The collector task writes it, everybody else reads it. Nothing here decides anything.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use plimsoll_core::entity::{TeamId, UserId};

/// Whose use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Every container on the host.
    System,
    /// A team's.
    Team(TeamId),
    /// A user's, in teams too.
    User(UserId),
}

impl Whose {
    /// Key in the metrics store.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::Team(id) => format!("team:{id}"),
            Self::User(id) => format!("user:{id}"),
        }
    }
}

/// Measured use of an entity: now, at its 24-hour peak, and in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU over the last interval, millicores.
    pub cpu_milli: u64,
    /// Working set, bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Running containers.
    pub containers: u64,
    /// Peak of the last 24 h, millicores.
    pub peak_cpu_milli: u64,
    /// Peak of the last 24 h, bytes.
    pub peak_memory_bytes: u64,
    /// Peak of the last 24 h.
    pub peak_containers: u64,
    /// Time in which at least one container ran, milliseconds.
    pub total_runtime_ms: u64,
    /// CPU time, nanoseconds.
    pub total_cpu_ns: u64,
    /// Working set over time, byte-milliseconds.
    pub total_memory_byte_ms: u128,
    /// When it was measured, Unix milliseconds; `None` before the first reading.
    pub updated_ms: Option<i64>,
}

/// Measured use of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ContainerUse {
    /// CPU over the last interval, millicores; `None` before the second reading.
    pub cpu_milli: Option<u64>,
    /// Working set, bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory it held, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How often the kernel killed in it for memory.
    pub oom_kills: Option<u64>,
    /// When it was measured, Unix milliseconds.
    pub updated_ms: i64,
}

/// One reading of everything.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// By entity.
    pub entities: HashMap<Whose, Usage>,
    /// By the engine's container id.
    pub containers: HashMap<String, ContainerUse>,
    /// How long the reading took, microseconds.
    pub cycle_us: u64,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct Meter {
    last: RwLock<Reading>,
}

impl Meter {
    /// Use of an entity; zeros where nothing was ever measured.
    #[must_use]
    pub fn usage(&self, whose: Whose) -> Usage {
        self.read()
            .entities
            .get(&whose)
            .copied()
            .unwrap_or_default()
    }

    /// Use of a container; `None` when it does not run or was not read yet.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<ContainerUse> {
        self.read().containers.get(id).copied()
    }

    /// How long the last reading took, microseconds.
    #[must_use]
    pub fn cycle_us(&self) -> u64 {
        self.read().cycle_us
    }

    /// The last reading, whole.
    #[must_use]
    pub fn last(&self) -> Reading {
        self.read().clone()
    }

    /// Replaces the last reading.
    pub fn publish(&self, reading: Reading) {
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Reading> {
        self.last.read().unwrap_or_else(PoisonError::into_inner)
    }
}
