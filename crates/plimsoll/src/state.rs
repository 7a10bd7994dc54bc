//! What every part of a running server shares.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use plimsoll_core::entity::{DecisionId, ReservationId};
use plimsoll_core::quota::Capacity;
use plimsoll_host::cgroup::{Hierarchy, Instance};
use plimsoll_host::engine::{Engine, EngineVersion, UsageData};
use plimsoll_store::history::History;
use plimsoll_store::{Actor, Claim, Deed, HostLease, NewReservation, ObjectKind, Origin, Store};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::clock::{Clock, new_id};
use crate::config::Config;
use crate::labels;
use crate::limits::Limits;
use crate::live::Pictures;
use crate::meter::Meter;
use crate::metering::{Cadence, SharedCollecting};
use crate::tasks::TaskBoard;

/// A running server. Handed around as `Arc<App>`.
#[derive(Debug)]
pub struct App {
    /// As configured.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The ledger.
    pub store: Store,
    /// What was measured, over time.
    pub history: Arc<History>,
    /// The container engine.
    pub engine: Engine,
    /// Known once the engine has answered for the first time.
    pub engine_facts: OnceLock<EngineFacts>,
    /// This process's right to write its host's rows.
    pub lease: HostLease,
    /// What this host has.
    pub capacity: Capacity,
    /// Scopes labels and cgroups, so that several servers share one engine unseen by each other.
    pub instance: Instance,
    /// Tells this run of the server from the others.
    pub run: uuid::Uuid,
    /// What containers really use.
    pub meter: Meter,
    /// The last reading beside what is reserved.
    pub pictures: Pictures,
    /// What measures it; set when the tasks start.
    pub collecting: OnceLock<SharedCollecting>,
    /// How often it does.
    pub cadence: Cadence,
    /// One lock a container: whoever looks whether it runs holds it.
    pub looks: KeyedLocks,
    /// What the background tasks last did.
    pub tasks: TaskBoard,
    /// Wakes a background task before its timer does.
    pub wake: Wake,
    /// One lock a container: whoever changes or settles it holds it.
    pub container_locks: KeyedLocks,
    /// By container: who reaches into its files has it alone, what could set it in motion shares it. By
    /// user: the same for what starts any container of theirs. Taken before the container's lock.
    pub standstill: SharedLocks,
    /// Containers that somebody is attached to, or in an exec of, share theirs.
    pub attended: SharedLocks,
    /// Containers that do nothing.
    pub idlers: crate::idle::Idlers,
    /// One pass of the ladder at a time.
    pub climbing: tokio::sync::Mutex<()>,
    /// What each caller holds of this server.
    pub limits: Limits,
    /// Told whenever certificates may count no more; their open connections then look again.
    pub certs_changed: tokio::sync::watch::Sender<()>,
    /// What the layers of images take.
    pub layers: crate::images::Layers,
    /// What the volumes of the engine took when it last walked them.
    pub walked: tokio::sync::Mutex<Walked>,
    /// Reservations of requests that are being forwarded right now; they never expire meanwhile.
    pub in_flight: InFlight,
}

/// One bell a task.
#[derive(Debug, Default)]
pub struct Wake {
    /// Compare the ledger with the engine.
    pub reconcile: tokio::sync::Notify,
    /// Limits changed: write the kernel caps anew.
    pub caps: tokio::sync::Notify,
    /// Containers came or went: read their counters.
    pub collect: tokio::sync::Notify,
    /// Measure what is held on disk.
    pub storage: tokio::sync::Notify,
    /// Forget what is old.
    pub retain: tokio::sync::Notify,
    /// Begin and end what has its time.
    pub turns: tokio::sync::Notify,
    /// Look what exceeded limits call for.
    pub ladder: tokio::sync::Notify,
    /// Everything was read: add it to the history.
    pub history: tokio::sync::Notify,
    /// The history has more: send it on.
    pub remote: tokio::sync::Notify,
    /// Somebody is to be told at once.
    pub deliver: tokio::sync::Notify,
    /// Rules or silences changed.
    pub alerts: tokio::sync::Notify,
    /// What fires has changed.
    pub alertmanager: tokio::sync::Notify,
}

impl App {
    /// How long a reservation of the gateway's is kept without a commit, milliseconds.
    #[must_use]
    pub fn gateway_ttl_ms(&self) -> i64 {
        i64::try_from(self.config.reservations.gateway_ttl_s * 1000).unwrap_or(i64::MAX / 2)
    }

    /// What is on the engine for this instance, as a filter by label.
    #[must_use]
    pub fn instance_label(&self) -> String {
        format!("{}={}", labels::INSTANCE, self.instance.as_str())
    }

    /// Plimsoll itself, doing something now.
    #[must_use]
    pub fn itself(&self, reason: Option<&str>) -> Actor {
        Actor {
            name: "system".to_owned(),
            at_ms: self.clock.now_ms(),
            reason: reason.map(str::to_owned),
        }
    }

    /// A claim for something the gateway is about to make, nameless and alone.
    #[must_use]
    pub fn new_reservation(
        &self,
        id: ReservationId,
        kind: ObjectKind,
        claim: Claim,
    ) -> NewReservation {
        let now_ms = self.clock.now_ms();
        NewReservation {
            id,
            kind,
            decision: DecisionId(new_id()),
            claim,
            origin: Origin::Gateway,
            idempotency: None,
            container_name: None,
            image: None,
            goes_with: None,
            host_mounts: Vec::new(),
            replaces: None,
            expires_ms: now_ms + self.gateway_ttl_ms(),
            now_ms,
        }
    }

    /// A step on a reservation, taken now.
    #[must_use]
    pub fn deed(&self) -> Deed {
        Deed {
            decision: DecisionId(new_id()),
            now_ms: self.clock.now_ms(),
        }
    }
}

/// What the engine said about itself and its host.
#[derive(Debug)]
pub struct EngineFacts {
    /// Versions.
    pub version: EngineVersion,
    /// Where its cgroups are and how to cap them.
    pub hierarchy: Hierarchy,
    /// Its storage driver can bound a container's writable layer (`--storage-opt size=`).
    pub bounds_storage: bool,
}

/// What the volumes of the engine took.
#[derive(Debug, Default)]
pub struct Walked {
    /// By name.
    pub volumes: HashMap<String, UsageData>,
    /// On the monotonic clock, when this is old.
    pub until: Duration,
}

/// Locks by name, made when first taken and dropped when nobody holds or waits for them.
#[derive(Debug, Default)]
pub struct Keyed<L> {
    locks: Mutex<HashMap<String, Arc<L>>>,
}

/// Locks that one holds at a time.
pub type KeyedLocks = Keyed<tokio::sync::Mutex<()>>;

/// Locks that one holds alone, or many share.
pub type SharedLocks = Keyed<RwLock<()>>;

impl<L: Default> Keyed<L> {
    fn of(&self, key: &str) -> Arc<L> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() > 4096 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(key.to_owned()).or_default())
    }
}

impl KeyedLocks {
    /// Waits for the lock of `key`.
    pub async fn lock(&self, key: &str) -> tokio::sync::OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    /// The lock of `key`, if nobody holds it.
    #[must_use]
    pub fn try_lock(&self, key: &str) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        self.of(key).try_lock_owned().ok()
    }
}

impl SharedLocks {
    /// Waits until nobody holds `key` alone.
    pub async fn share(&self, key: &str) -> OwnedRwLockReadGuard<()> {
        self.of(key).read_owned().await
    }

    /// Waits until nobody holds `key` at all.
    pub async fn alone(&self, key: &str) -> OwnedRwLockWriteGuard<()> {
        self.of(key).write_owned().await
    }

    /// Whether nobody holds `key`.
    #[must_use]
    pub fn is_free(&self, key: &str) -> bool {
        self.of(key).try_write_owned().is_ok()
    }

    /// Waits until each lock was free once.
    pub async fn idle(&self) {
        let all: Vec<_> = {
            let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.values().map(Arc::clone).collect()
        };
        for lock in all {
            drop(lock.write_owned().await);
        }
    }
}

/// The reservations whose engine call is under way.
#[derive(Debug, Clone, Default)]
pub struct InFlight {
    ids: Arc<Mutex<HashSet<ReservationId>>>,
}

impl InFlight {
    /// Marks `id` until the guard is dropped.
    #[must_use]
    pub fn enter(&self, id: ReservationId) -> InFlightGuard {
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        InFlightGuard {
            all: self.clone(),
            id,
        }
    }

    /// Whether the engine call of `id` is under way.
    #[must_use]
    pub fn contains(&self, id: ReservationId) -> bool {
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&id)
    }
}

/// See [`InFlight::enter`].
#[derive(Debug)]
pub struct InFlightGuard {
    all: InFlight,
    id: ReservationId,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.all
            .ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
