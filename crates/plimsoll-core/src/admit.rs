//! The one function that decides.
//!
//! [`admit`] looks at every level on a claim's path, in every dimension, and returns everything that
//! stands in the way at once. It charges nothing: the store reads, calls it and writes, all in one
//! transaction.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dimension::{Amounts, Dimension, Limit, Limits};
use crate::quota::{Mode, OVERCOMMIT_NONE};

/// A place on the path where a claim is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LevelKind {
    /// One machine's capacity.
    Host,
    /// Everything together.
    System,
    /// The team's limit.
    Team,
    /// What the members hold together above their allotments.
    Pool,
    /// How far one member may reach into the pool.
    Member,
    /// A user's own quota.
    User,
}

impl LevelKind {
    /// The name in the API and in refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::System => "system",
            Self::Team => "team",
            Self::Pool => "pool",
            Self::Member => "member",
            Self::User => "user",
        }
    }

    /// The level with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Host,
            Self::System,
            Self::Team,
            Self::Pool,
            Self::Member,
            Self::User,
        ]
        .into_iter()
        .find(|level| level.name() == name)
    }
}

/// Limits and what is already charged against them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Id of the entity the limits belong to.
    pub entity: Uuid,
    /// Its name.
    pub name: String,
    /// Effective limits: grants added, percentages folded in.
    pub limits: Limits,
    /// Charged now.
    pub reserved: Amounts,
    /// Whether the limits refuse, watch or rest.
    pub mode: Mode,
    /// Admission allows this many thousandths of the limits.
    pub overcommit_permille: u32,
}

impl Level {
    fn allowed(&self, dimension: Dimension) -> Limit {
        self.limits[dimension].times_permille(self.overcommit_permille)
    }
}

/// A team and the caller's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamPath {
    /// The team's limit and what all its members charge.
    pub team: Level,
    /// What no allotment takes.
    pub pool: Limits,
    /// What all members together, former ones with an allotment of zero, hold above theirs.
    pub overflow: Amounts,
    /// The caller's id.
    pub member: Uuid,
    /// The caller's name.
    pub member_name: String,
    /// The caller's allotment.
    pub allotment: Limits,
    /// What the caller charges in this team.
    pub member_reserved: Amounts,
    /// How far the caller may reach into the pool.
    pub borrow_limit: Limits,
}

/// Who answers for a claim: the caller's quota, or their team's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives as long as one decision"
)]
pub enum Owner {
    /// A claim outside any team.
    User(Level),
    /// A claim in a team.
    Team(Box<TeamPath>),
}

/// Every level that is asked about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The machine's capacity times the system's percentages.
    pub host: Level,
    /// The system's absolute limits.
    pub system: Level,
    /// Team and member, or user.
    pub owner: Owner,
}

/// One limit that a claim does not fit under. Amounts are in ledger units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Where.
    pub level: LevelKind,
    /// Whose limit.
    pub entity: Uuid,
    /// Their name.
    pub name: String,
    /// In which dimension.
    pub dimension: Dimension,
    /// What the claim would add at this level.
    pub requested: u64,
    /// Charged before the claim.
    pub reserved: u64,
    /// The limit, overcommit factor included.
    pub limit: u64,
    /// By how much the claim is too large.
    pub short_by: u64,
    /// Even an empty account would not hold the claim.
    pub never_fits: bool,
    /// False where the level only watches.
    pub enforced: bool,
}

/// Everything that stands in a claim's way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Every violated level and dimension, outermost level first.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Whether nothing refuses.
    #[must_use]
    pub fn allowed(&self) -> bool {
        !self.violations.iter().any(|v| v.enforced)
    }
}

/// Decides whether a reservation that charges `before` now may charge `after` instead. A new claim
/// has a `before` of zero. Only dimensions that grow are checked: an over-limit GPU never blocks a
/// CPU container, and shrinking always works.
///
/// `path.*.reserved` includes `before`.
#[must_use]
pub fn admit(path: &Path, before: &Amounts, after: &Amounts) -> Verdict {
    let mut violations = Vec::new();
    let mut check = |kind: LevelKind,
                     level: (&Uuid, &str, Mode),
                     dimension: Dimension,
                     limit: Limit,
                     reserved: u64,
                     grow: u64,
                     alone: u64| {
        let (entity, name, mode) = level;
        // A sum that does not fit in 64 bits fits under no limit; without a limit it is refused too.
        if reserved.checked_add(grow).is_some_and(|t| limit.allows(t)) {
            return;
        }
        let limit = limit.at_most().unwrap_or(u64::MAX);
        let short = u128::from(reserved) + u128::from(grow) - u128::from(limit);
        if mode != Mode::Off {
            violations.push(Violation {
                level: kind,
                entity: *entity,
                name: name.to_owned(),
                dimension,
                requested: grow,
                reserved,
                limit,
                short_by: u64::try_from(short).unwrap_or(u64::MAX),
                never_fits: alone > limit,
                enforced: mode == Mode::Enforce,
            });
        }
    };

    for d in Dimension::CHARGED {
        let (old, new) = (before.get(d), after.get(d));
        let Some(grow) = new.checked_sub(old).filter(|grow| *grow > 0) else {
            continue;
        };
        let mut check_level = |kind, level: &Level| {
            let who = (&level.entity, level.name.as_str(), level.mode);
            check(
                kind,
                who,
                d,
                level.allowed(d),
                level.reserved.get(d),
                grow,
                new,
            );
        };
        check_level(LevelKind::Host, &path.host);
        check_level(LevelKind::System, &path.system);
        match &path.owner {
            Owner::User(user) => check_level(LevelKind::User, user),
            Owner::Team(place) => {
                check_level(LevelKind::Team, &place.team);
                let permille = place.team.overcommit_permille;
                let allotment = place.allotment[d]
                    .times_permille(permille)
                    .at_most()
                    .unwrap_or(u64::MAX);
                let pool = place.pool[d].times_permille(permille);
                let held = place.member_reserved.get(d);
                let above = held.saturating_sub(allotment);
                let above_after = held.saturating_add(grow).saturating_sub(allotment);
                let borrow = above_after - above;
                if borrow > 0 {
                    let alone = new.saturating_sub(allotment);
                    let team = (
                        &place.team.entity,
                        place.team.name.as_str(),
                        place.team.mode,
                    );
                    check(
                        LevelKind::Pool,
                        team,
                        d,
                        pool,
                        place.overflow.get(d),
                        borrow,
                        alone,
                    );
                    let member = (&place.member, place.member_name.as_str(), place.team.mode);
                    let reach = place.borrow_limit[d].min(pool);
                    if reach != pool {
                        check(LevelKind::Member, member, d, reach, above, borrow, alone);
                    }
                }
            }
        }
    }
    violations.sort_by_key(|v| (v.level, v.dimension));
    Verdict { violations }
}

impl Path {
    /// The path after one of the caller's own charges on it went from `before` to `after`.
    ///
    /// # Panics
    /// When the path does not include `before`, or a balance would overflow: the ledger is wrong then,
    /// and nothing may be decided on it.
    #[must_use]
    pub fn recharged(mut self, before: &Amounts, after: &Amounts) -> Self {
        let swap = |balance: &mut Amounts| {
            *balance = balance
                .checked_sub(before)
                .expect("a balance holds every charge it is made of")
                .checked_add(after)
                .expect("admission refuses sums that overflow");
        };
        swap(&mut self.host.reserved);
        swap(&mut self.system.reserved);
        match &mut self.owner {
            Owner::User(user) => swap(&mut user.reserved),
            Owner::Team(place) => {
                swap(&mut place.team.reserved);
                let allotment = place
                    .allotment
                    .map(|_, l| l.times_permille(place.team.overcommit_permille));
                let others = place
                    .overflow
                    .checked_sub(&place.member_reserved.above(&allotment))
                    .expect("the overflow holds every member's part");
                swap(&mut place.member_reserved);
                place.overflow = others
                    .checked_add(&place.member_reserved.above(&allotment))
                    .expect("an overflow is at most what is reserved");
            }
        }
        self
    }

    /// The tightest limits the caller's containers live under, for defaults and for advice:
    /// their own quota, or allotment and reachable pool within the team's limit, within the host.
    #[must_use]
    pub fn effective_limits(&self) -> Limits {
        let shared = |d| self.host.limits[d].min(self.system.limits[d]);
        match &self.owner {
            Owner::User(user) => user.limits.map(|d, limit| limit.min(shared(d))),
            Owner::Team(place) => {
                let reach = place.reach();
                reach.map(|d, limit| limit.min(place.team.limits[d]).min(shared(d)))
            }
        }
    }
}

impl Owner {
    /// The level whose limits hold for everything the owner runs.
    #[must_use]
    pub const fn level(&self) -> &Level {
        match self {
            Self::User(user) => user,
            Self::Team(place) => &place.team,
        }
    }
}

impl TeamPath {
    /// Allotment plus what the member may borrow.
    #[must_use]
    pub fn reach(&self) -> Limits {
        self.allotment.map(|d, allotment| {
            match (allotment, self.borrow_limit[d].min(self.pool[d])) {
                (Limit::AtMost(own), Limit::AtMost(more)) => {
                    Limit::AtMost(own.saturating_add(more))
                }
                _ => Limit::Unlimited,
            }
        })
    }
}

impl Level {
    /// A level without limits, charges or factor; tests and callers fill in what matters.
    #[must_use]
    pub fn open(entity: Uuid, name: impl Into<String>) -> Self {
        Self {
            entity,
            name: name.into(),
            limits: Limits::UNLIMITED,
            reserved: Amounts::ZERO,
            mode: Mode::Enforce,
            overcommit_permille: OVERCOMMIT_NONE,
        }
    }
}

impl Violation {
    /// What was asked and what there was: `asked 6 GiB, 3 GiB of 8 GiB free for team ml`.
    #[must_use]
    pub fn found(&self) -> String {
        let d = self.dimension;
        let limit = d.show(self.limit);
        let free = d.show(self.limit.saturating_sub(self.reserved));
        let name = &self.name;
        let place = match self.level {
            LevelKind::Pool => format!(
                "above the allotment, {free} of {limit} free in the shared pool of team {name}"
            ),
            LevelKind::Member => {
                format!("above the allotment, {name} may borrow {free} more of {limit}")
            }
            LevelKind::System => format!("{free} of {limit} free on the whole system"),
            kind => format!("{free} of {limit} free for {} {name}", kind.name()),
        };
        format!("asked {}, {place}", d.show(self.requested))
    }
}

impl fmt::Display for Violation {
    /// [`Violation::found`] and by how much it is too little: `... (short by 3 GiB)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = self.dimension;
        write!(f, "{} (short by {}", self.found(), d.show(self.short_by))?;
        f.write_str(if self.never_fits {
            "; never fits)"
        } else {
            ")"
        })
    }
}
