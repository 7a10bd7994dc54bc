//! What the ledger should hold, in the plainest way: no balance is kept, every sum is made anew from
//! the reservations, every time.

mod steps;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_core::entity::SYSTEM_ID;
use plimsoll_core::quota::{Mode, TeamMode, TeamShape, narrowed, overflow, system_limits};
use plimsoll_core::{Amounts, Dimension, Level, Limits, Owner, Path, State, TeamPath};
use uuid::Uuid;

use crate::op::{CAPACITY, HeldQuota, HeldReservation, HeldTeam, HeldUser, Snapshot};

#[derive(Debug, Clone)]
struct Quota {
    limits: Limits,
    permille: u32,
    mode: Mode,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    suspended: bool,
    draining: bool,
    default_team: Option<Uuid>,
    quota: Quota,
}

#[derive(Debug, Clone)]
struct Team {
    name: String,
    draining: bool,
    mode: TeamMode,
    quota: Quota,
    /// Allotment and borrow limit.
    members: BTreeMap<Uuid, (Limits, Limits)>,
}

#[derive(Debug, Clone)]
struct Charge {
    user: Uuid,
    team: Option<Uuid>,
    state: State,
    claim: Amounts,
    container: Option<String>,
    name: Option<String>,
    decided: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    now_ms: i64,
    system: Quota,
    users: BTreeMap<Uuid, User>,
    teams: BTreeMap<Uuid, Team>,
    charges: BTreeMap<Uuid, Charge>,
    /// Key to fingerprint and reservation.
    keys: BTreeMap<String, (String, Uuid)>,
}

impl Quota {
    fn of(limits: Limits) -> Self {
        Self {
            limits,
            permille: 1000,
            mode: Mode::Enforce,
        }
    }
}

impl Team {
    fn shape(&self) -> TeamShape {
        let allotments = self.members.values().map(|(allotment, _)| allotment);
        TeamShape::derive(self.mode, &self.quota.limits, allotments)
    }
}

fn sum<'a>(amounts: impl Iterator<Item = Amounts> + 'a) -> Amounts {
    amounts.fold(Amounts::ZERO, |sum, a| sum.checked_add(&a).expect("small"))
}
impl Model {
    pub(crate) fn new() -> Self {
        Self {
            now_ms: 1_000,
            system: Quota::of(system_limits()),
            users: BTreeMap::new(),
            teams: BTreeMap::new(),
            charges: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub(crate) fn user_ids(&self) -> impl Iterator<Item = Uuid> {
        self.users.keys().copied()
    }

    pub(crate) fn team_ids(&self) -> impl Iterator<Item = Uuid> {
        self.teams.keys().copied()
    }

    pub(crate) fn member_ids(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        self.teams
            .iter()
            .flat_map(|(id, team)| team.members.keys().map(|user| (*id, *user)))
    }

    pub(crate) fn reservations(&self) -> impl Iterator<Item = (Uuid, State)> {
        self.charges.iter().map(|(id, c)| (*id, c.state))
    }

    fn charged(&self, whose: impl Fn(&Charge) -> bool) -> Amounts {
        let charges = self.charges.values().filter(|c| whose(c));
        sum(charges.map(|c| c.state.charge(&c.claim)))
    }

    fn holds(&self, whose: impl Fn(&Charge) -> bool) -> bool {
        self.charges
            .values()
            .any(|c| whose(c) && !c.state.is_final())
    }

    fn overflow(&self, id: Uuid) -> Amounts {
        let team = &self.teams[&id];
        let users: BTreeSet<Uuid> = self
            .charges
            .values()
            .filter(|c| c.team == Some(id))
            .map(|c| c.user)
            .collect();
        let held: Vec<(Amounts, Limits)> = users
            .into_iter()
            .map(|user| {
                let held = self.charged(|c| c.team == Some(id) && c.user == user);
                let allotment = team.members.get(&user).map_or(Limits::nothing(), |m| m.0);
                let allotment = allotment.map(|_, l| l.times_permille(team.quota.permille));
                (held, allotment)
            })
            .collect();
        overflow(held.iter().map(|(held, allotment)| (held, allotment)))
    }

    fn level(quota: &Quota, entity: Uuid, limits: Limits, reserved: Amounts) -> Level {
        Level {
            limits,
            reserved,
            mode: quota.mode,
            overcommit_permille: quota.permille,
            ..Level::open(entity, "")
        }
    }

    fn host_level(&self) -> Level {
        let percent = |d| (d, self.system.limits[d]);
        let share = [
            percent(Dimension::CpuPercent),
            percent(Dimension::MemoryPercent),
        ]
        .into_iter()
        .fold(Limits::UNLIMITED, |l, (d, limit)| l.with(d, limit));
        let all = self.charged(|_| true);
        Self::level(&self.system, SYSTEM_ID, narrowed(&share, CAPACITY), all)
    }

    fn system_level(&self) -> Level {
        let limits = narrowed(&self.system.limits, CAPACITY);
        Self::level(&self.system, SYSTEM_ID, limits, self.charged(|_| true))
    }

    fn user_level(&self, id: Uuid) -> Level {
        let quota = &self.users[&id].quota;
        let reserved = self.charged(|c| c.user == id && c.team.is_none());
        Self::level(quota, id, narrowed(&quota.limits, CAPACITY), reserved)
    }

    fn team_level(&self, id: Uuid) -> Level {
        let team = &self.teams[&id];
        let limits = narrowed(&team.shape().limit, CAPACITY);
        Self::level(
            &team.quota,
            id,
            limits,
            self.charged(|c| c.team == Some(id)),
        )
    }

    fn path(&self, user: Uuid, team: Option<Uuid>) -> Path {
        let owner = match team {
            None => Owner::User(self.user_level(user)),
            Some(id) => {
                let team = &self.teams[&id];
                let place = team.members.get(&user).copied();
                let (allotment, borrow_limit) =
                    place.unwrap_or((Limits::nothing(), Limits::UNLIMITED));
                Owner::Team(Box::new(TeamPath {
                    team: self.team_level(id),
                    pool: team.shape().pool,
                    overflow: self.overflow(id),
                    member: user,
                    member_name: String::new(),
                    allotment,
                    member_reserved: self.charged(|c| c.team == Some(id) && c.user == user),
                    borrow_limit,
                }))
            }
        };
        Path {
            host: self.host_level(),
            system: self.system_level(),
            owner,
        }
    }

    /// Level, entity and dimension of everything above its limit.
    fn over(&self) -> BTreeSet<(String, Uuid, Dimension)> {
        let mut over = BTreeSet::new();
        let mut look = |kind: &str, level: &Level, limits: &Limits, held: &Amounts| {
            for d in Dimension::CHARGED {
                let limit = limits[d].times_permille(level.overcommit_permille);
                if level.mode != Mode::Off && !limit.allows(held.get(d)) {
                    over.insert((kind.to_owned(), level.entity, d));
                }
            }
        };
        let (host, system) = (self.host_level(), self.system_level());
        look("host", &host, &host.limits, &host.reserved);
        look("system", &system, &system.limits, &system.reserved);
        for id in self.users.keys() {
            let user = self.user_level(*id);
            look("user", &user, &user.limits, &user.reserved);
        }
        for (id, team) in &self.teams {
            let level = self.team_level(*id);
            look("team", &level, &level.limits, &level.reserved);
            look("pool", &level, &team.shape().pool, &self.overflow(*id));
        }
        over
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut held = Snapshot {
            system: self.charged(|_| true),
            over: self.over(),
            ..Snapshot::default()
        };
        let users = self.users.iter().map(|(id, user)| (*id, &user.quota));
        let teams = self.teams.iter().map(|(id, team)| (*id, &team.quota));
        for (id, quota) in users.chain(teams).chain([(SYSTEM_ID, &self.system)]) {
            let of_entity = HeldQuota {
                limits: quota.limits,
                permille: quota.permille,
                mode: quota.mode,
            };
            held.quotas.insert(id, of_entity);
        }
        for (id, user) in &self.users {
            let of_user = HeldUser {
                name: user.name.clone(),
                suspended: user.suspended,
                draining: user.draining,
                default_team: user.default_team,
                reserved: self.user_level(*id).reserved,
            };
            held.users.insert(*id, of_user);
        }
        for (id, team) in &self.teams {
            for (user, (allotment, borrow)) in &team.members {
                let reserved = self.charged(|c| c.team == Some(*id) && c.user == *user);
                held.members
                    .insert((*id, *user), (*allotment, *borrow, reserved));
            }
            let shape = team.shape();
            let of_team = HeldTeam {
                name: team.name.clone(),
                draining: team.draining,
                mode: team.mode,
                total: shape.limit,
                pool: shape.pool,
                reserved: self.charged(|c| c.team == Some(*id)),
                overflow: self.overflow(*id),
            };
            held.teams.insert(*id, of_team);
        }
        for (id, c) in &self.charges {
            let of_charge = HeldReservation {
                user: c.user,
                team: c.team,
                state: c.state,
                claim: c.claim,
                container: c.container.clone(),
                name: c.name.clone(),
                decided: c.decided,
            };
            held.reservations.insert(*id, of_charge);
        }
        held
    }
}
