//! What the ledger holds, as plain records.

use plimsoll_core::admit::{Verdict, Violation};
use plimsoll_core::dimension::{Amounts, Limits};
use plimsoll_core::entity::{
    CertId, DecisionId, EntityKind, MemberRole, Name, ProjectId, ReservationId, TeamId, TokenId,
    UserId,
};
use plimsoll_core::ladder::{Policy, Step};
use plimsoll_core::quota::{Additions, Capacity, Mode, TeamMode, with_additions};
use plimsoll_core::remedy::Remedy;
use plimsoll_core::reservation::State;
use plimsoll_core::units::MilliCpu;
pub use plimsoll_core::violation::ViolationKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a person may do on the whole system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Their own things.
    Member,
    /// Reads everything, changes nothing.
    Viewer,
    /// Everything.
    Admin,
}

impl Role {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Member, Self::Viewer, Self::Admin]
            .into_iter()
            .find(|r| r.name() == name)
    }
}

/// Who does something, for the audit log.
#[derive(Debug, Clone)]
pub struct Actor {
    /// `user:ada`, `token:backup`, `root`, `system`.
    pub name: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Why, as they said.
    pub reason: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Id.
    pub id: UserId,
    /// Unique name.
    pub name: String,
    /// Mail address.
    pub email: Option<String>,
    /// They want what they are told by mail, too.
    pub mail: bool,
    /// The uid the gateway knows them by.
    pub os_uid: Option<u32>,
    /// What they may do on the whole system.
    pub role: Role,
    /// The team their claims go to when they name none.
    pub default_team: Option<TeamId>,
    /// Makes no new claims.
    pub suspended: bool,
    /// Makes no new claims and goes when the last one is released.
    pub draining: bool,
    /// Which span of host ports is theirs, counted from zero; no two users have the same.
    pub port_slot: u32,
    /// Unix milliseconds.
    pub created_ms: i64,
}

/// What a new user is made of.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Id, made by the caller.
    pub id: UserId,
    /// Unique name.
    pub name: Name,
    /// Mail address.
    pub email: Option<String>,
    /// The uid the gateway knows them by; unique.
    pub os_uid: Option<u32>,
    /// What they may do on the whole system.
    pub role: Role,
    /// Quota class; the default class when absent.
    pub class: Option<String>,
}

/// A change of a user. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// Makes no new claims.
    pub suspended: Option<bool>,
    /// Mail address.
    pub email: Option<Option<String>>,
    /// They want what they are told by mail, too.
    pub mail: Option<bool>,
    /// The uid the gateway knows them by.
    pub os_uid: Option<Option<u32>>,
}

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Id.
    pub id: TeamId,
    /// Unique name.
    pub name: String,
    /// How its limit comes about.
    pub mode: TeamMode,
    /// What the whole team may reserve.
    pub total: Limits,
    /// What no allotment takes.
    pub pool: Limits,
    /// Its members make no new claims in it.
    pub suspended: bool,
    /// No new claims; goes when the last one is released.
    pub draining: bool,
    /// Unix milliseconds.
    pub created_ms: i64,
}

/// A user in a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The team.
    pub team: TeamId,
    /// The team's name.
    pub team_name: String,
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub user_name: String,
    /// Lead or member.
    pub role: MemberRole,
    /// What is theirs, without what is granted for a time.
    pub allotment: Limits,
    /// What grants add from the pool now.
    pub granted: Additions,
    /// How far they may reach into the pool.
    pub borrow: Limits,
    /// What they charge in this team.
    pub reserved: Amounts,
}

impl Member {
    /// What is theirs now.
    #[must_use]
    pub fn effective(&self) -> Limits {
        with_additions(&self.allotment, &self.granted)
    }
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Id.
    pub id: ProjectId,
    /// Name, unique within its owner.
    pub name: String,
    /// The owning team, if a team owns it.
    pub team: Option<TeamId>,
    /// The owning user, if a user owns it.
    pub user: Option<UserId>,
    /// Unix milliseconds.
    pub created_ms: i64,
}

/// A quota as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Whose.
    pub entity: Uuid,
    /// What they are.
    pub kind: EntityKind,
    /// The class it came from: the original design's `quota_type`.
    pub class: String,
    /// Limits; of a team: pool (aggregate) or limit (fixed). Without what is granted for a time.
    pub limits: Limits,
    /// What grants add now.
    pub granted: Additions,
    /// Admission allows this many thousandths of the limits.
    pub overcommit_permille: u32,
    /// Enforce, shadow or off.
    pub mode: Mode,
    /// What is done where a limit is exceeded; `None` where the class says it.
    pub ladder: Option<Policy>,
    /// Where their days begin, by its IANA name; `None` is UTC.
    pub time_zone: Option<String>,
    /// Rises with every change.
    pub version: u64,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Unix milliseconds.
    pub updated_ms: i64,
}

impl Quota {
    /// The limits that count now.
    #[must_use]
    pub fn effective(&self) -> Limits {
        with_additions(&self.limits, &self.granted)
    }
}

/// A change of a quota. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct QuotaChange {
    /// Each limit that changes.
    pub limits: Vec<(plimsoll_core::Dimension, plimsoll_core::Limit)>,
    /// Of a team: switch to this mode.
    pub team_mode: Option<TeamMode>,
    /// Admission allows this many thousandths of the limits.
    pub overcommit_permille: Option<u32>,
    /// Enforce, shadow or off.
    pub mode: Option<Mode>,
    /// What is done where a limit is exceeded; inner `None` is what the class says.
    pub ladder: Option<Option<Policy>>,
    /// Where their days begin; the next period of each budget is the first that follows it.
    pub time_zone: Option<Option<String>>,
    /// Refuse unless the quota still has this version.
    pub expected_version: Option<u64>,
}

/// A machine whose containers are charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name.
    pub name: String,
    /// What it has.
    pub capacity: Capacity,
    /// Rises with every process that takes it over.
    pub epoch: u64,
}

/// The right of one process to write a host's rows; the store that took it over has it in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLease {
    /// The host.
    pub host: String,
    /// The epoch this process took it over with.
    pub epoch: u64,
}

/// Where a reservation came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The Docker API gateway.
    Gateway,
    /// A platform that calls the engine itself.
    Api,
    /// A container that was there before.
    Adopted,
}

impl Origin {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Api => "api",
            Self::Adopted => "adopted",
        }
    }

    /// The origin with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Gateway, Self::Api, Self::Adopted]
            .into_iter()
            .find(|o| o.name() == name)
    }
}

/// A key under which a caller may repeat a request without being charged twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Who chose the key; keys of different callers never meet.
    pub caller: String,
    /// The key.
    pub key: String,
    /// A hash of the request: the same key with another body is a conflict.
    pub fingerprint: String,
}

/// Whose claim it is and what it asks for.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who asks.
    pub user: UserId,
    /// The team the claim is charged to.
    pub team: TeamChoice,
    /// The project it counts under.
    pub project: Option<String>,
    /// Where it would run.
    pub host: String,
    /// How much.
    pub amounts: Amounts,
}

/// Which team a claim goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeamChoice {
    /// The user's default team, if they have one.
    Default,
    /// None: the user's own quota.
    NoTeam,
    /// This one; the user must be a member.
    Team(TeamId),
}

/// What a reservation keeps on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ObjectKind {
    /// A container, known by its id.
    #[default]
    Container,
    /// A volume, known by the name the engine has for it.
    Volume,
    /// A network, known by its id.
    Network,
    /// An image, known by the reference the engine has for it.
    Image,
}

impl ObjectKind {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Image => "image",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Container, Self::Volume, Self::Network, Self::Image]
            .into_iter()
            .find(|k| k.name() == name)
    }
}

/// A folder or file of the host that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostMount {
    /// As its owner wrote it.
    pub path: String,
    /// The container cannot write to it.
    pub read_only: bool,
    /// The container runs with its owner's uid and gid.
    pub as_owner: bool,
}

/// A claim to be charged.
#[derive(Debug, Clone)]
pub struct NewReservation {
    /// Id, made by the caller. It is the key that travels on the container.
    pub id: ReservationId,
    /// What it is for.
    pub kind: ObjectKind,
    /// Id of the decision, made by the caller.
    pub decision: DecisionId,
    /// What is asked.
    pub claim: Claim,
    /// Where it comes from.
    pub origin: Origin,
    /// Key for safe repetition.
    pub idempotency: Option<Idempotency>,
    /// The name its owner gives the object; unique among their live ones of its kind.
    pub container_name: Option<String>,
    /// The image as the owner named it.
    pub image: Option<String>,
    /// Of a volume: the container's reservation after whose end it goes.
    pub goes_with: Option<ReservationId>,
    /// Of a container: what it mounts of the host.
    pub host_mounts: Vec<HostMount>,
    /// Of a container: the one whose place it takes. What that one charges is charged once for both,
    /// where they are charged at the same place and nothing else takes part.
    pub replaces: Option<ReservationId>,
    /// When it is void unless committed, Unix milliseconds.
    pub expires_ms: i64,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

/// A charge in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Id.
    pub id: ReservationId,
    /// What it is for.
    pub kind: ObjectKind,
    /// Where it runs.
    pub host: String,
    /// Whose it is.
    pub user: UserId,
    /// Their name.
    pub user_name: String,
    /// The team it is charged to.
    pub team: Option<TeamId>,
    /// The team's name.
    pub team_name: Option<String>,
    /// The project it counts under.
    pub project: Option<String>,
    /// Where it stands.
    pub state: State,
    /// What it asks for; [`State::charge`] says what it charges.
    pub claim: Amounts,
    /// Where it came from.
    pub origin: Origin,
    /// The decision that admitted it; `None` for a fact that nobody was asked about.
    pub decision: Option<DecisionId>,
    /// The engine's id of the container, or of another [`ObjectKind`].
    pub container: Option<String>,
    /// The name its owner calls it by.
    pub container_name: Option<String>,
    /// The image as its owner named it.
    pub image: Option<String>,
    /// How its CPU is held down, if it is.
    pub clamp: Option<Clamp>,
    /// When it is void unless committed, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// When the row last changed, Unix milliseconds.
    pub changed_ms: i64,
    /// When the container was first seen running, Unix milliseconds.
    pub started_ms: Option<i64>,
    /// Of a volume: the container's reservation after whose end it goes.
    pub goes_with: Option<ReservationId>,
    /// Of a container: what it mounts of the host.
    pub host_mounts: Vec<HostMount>,
    /// What another container charges for this one, whose place it takes.
    pub shared: Option<Shared>,
}

impl Reservation {
    /// What its owner calls the container: its name, or else its id; nothing before there is one.
    #[must_use]
    pub fn called(&self) -> &str {
        let name = self.container_name.as_deref().or(self.container.as_deref());
        name.unwrap_or_default()
    }

    /// What it charges.
    #[must_use]
    pub fn charge(&self) -> Amounts {
        self.charge_of(&self.claim)
    }

    /// What it would charge with another claim.
    #[must_use]
    pub fn charge_of(&self, claim: &Amounts) -> Amounts {
        charge(self.state, claim, self.shared.as_ref())
    }

    /// The other container, where that one charges for both what running takes: then only one of them
    /// may run.
    #[must_use]
    pub fn runs_instead_of(&self) -> Option<ReservationId> {
        let shared = self.shared?;
        (shared.amounts != shared.amounts.without_runtime()).then_some(shared.with)
    }
}

/// What a reservation charges in this state.
pub(crate) fn charge(state: State, claim: &Amounts, shared: Option<&Shared>) -> Amounts {
    let full = state.charge(claim);
    shared.map_or(full, |shared| full.beyond(&shared.amounts))
}

/// A part of a claim that another reservation charges, too, and that is charged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// The other one. It shares with nobody itself.
    pub with: ReservationId,
    /// At most what the other one charges.
    pub amounts: Amounts,
}

/// A container that has less CPU than it was made with, because a limit was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    /// What it had, and gets back.
    pub from: MilliCpu,
    /// What it was held to.
    pub to: MilliCpu,
}

/// What was decided about a claim, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Id.
    pub id: DecisionId,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// `create`, `start`, `update`, `reserve`, `commit`.
    pub action: String,
    /// Who asked.
    pub user: UserId,
    /// Their name.
    pub user_name: String,
    /// The team it would be charged to.
    pub team: Option<TeamId>,
    /// The team's name.
    pub team_name: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// Where.
    pub host: String,
    /// How much was asked.
    pub requested: Amounts,
    /// Whether it was admitted.
    pub allowed: bool,
    /// Every limit that was in the way, watching ones included.
    pub violations: Vec<Violation>,
    /// What would make it fit.
    pub remedies: Vec<Remedy>,
    /// The refusal in words.
    pub message: Option<String>,
    /// The charge it led to.
    pub reservation: Option<ReservationId>,
}

/// An answer to "would this fit?", without charging anything.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Every level that was asked.
    pub path: plimsoll_core::Path,
    /// What stands in the way.
    pub verdict: Verdict,
    /// What would help.
    pub remedies: Vec<Remedy>,
    /// The refusal in words, if it is one.
    pub message: Option<String>,
}

/// What came of a request to charge.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The decision, as kept.
    pub decision: Decision,
    /// The charge; `None` when refused.
    pub reservation: Option<Reservation>,
    /// The same request was made before and this is its answer.
    pub replayed: bool,
}

impl Admission {
    /// What has just been decided.
    pub(crate) const fn of(decision: Decision, reservation: Option<Reservation>) -> Self {
        Self {
            decision,
            reservation,
            replayed: false,
        }
    }
}

/// Which reservations to list. `None` means any.
#[derive(Debug, Clone, Default)]
pub struct ReservationFilter {
    /// For objects of this kind.
    pub kind: ObjectKind,
    /// Of this user.
    pub user: Option<UserId>,
    /// In this team.
    pub team: Option<TeamId>,
    /// Of this project.
    pub project: Option<String>,
    /// In one of these states; empty means live (pending, active, stopped).
    pub states: Vec<State>,
    /// On this host.
    pub host: Option<String>,
}

/// Where balances stand for an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Effective limits.
    pub limits: Limits,
    /// Charged now.
    pub reserved: Amounts,
    /// Of a team: held above allotments.
    pub overflow: Amounts,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Id.
    pub id: TokenId,
    /// Whose; `None` for the first administrator's.
    pub user: Option<UserId>,
    /// At most this role, and never more than its user's.
    pub role: Role,
    /// What it is for.
    pub label: String,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// Unix milliseconds.
    pub revoked_ms: Option<i64>,
}

/// A client certificate, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cert {
    /// Its serial number.
    pub serial: CertId,
    /// Whom it names.
    pub user: UserId,
    /// Unix milliseconds.
    pub issued_ms: i64,
    /// Unix milliseconds.
    pub expires_ms: i64,
    /// Unix milliseconds.
    pub revoked_ms: Option<i64>,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Position in the log.
    pub seq: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What they did.
    pub action: String,
    /// To what kind of thing.
    pub entity_kind: String,
    /// To which.
    pub entity: String,
    /// State before, JSON.
    pub before: Option<String>,
    /// State after, JSON.
    pub after: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A limit that is exceeded, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViolationRecord {
    /// Id.
    pub id: Uuid,
    /// What exceeds it.
    pub kind: ViolationKind,
    /// Level name.
    pub level: String,
    /// Whose limit.
    pub entity: Uuid,
    /// Their name.
    pub name: String,
    /// Dimension.
    pub dimension: plimsoll_core::Dimension,
    /// The limit when it opened.
    pub limit: u64,
    /// Now, or when it closed.
    pub current: u64,
    /// The most it was.
    pub peak: u64,
    /// What led to it, in words.
    pub cause: String,
    /// Unix milliseconds.
    pub opened_ms: i64,
    /// Unix milliseconds.
    pub updated_ms: i64,
    /// Unix milliseconds; `None` while open.
    pub closed_ms: Option<i64>,
    /// The containers that held most of it at the peak.
    pub behind: Vec<Behind>,
    /// Since when it is not exceeded, Unix milliseconds.
    pub calm_ms: Option<i64>,
}

/// A container behind a violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Its reservation.
    pub reservation: ReservationId,
    /// As its owner calls it, else the engine's id.
    pub container: String,
    /// Whose it is.
    pub user: String,
    /// How much it held, in ledger units.
    pub amount: u64,
}

/// Which violations to list. `None` means any.
#[derive(Debug, Clone, Default)]
pub struct ViolationFilter {
    /// Those that are open, or closed; both where `None`.
    pub open: Option<bool>,
    /// Opened since, Unix milliseconds; open ones whenever they were.
    pub since_ms: Option<i64>,
    /// Of this entity.
    pub entity: Option<Uuid>,
    /// Of this kind.
    pub kind: Option<ViolationKind>,
    /// At this level.
    pub level: Option<plimsoll_core::LevelKind>,
    /// In this dimension.
    pub dimension: Option<plimsoll_core::Dimension>,
}

/// A step that is to be announced.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The violation it is for.
    pub violation: Uuid,
    /// The container.
    pub reservation: ReservationId,
    /// What.
    pub step: Step,
    /// How much it is to free, in ledger units.
    pub frees: u64,
    /// The CPU that is left to it, of a throttle.
    pub to: Option<MilliCpu>,
    /// When it is to happen, Unix milliseconds.
    pub due_ms: i64,
}

/// A step of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Id; later ones sort later.
    pub id: Uuid,
    /// The violation it is for.
    pub violation: Uuid,
    /// The container.
    pub reservation: ReservationId,
    /// As its owner calls it, else the engine's id.
    pub container: String,
    /// Whose it is.
    pub user: String,
    /// What.
    pub step: Step,
    /// How much it is to free, in ledger units.
    pub frees: u64,
    /// The CPU that is left to it, of a throttle.
    pub to: Option<MilliCpu>,
    /// Unix milliseconds.
    pub announced_ms: i64,
    /// When it is to happen, Unix milliseconds.
    pub due_ms: i64,
    /// When it did, Unix milliseconds.
    pub done_ms: Option<i64>,
    /// When it was taken back, or did not come to it.
    pub ended_ms: Option<i64>,
}

/// A budget in its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Whose.
    pub entity: Uuid,
    /// Of what.
    pub dimension: plimsoll_core::Dimension,
    /// When the period began, Unix milliseconds.
    pub from_ms: i64,
    /// When it ends, Unix milliseconds.
    pub until_ms: i64,
    /// How much was used in all when it began, in ledger units.
    pub mark: u64,
    /// The percents of it that people were told of last.
    pub told: u32,
}

/// What a limit that only watches would have refused somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldRefuse {
    /// Who asked.
    pub user: String,
    /// In which team.
    pub team: Option<String>,
    /// Whose limit it is.
    pub level: plimsoll_core::LevelKind,
    /// Their name.
    pub name: String,
    /// In which dimension.
    pub dimension: plimsoll_core::Dimension,
    /// How often.
    pub times: u64,
    /// By how much at most, in ledger units.
    pub short_by: u64,
    /// The first time, Unix milliseconds.
    pub first_ms: i64,
    /// The last time, Unix milliseconds.
    pub last_ms: i64,
}
