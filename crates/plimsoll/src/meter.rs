//! What containers and the people behind them really use, as last measured.
//!
//! The collector task writes it, everybody else reads it. Nothing here decides anything.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use plimsoll_core::entity::{ProjectId, TeamId, UserId};
use plimsoll_host::load::Pressure;
use plimsoll_store::UsageTotals;
use tokio::sync::watch;

use crate::metering::Irregularities;

/// Whose use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Every container on the host.
    System,
    /// A team's.
    Team(TeamId),
    /// A user's, in teams too.
    User(UserId),
    /// Containers made past Plimsoll, which are nobody's.
    Unmanaged,
    /// A project's, of a team or a user.
    Project(ProjectId),
}

impl Whose {
    /// Key in the metrics store.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::Team(id) => format!("team:{id}"),
            Self::User(id) => format!("user:{id}"),
            Self::Unmanaged => "unmanaged".to_owned(),
            Self::Project(id) => format!("project:{id}"),
        }
    }

    /// The other way.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        match key.split_once(':') {
            None if key == "system" => Some(Self::System),
            None if key == "unmanaged" => Some(Self::Unmanaged),
            Some(("team", id)) => id.parse().ok().map(Self::Team),
            Some(("user", id)) => id.parse().ok().map(Self::User),
            Some(("project", id)) => id.parse().ok().map(Self::Project),
            _ => None,
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
    /// Over the network and to disks, bytes a second.
    pub flows: Flows,
    /// TCP sockets in use, those that listen included.
    pub connections: u64,
    /// Writable layers, logs, volumes and images on disk, bytes; `None` before it was first measured.
    pub storage_bytes: Option<u64>,
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
    /// Received from the network, bytes.
    pub total_received_bytes: u64,
    /// Sent to the network, bytes.
    pub total_sent_bytes: u64,
    /// Read from disks, bytes.
    pub total_block_read_bytes: u64,
    /// Written to disks, bytes.
    pub total_block_written_bytes: u64,
    /// Processes killed for lack of memory.
    pub total_oom_kills: u64,
    /// The part of the CPU time that only the cgroup above the containers saw, nanoseconds: of those
    /// that lived too short to be read to their end.
    pub total_short_lived_cpu_ns: u64,
    /// When it was measured, Unix milliseconds; `None` before the first reading.
    pub updated_ms: Option<i64>,
}

/// What goes over the network and to disks, bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flows {
    /// Received from the network.
    pub received: u64,
    /// Sent to the network.
    pub sent: u64,
    /// Read from disks.
    pub block_read: u64,
    /// Written to disks.
    pub block_written: u64,
}

impl std::ops::AddAssign for Flows {
    fn add_assign(&mut self, more: Self) {
        self.received += more.received;
        self.sent += more.sent;
        self.block_read += more.block_read;
        self.block_written += more.block_written;
    }
}

/// Measured use of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerUse {
    /// CPU over the last interval, millicores; `None` before the second reading.
    pub cpu_milli: Option<u64>,
    /// Working set, bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory it held, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How often the kernel killed in it for memory, since it started.
    pub oom_kills: Option<u64>,
    /// Share of the periods in which its CPU cap held it back, thousandths; `None` without a cap.
    pub throttled_permille: Option<u64>,
    /// Over the network and to disks, bytes a second; `None` before the second reading.
    pub flows: Option<Flows>,
    /// TCP sockets in use, those that listen included; `None` where it has no network of its own.
    pub connections: Option<u64>,
    /// In sum, over all its runs.
    pub totals: UsageTotals,
    /// When it started, Unix milliseconds.
    pub started_ms: i64,
    /// It ended since the reading before; this is its last.
    pub has_ended: bool,
    /// When it was measured, Unix milliseconds.
    pub updated_ms: i64,
}

/// A running container that was made past Plimsoll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// The engine's id.
    pub id: String,
    /// The engine's name for it.
    pub name: String,
    /// The image as it was named at create.
    pub image: String,
    /// When it started, Unix milliseconds.
    pub started_ms: i64,
}

/// What the whole host uses, containers or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostUse {
    /// CPU over the last interval, millicores; `None` before the second reading.
    pub cpu_milli: Option<u64>,
    /// Memory that nobody could have without taking it from somebody, bytes.
    pub memory_bytes: u64,
    /// Processes that want to run, mean of a minute, hundredths.
    pub load_centi: u64,
    /// What waits for processors; `None` where the kernel does not offer it. The next two alike.
    pub cpu_pressure: Option<Pressure>,
    /// What waits for memory.
    pub memory_pressure: Option<Pressure>,
    /// What waits for disks.
    pub block_pressure: Option<Pressure>,
}

/// What a reading cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// How long it took, microseconds.
    pub wall_us: u64,
    /// The processor time it took, microseconds.
    pub cpu_us: u64,
}

/// One reading of everything.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// By entity.
    pub entities: HashMap<Whose, Usage>,
    /// By the engine's container id.
    pub containers: HashMap<String, ContainerUse>,
    /// Running containers that are nobody's.
    pub strangers: Vec<Stranger>,
    /// The whole host; `None` where the kernel does not say.
    pub host: Option<HostUse>,
    /// What it cost.
    pub cost: Cost,
    /// What was not in order since the server started.
    pub irregular: Irregularities,
}

/// What is held on disk, as last measured.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    /// By entity, bytes.
    pub entities: HashMap<Whose, u64>,
    /// By container and volume, as the engine names them, bytes.
    pub objects: HashMap<String, u64>,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct Meter {
    last: RwLock<Arc<Reading>>,
    readings: watch::Sender<u64>,
    storage: RwLock<Option<Storage>>,
}

impl Meter {
    /// Use of an entity; zeros where nothing was ever measured.
    #[must_use]
    pub fn usage(&self, whose: Whose) -> Usage {
        let usage = self.read().entities.get(&whose).copied();
        let storage = self.storage();
        Usage {
            // Whoever is not on the list holds nothing.
            storage_bytes: storage.as_ref().map(|storage| {
                let held = storage.entities.get(&whose);
                held.copied().unwrap_or(0)
            }),
            ..usage.unwrap_or_default()
        }
    }

    /// What a container or volume holds on disk, bytes; `None` before it was first measured.
    #[must_use]
    pub fn storage_of(&self, object: &str) -> Option<u64> {
        self.storage().as_ref()?.objects.get(object).copied()
    }

    /// Use of a container; `None` when it does not run or was not read yet.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<ContainerUse> {
        self.read().containers.get(id).copied()
    }

    /// Running containers that are nobody's, as last read.
    #[must_use]
    pub fn strangers(&self) -> Vec<Stranger> {
        self.read().strangers.clone()
    }

    /// The whole host, as last read.
    #[must_use]
    pub fn host(&self) -> Option<HostUse> {
        self.read().host
    }

    /// What the last reading cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.read().cost
    }

    /// What was not in order since the server started.
    #[must_use]
    pub fn irregular(&self) -> Irregularities {
        self.read().irregular
    }

    /// The last reading, whole.
    #[must_use]
    pub fn last(&self) -> Arc<Reading> {
        Arc::clone(&self.read())
    }

    /// Replaces what is held on disk. Whoever is not on the list any more holds nothing.
    pub fn publish_storage(&self, mut storage: Storage) -> Vec<(Whose, u64)> {
        let mut last = self.storage.write().unwrap_or_else(PoisonError::into_inner);
        for whose in last.iter().flat_map(|last| last.entities.keys()) {
            storage.entities.entry(*whose).or_default();
        }
        let entities = storage.entities.iter();
        let entities = entities.map(|(whose, bytes)| (*whose, *bytes)).collect();
        *last = Some(storage);
        entities
    }

    fn storage(&self) -> std::sync::RwLockReadGuard<'_, Option<Storage>> {
        self.storage.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the last reading. What is held on disk is put to it.
    pub fn publish(&self, mut reading: Reading) {
        if let Some(storage) = self.storage().as_ref() {
            for (whose, bytes) in &storage.entities {
                let usage = reading.entities.entry(*whose).or_default();
                usage.storage_bytes = Some(*bytes);
            }
        }
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reading);
        self.readings.send_modify(|count| *count += 1);
    }

    /// How many readings there were, which tells when there is another.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<u64> {
        self.readings.subscribe()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Arc<Reading>> {
        self.last.read().unwrap_or_else(PoisonError::into_inner)
    }
}
