//! Operations, how they are asked of a store, and what a store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use plimsoll_core::entity::{DecisionId, EntityKind, ReservationId, SYSTEM_ID, TeamId, UserId};
use plimsoll_core::quota::{Capacity, Mode, TeamMode};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_core::{Amounts, Dimension, Limit, Limits, State};
use plimsoll_store::{
    Actor, Admission, Claim, Deed, Idempotency, NewMember, NewReservation, NewUser, Origin,
    QuotaChange, Reservation, ReservationFilter, Role, Store, StoreError, TeamChoice, UserChange,
    ViolationKind,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) const HOST: &str = "sim";

/// Small enough that the host is sometimes what is full.
pub(crate) const CAPACITY: Capacity = Capacity {
    cpu: MilliCpu(6_000),
    memory: Bytes(64 << 30),
};

/// One thing asked of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Op {
    pub(crate) now_ms: i64,
    /// Id of a decision, should one be needed.
    pub(crate) decision: Uuid,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum What {
    AddUser {
        id: Uuid,
        name: String,
    },
    DeleteUser {
        id: Uuid,
        drain: bool,
    },
    Suspend {
        id: Uuid,
        suspended: bool,
    },
    AddTeam {
        id: Uuid,
        name: String,
    },
    DeleteTeam {
        id: Uuid,
        drain: bool,
    },
    Join {
        team: Uuid,
        user: Uuid,
        allotment: Option<u64>,
        borrow: Option<u64>,
        from_pool: bool,
    },
    Leave {
        team: Uuid,
        user: Uuid,
        drain: bool,
        to_pool: bool,
    },
    FinishDrains,
    /// One step of forgetting whatever has ended.
    Forget,
    Limit {
        entity: Uuid,
        dimension: Dimension,
        limit: Option<u64>,
    },
    Mode {
        entity: Uuid,
        mode: Mode,
    },
    Overcommit {
        entity: Uuid,
        permille: u32,
    },
    TeamMode {
        team: Uuid,
        mode: TeamMode,
    },
    Reserve(Request),
    Commit {
        id: Uuid,
        container: String,
    },
    Void {
        id: Uuid,
    },
    Stopped {
        id: Uuid,
    },
    Running {
        id: Uuid,
    },
    Start {
        id: Uuid,
    },
    Resize {
        id: Uuid,
        amounts: Amounts,
    },
    Resized {
        id: Uuid,
        amounts: Amounts,
    },
    Release {
        id: Uuid,
    },
    Bound {
        id: Uuid,
        container: String,
        runs: bool,
    },
    Adopt {
        request: Request,
        container: String,
        runs: bool,
    },
}

/// What a reservation is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    pub(crate) team: Choice,
    pub(crate) amounts: Amounts,
    pub(crate) name: Option<String>,
    /// Key and fingerprint.
    pub(crate) key: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Choice {
    Default,
    None,
    Team(Uuid),
}

/// What came of it, as far as the model foresees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    /// Deleted now, or only draining.
    Gone(bool),
    Admitted,
    Replayed,
    Refused,
    NotFound,
    Conflict,
    Forbidden,
    Invalid,
    Other(String),
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::NotFound,
            StoreError::Conflict(_) => Self::Conflict,
            StoreError::Forbidden(_) => Self::Forbidden,
            StoreError::Invalid(_) => Self::Invalid,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

pub(crate) async fn claim_host(store: &Store) {
    let claimed = store.claim_host(HOST.into(), CAPACITY, 0).await;
    claimed.expect("the host can be claimed");
}

/// Asks for all of them at once, in order, and returns the answers in that order.
pub(crate) async fn perform(store: &Store, ops: impl Iterator<Item = Op>) -> Vec<Outcome> {
    // Tasks of one thread run first in the order they were made, so they are queued in it.
    let tasks: Vec<_> = ops
        .map(|op| {
            let store = store.clone();
            tokio::spawn(async move { perform_one(&store, op).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("no panic"));
    }
    answers
}

pub(crate) async fn perform_one(store: &Store, op: Op) -> Outcome {
    answer(store, op).await.unwrap_or_else(Outcome::from)
}

async fn answer(store: &Store, op: Op) -> Result<Outcome, StoreError> {
    let now_ms = op.now_ms;
    let actor = Actor {
        name: "sim".into(),
        at_ms: now_ms,
        reason: None,
    };
    let deed = Deed {
        decision: DecisionId(op.decision),
        now_ms,
    };
    let done = |_: Reservation| Outcome::Done;
    let quota = |entity, change| store.change_quota(entity, change, actor.clone());
    Ok(match op.what {
        What::AddUser { id, name } => {
            let new = NewUser {
                id: UserId(id),
                name: name.parse().expect("a name"),
                email: None,
                os_uid: None,
                role: Role::Member,
                class: None,
            };
            store.add_user(new, actor).await?;
            Outcome::Done
        }
        What::DeleteUser { id, drain } => {
            Outcome::Gone(store.delete_user(UserId(id), drain, actor).await?)
        }
        What::Suspend { id, suspended } => {
            let change = store.change_user(
                UserId(id),
                UserChange {
                    suspended: Some(suspended),
                    ..UserChange::default()
                },
                actor,
            );
            change.await?;
            Outcome::Done
        }
        What::AddTeam { id, name } => {
            let name = name.parse().expect("a name");
            store.add_team(TeamId(id), name, None, actor).await?;
            Outcome::Done
        }
        What::DeleteTeam { id, drain } => {
            Outcome::Gone(store.delete_team(TeamId(id), drain, actor).await?)
        }
        What::Join {
            team,
            user,
            allotment,
            borrow,
            from_pool,
        } => {
            let new = NewMember {
                team: TeamId(team),
                user: UserId(user),
                role: None,
                allotment: allotment.map(|milli| vec![(Dimension::Cpu, milli)]),
                borrow: borrow.map(|milli| vec![(Dimension::Cpu, Limit::AtMost(milli))]),
                default: None,
                from_pool,
            };
            store.put_member(new, actor).await?;
            Outcome::Done
        }
        What::Leave {
            team,
            user,
            drain,
            to_pool,
        } => {
            store
                .remove_member(TeamId(team), UserId(user), drain, to_pool, actor)
                .await?;
            Outcome::Done
        }
        What::Forget => {
            store.forget_reservations(i64::MAX, None).await?;
            Outcome::Done
        }
        What::FinishDrains => {
            store.finish_drains(actor).await?;
            Outcome::Done
        }
        What::Limit {
            entity,
            dimension,
            limit,
        } => {
            let change = QuotaChange {
                limits: vec![(dimension, limit.into())],
                ..QuotaChange::default()
            };
            quota(entity, change).await?;
            Outcome::Done
        }
        What::Mode { entity, mode } => {
            let change = QuotaChange {
                mode: Some(mode),
                ..QuotaChange::default()
            };
            quota(entity, change).await?;
            Outcome::Done
        }
        What::Overcommit { entity, permille } => {
            let change = QuotaChange {
                overcommit_permille: Some(permille),
                ..QuotaChange::default()
            };
            quota(entity, change).await?;
            Outcome::Done
        }
        What::TeamMode { team, mode } => {
            let change = QuotaChange {
                team_mode: Some(mode),
                ..QuotaChange::default()
            };
            quota(team, change).await?;
            Outcome::Done
        }
        What::Reserve(request) => admitted(&store.reserve(request.for_store(deed)).await?),
        What::Commit { id, container } => {
            admitted(&store.commit(ReservationId(id), container, deed).await?)
        }
        What::Start { id } => admitted(&store.start(ReservationId(id), deed).await?),
        What::Resize { id, amounts } => {
            admitted(&store.resize(ReservationId(id), amounts, deed).await?)
        }
        What::Void { id } => store.void(ReservationId(id), now_ms).await.map(done)?,
        What::Stopped { id } => store.stopped(ReservationId(id), now_ms).await.map(done)?,
        What::Running { id } => store.running(ReservationId(id), now_ms).await.map(done)?,
        What::Release { id } => store.release(ReservationId(id), now_ms).await.map(done)?,
        What::Resized { id, amounts } => {
            let resized = store.resized(ReservationId(id), amounts, now_ms);
            resized.await.map(done)?
        }
        What::Bound {
            id,
            container,
            runs,
        } => {
            let bound = store.bound(ReservationId(id), container, state(runs), now_ms);
            bound.await.map(done)?
        }
        What::Adopt {
            request,
            container,
            runs,
        } => {
            let new = request.for_store(deed);
            let adopted = store.adopt(new, container, state(runs));
            adopted.await.map(done)?
        }
    })
}

pub(crate) fn state(runs: bool) -> State {
    if runs { State::Active } else { State::Stopped }
}

fn admitted(admission: &Admission) -> Outcome {
    match (&admission.reservation, admission.replayed) {
        (Some(_), true) => Outcome::Replayed,
        (Some(_), false) => Outcome::Admitted,
        (None, _) => Outcome::Refused,
    }
}

impl Request {
    fn for_store(self, deed: Deed) -> NewReservation {
        let team = match self.team {
            Choice::Default => TeamChoice::Default,
            Choice::None => TeamChoice::NoTeam,
            Choice::Team(team) => TeamChoice::Team(TeamId(team)),
        };
        NewReservation {
            id: ReservationId(self.id),
            kind: plimsoll_store::ObjectKind::Container,
            goes_with: None,
            host_mounts: Vec::new(),
            replaces: None,
            decision: deed.decision,
            claim: Claim {
                user: UserId(self.user),
                team,
                project: None,
                host: HOST.into(),
                amounts: self.amounts,
            },
            origin: Origin::Gateway,
            idempotency: self.key.map(|(key, fingerprint)| Idempotency {
                caller: "sim".into(),
                key,
                fingerprint,
            }),
            container_name: self.name,
            image: None,
            expires_ms: deed.now_ms + 60_000,
            now_ms: deed.now_ms,
        }
    }
}

/// Everything a ledger holds that the model knows too, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Snapshot {
    pub(crate) users: BTreeMap<Uuid, HeldUser>,
    pub(crate) teams: BTreeMap<Uuid, HeldTeam>,
    pub(crate) members: BTreeMap<(Uuid, Uuid), (Limits, Limits, Amounts)>,
    pub(crate) reservations: BTreeMap<Uuid, HeldReservation>,
    pub(crate) system: Amounts,
    pub(crate) quotas: BTreeMap<Uuid, HeldQuota>,
    /// Level, entity and dimension of what is over its limit.
    pub(crate) over: BTreeSet<(String, Uuid, Dimension)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldQuota {
    pub(crate) limits: Limits,
    pub(crate) permille: u32,
    pub(crate) mode: Mode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldUser {
    pub(crate) name: String,
    pub(crate) suspended: bool,
    pub(crate) draining: bool,
    pub(crate) default_team: Option<Uuid>,
    pub(crate) reserved: Amounts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldTeam {
    pub(crate) name: String,
    pub(crate) draining: bool,
    pub(crate) mode: TeamMode,
    pub(crate) total: Limits,
    pub(crate) pool: Limits,
    pub(crate) reserved: Amounts,
    pub(crate) overflow: Amounts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldReservation {
    pub(crate) user: Uuid,
    pub(crate) team: Option<Uuid>,
    pub(crate) state: State,
    pub(crate) claim: Amounts,
    pub(crate) container: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) decided: bool,
}

impl Snapshot {
    /// What `held` has otherwise, in words.
    pub(crate) fn differences(&self, held: &Self) -> String {
        let mut text = String::new();
        fn of<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
            text: &mut String,
            what: &str,
            expected: &BTreeMap<K, V>,
            held: &BTreeMap<K, V>,
        ) {
            let keys: BTreeSet<&K> = expected.keys().chain(held.keys()).collect();
            for key in keys {
                let (a, b) = (expected.get(key), held.get(key));
                if a != b {
                    let _ = writeln!(text, "{what} {key:?}\n  expected {a:?}\n  held     {b:?}");
                }
            }
        }
        of(&mut text, "quota", &self.quotas, &held.quotas);
        of(&mut text, "user", &self.users, &held.users);
        of(&mut text, "team", &self.teams, &held.teams);
        of(&mut text, "member", &self.members, &held.members);
        of(
            &mut text,
            "reservation",
            &self.reservations,
            &held.reservations,
        );
        if self.system != held.system {
            let _ = writeln!(text, "system {:?}, held {:?}", self.system, held.system);
        }
        if self.over != held.over {
            let (missing, stale) = (&self.over - &held.over, &held.over - &self.over);
            let _ = writeln!(text, "over: {missing:?} missing, {stale:?} stale");
        }
        text
    }
}

pub(crate) async fn snapshot(store: &Store) -> Snapshot {
    let standing = |kind, entity| store.standing(kind, entity).expect("a standing");
    let mut held = Snapshot::default();
    for user in store.users().await.expect("users") {
        let of_user = HeldUser {
            name: user.name,
            suspended: user.suspended,
            draining: user.draining,
            default_team: user.default_team.map(|t| t.0),
            reserved: standing(EntityKind::User, user.id.0).reserved,
        };
        held.users.insert(user.id.0, of_user);
    }
    for team in store.teams().await.expect("teams") {
        let stands = standing(EntityKind::Team, team.id.0);
        for m in store.members(Some(team.id), None).await.expect("members") {
            let place = (m.allotment, m.borrow, m.reserved);
            held.members.insert((team.id.0, m.user.0), place);
        }
        let of_team = HeldTeam {
            name: team.name,
            draining: team.draining,
            mode: team.mode,
            total: team.total,
            pool: team.pool,
            reserved: stands.reserved,
            overflow: stands.overflow,
        };
        held.teams.insert(team.id.0, of_team);
    }
    let every = ReservationFilter {
        states: State::ALL.to_vec(),
        ..ReservationFilter::default()
    };
    for r in store.reservations(every).await.expect("reservations") {
        let of_reservation = HeldReservation {
            user: r.user.0,
            team: r.team.map(|t| t.0),
            state: r.state,
            claim: r.claim,
            container: r.container,
            name: r.container_name,
            decided: r.decision.is_some(),
        };
        held.reservations.insert(r.id.0, of_reservation);
    }
    let owners: Vec<Uuid> = held
        .users
        .keys()
        .chain(held.teams.keys())
        .copied()
        .collect();
    for entity in owners.into_iter().chain([SYSTEM_ID]) {
        let quota = store.quota(entity).expect("everybody has a quota");
        let of_entity = HeldQuota {
            limits: quota.limits,
            permille: quota.overcommit_permille,
            mode: quota.mode,
        };
        held.quotas.insert(entity, of_entity);
    }
    held.system = standing(EntityKind::System, SYSTEM_ID).reserved;
    for v in store.violations(None, 10_000).await.expect("violations") {
        assert_eq!(v.kind, ViolationKind::Reserved);
        held.over.insert((v.level, v.entity, v.dimension));
    }
    held
}
