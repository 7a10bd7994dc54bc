//! A ledger in a directory of its own, with a clock and ids that only tests move.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use plimsoll_core::entity::{DecisionId, ReservationId, TeamId, UserId};
use plimsoll_core::quota::Capacity;
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_core::{Amounts, Dimension, Limit};
use plimsoll_store::{
    Actor, Admission, Claim, Deed, HostLease, Idempotency, NewMember, NewReservation, NewUser,
    Origin, Quota, QuotaChange, Role, Store, StoreError, TeamChoice,
};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const HOST: &str = "host-1";

/// The host has 10 cores and 64 GiB; most tests count in millicores.
pub(crate) const CAPACITY: Capacity = Capacity {
    cpu: MilliCpu(10_000),
    memory: Bytes(64 << 30),
};

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) lease: HostLease,
    pub(crate) dir: TempDir,
    now_ms: AtomicI64,
    next: AtomicU64,
}

pub(crate) fn cpu(milli: u64) -> Amounts {
    Amounts::ZERO.with(Dimension::Cpu, milli)
}

/// A claim of a container: `milli` CPU while it runs, one GiB of storage until it is removed.
pub(crate) fn container(milli: u64) -> Amounts {
    cpu(milli)
        .with(Dimension::Storage, 1 << 30)
        .with(Dimension::Containers, 1)
        .with(Dimension::ConcurrentContainers, 1)
}

pub(crate) fn at_most(d: Dimension, most: u64) -> QuotaChange {
    QuotaChange {
        limits: vec![(d, Limit::AtMost(most))],
        ..QuotaChange::default()
    }
}

/// The engine's id of container number `n`.
pub(crate) fn engine_id(n: u64) -> String {
    format!("{n:064x}")
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::over(TempDir::new().expect("a directory")).await
    }

    pub(crate) async fn over(dir: TempDir) -> Self {
        let store = Store::open(dir.path(), 0).expect("the ledger opens");
        let lease = store
            .claim_host(HOST.into(), CAPACITY, 0)
            .await
            .expect("the host is free");
        Self {
            store,
            lease,
            dir,
            now_ms: AtomicI64::new(1_000_000),
            next: AtomicU64::new(1),
        }
    }

    /// Stops the server and starts another one on the same directory.
    pub(crate) async fn restarted(self) -> Self {
        let Self {
            store,
            dir,
            now_ms,
            next,
            ..
        } = self;
        drop(store);
        Self {
            now_ms,
            next,
            ..Self::over(dir).await
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn now(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn id(&self) -> Uuid {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        Uuid::from_u128((7 << 76) | (2 << 62) | u128::from(n))
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor {
            name: "test".into(),
            at_ms: self.now(),
            reason: Some("because".into()),
        }
    }

    pub(crate) fn deed(&self) -> Deed {
        Deed {
            decision: DecisionId(self.id()),
            now_ms: self.now(),
        }
    }

    pub(crate) fn new_user(&self, name: &str) -> NewUser {
        NewUser {
            id: UserId(self.id()),
            name: name.parse().expect("a name"),
            email: None,
            os_uid: None,
            role: Role::Member,
            class: None,
        }
    }

    pub(crate) async fn user(&self, name: &str) -> UserId {
        let added = self.store.add_user(self.new_user(name), self.actor()).await;
        added.expect("the user is new").id
    }

    pub(crate) async fn team(&self, name: &str) -> TeamId {
        let id = TeamId(self.id());
        let name = name.parse().expect("a name");
        let added = self.store.add_team(id, name, None, self.actor()).await;
        added.expect("the team is new").id
    }

    pub(crate) fn place(&self, team: TeamId, user: UserId, milli: u64) -> NewMember {
        NewMember {
            team,
            user,
            role: None,
            allotment: Some(vec![
                (Dimension::Cpu, milli),
                (Dimension::Storage, 10 << 30),
                (Dimension::Containers, 10),
                (Dimension::ConcurrentContainers, 10),
            ]),
            borrow: None,
            default: None,
            from_pool: false,
        }
    }

    /// Makes `user` a member with `milli` CPU and room for ten containers of their own.
    pub(crate) async fn join(&self, team: TeamId, user: UserId, milli: u64) {
        let put = self
            .store
            .put_member(self.place(team, user, milli), self.actor());
        put.await.expect("a member");
    }

    pub(crate) async fn set(&self, entity: Uuid, d: Dimension, most: u64) -> Quota {
        let changed = self
            .store
            .change_quota(entity, at_most(d, most), self.actor());
        changed.await.expect("a quota")
    }

    pub(crate) fn claim(&self, user: UserId, amounts: Amounts) -> Claim {
        Claim {
            user,
            team: TeamChoice::Default,
            project: None,
            host: HOST.into(),
            amounts,
        }
    }

    pub(crate) fn request(&self, claim: Claim) -> NewReservation {
        NewReservation {
            id: ReservationId(self.id()),
            kind: plimsoll_store::ObjectKind::Container,
            goes_with: None,
            host_mounts: Vec::new(),
            replaces: None,
            decision: DecisionId(self.id()),
            claim,
            origin: Origin::Gateway,
            idempotency: None,
            container_name: None,
            image: Some("busybox".into()),
            expires_ms: self.now() + 60_000,
            now_ms: self.now(),
        }
    }

    pub(crate) async fn reserve(&self, user: UserId, amounts: Amounts) -> Admission {
        let request = self.request(self.claim(user, amounts));
        self.store.reserve(request).await.expect("an answer")
    }

    /// Reserves and commits a container; it must fit.
    pub(crate) async fn run(&self, user: UserId, amounts: Amounts) -> ReservationId {
        let admission = self.reserve(user, amounts).await;
        let id = admission.reservation.expect("it fits").id;
        let container = self.container_of(id);
        self.store
            .commit(id, container, self.deed())
            .await
            .expect("a commit");
        id
    }

    pub(crate) fn container_of(&self, id: ReservationId) -> String {
        format!("{:064x}", id.0.as_u128())
    }

    pub(crate) fn user_cpu(&self, user: UserId) -> u64 {
        let standing = self
            .store
            .standing(plimsoll_core::entity::EntityKind::User, user.0)
            .expect("a user");
        standing.reserved.get(Dimension::Cpu)
    }

    pub(crate) fn team_cpu(&self, team: TeamId) -> (u64, u64) {
        let standing = self
            .store
            .standing(plimsoll_core::entity::EntityKind::Team, team.0)
            .expect("a team");
        (
            standing.reserved.get(Dimension::Cpu),
            standing.overflow.get(Dimension::Cpu),
        )
    }

    pub(crate) async fn sound(&self) {
        let found = self.store.check().await.expect("a check");
        assert!(found.is_empty(), "the ledger is not sound: {found:#?}");
    }

    /// Every row that a step on a reservation writes.
    pub(crate) fn rows(&self) -> Vec<String> {
        let shell = self.shell();
        let columns = |table: &str| {
            let sql = format!(
                "SELECT group_concat('quote(' || name || ')', ' || ') FROM pragma_table_info('{table}')"
            );
            shell
                .query_row(&sql, [], |row| row.get::<_, String>(0))
                .expect("a table")
        };
        let mut found = Vec::new();
        for table in ["account", "reservation", "decision", "violation"] {
            let sql = format!("SELECT {} FROM {table}", columns(table));
            let mut statement = shell.prepare(&sql).expect("a query");
            let rows = statement.query_map([], |row| row.get(0)).expect("rows");
            found.extend(rows.map(|row| row.expect("a row")));
        }
        found
    }

    /// Another connection to the ledger's file: what an operator with a shell could do.
    pub(crate) fn shell(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path().join(plimsoll_store::LEDGER_FILE)).expect("a file")
    }
}

pub(crate) fn key(caller: &str, key: &str, fingerprint: &str) -> Option<Idempotency> {
    Some(Idempotency {
        caller: caller.into(),
        key: key.into(),
        fingerprint: fingerprint.into(),
    })
}

/// The message of the error that must have come.
#[track_caller]
pub(crate) fn refused<T>(outcome: Result<T, StoreError>) -> StoreError {
    match outcome {
        Ok(_) => panic!("this must not succeed"),
        Err(error) => error,
    }
}

/// Fails unless the outcome is an error that matches.
macro_rules! assert_refused {
    ($outcome:expr, $pattern:pat) => {
        let error = $crate::world::refused($outcome);
        assert!(matches!(error, $pattern), "{error:?}");
    };
    ($outcome:expr, $pattern:pat, $text:expr) => {
        let error = $crate::world::refused($outcome);
        assert!(matches!(error, $pattern), "{error:?}");
        let said = error.to_string();
        assert!(said.contains($text), "{said}");
    };
}
