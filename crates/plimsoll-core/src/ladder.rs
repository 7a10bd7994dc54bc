//! What is done about a limit that is exceeded: less CPU, frozen, stopped, one rung after the other.
//!
//! [`climb`] says what is to be announced, done and taken back about one violation. Who calls it keeps
//! what it said, and does it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::budget::period;
use crate::dimension::Dimension;
use crate::entity::ReservationId;
use crate::quota::{ContainerDefaults, Mode};
use crate::units::MilliCpu;
use crate::violation::ViolationKind;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Less CPU.
    Throttle,
    /// Frozen.
    Pause,
    /// Stopped.
    Stop,
}

impl Step {
    /// Every rung, the lowest first.
    pub const ALL: [Self; 3] = [Self::Throttle, Self::Pause, Self::Stop];

    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Pause => "pause",
            Self::Stop => "stop",
        }
    }

    /// The step with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// What a container is that it was done to.
    #[must_use]
    pub const fn done(self) -> &'static str {
        match self {
            Self::Throttle => "throttled",
            Self::Pause => "paused",
            Self::Stop => "stopped",
        }
    }

    /// Whether it helps against a violation. What is charged stays charged for a frozen container, and
    /// what exists takes its room stopped, too.
    #[must_use]
    pub const fn helps(self, kind: ViolationKind, dimension: Dimension) -> bool {
        match (self, kind) {
            (_, ViolationKind::Throttled) => false,
            (Self::Throttle, _) => matches!(dimension, Dimension::Cpu),
            (Self::Pause, _) => {
                matches!(kind, ViolationKind::Used) && matches!(dimension, Dimension::Cpu)
            }
            (Self::Stop, ViolationKind::Reserved) => dimension.is_runtime(),
            (Self::Stop, _) => true,
        }
    }
}

/// When each rung is reached, seconds after a violation has opened; never where there is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rungs {
    /// Less CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_after_seconds: Option<u64>,
    /// Frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_after_seconds: Option<u64>,
    /// Stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after_seconds: Option<u64>,
}

impl Rungs {
    const fn after_s(&self, step: Step) -> Option<u64> {
        match step {
            Step::Throttle => self.throttle_after_seconds,
            Step::Pause => self.pause_after_seconds,
            Step::Stop => self.stop_after_seconds,
        }
    }
}

/// What a class or a quota says is to be done. By default nobody is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// In every dimension that is not named.
    pub steps: Rungs,
    /// In these.
    pub dimensions: BTreeMap<Dimension, Rungs>,
    /// A step is announced so long before it happens, at least.
    pub announce_seconds: u64,
    /// Their containers go before everybody else's.
    pub scavenger: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            steps: Rungs::default(),
            dimensions: BTreeMap::new(),
            announce_seconds: 60,
            scavenger: false,
        }
    }
}

/// The longest time a policy may name: a year.
const SECONDS_MAX: u64 = 366 * 86_400;

impl Policy {
    /// What is wrong with it.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let rungs = self.dimensions.values().chain([&self.steps]);
        let times = rungs.flat_map(|r| Step::ALL.map(|s| r.after_s(s)));
        let longest = times.flatten().chain([self.announce_seconds]).max();
        match longest {
            Some(s) if s > SECONDS_MAX => Err(format!("names {s} seconds, {SECONDS_MAX} at most")),
            _ => Ok(()),
        }
    }

    /// Seconds after which a violation in this dimension has reached a rung.
    #[must_use]
    pub fn after_s(&self, dimension: Dimension, step: Step) -> Option<u64> {
        match self.dimensions.get(&dimension) {
            Some(rungs) => rungs.after_s(step),
            // A quiet server is not waste: somebody must say so.
            None if dimension == Dimension::Idle => None,
            None => self.steps.after_s(step),
        }
    }
}

fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// A violation and what its quota says about it.
#[derive(Debug, Clone)]
pub struct Offence {
    /// Its id.
    pub id: Uuid,
    /// What exceeds the limit.
    pub kind: ViolationKind,
    /// In which dimension.
    pub dimension: Dimension,
    /// By how much; nothing where it is not exceeded now.
    pub excess: u64,
    /// It is of what members hold above their allotments, and of nothing else.
    pub of_pool: bool,
    /// It has not ended.
    pub open: bool,
    /// Unix milliseconds.
    pub opened_ms: i64,
    /// When the excess was last looked at, Unix milliseconds.
    pub seen_ms: i64,
    /// Of the quota whose limit it is.
    pub mode: Mode,
    /// Of the quota whose limit it is.
    pub policy: Policy,
}

impl Offence {
    /// When a rung is reached, Unix milliseconds; `None` where it never is.
    fn reaches(&self, step: Step) -> Option<i64> {
        if !step.helps(self.kind, self.dimension) {
            return None;
        }
        let after_s = self.policy.after_s(self.dimension, step)?;
        Some(self.opened_ms.saturating_add(milliseconds(after_s)))
    }

    /// What a stopped container holds on disk it goes on holding.
    const fn stays_held(&self) -> bool {
        !self.dimension.is_runtime() && !self.of_all()
    }

    /// Each is over by itself, and no longer when it was stopped: it may start again.
    const fn is_idle(&self) -> bool {
        matches!(self.dimension, Dimension::Idle)
    }

    /// Nothing is left, or each is over by itself: it is of everybody who holds any.
    const fn of_all(&self) -> bool {
        period(self.dimension).is_some() || self.is_idle()
    }

    /// Whether such a step may be, or stay, done.
    #[must_use]
    pub fn calls_for(&self, step: Step) -> bool {
        self.open && self.mode == Mode::Enforce && self.reaches(step).is_some()
    }
}

/// A container that could be the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its reservation.
    pub id: ReservationId,
    /// How much of the dimension it holds: charged, or measured.
    pub holds: u64,
    /// A member, and how much all of their containers hold above their allotment.
    pub borrows: Option<(Uuid, u64)>,
    /// Of somebody whose containers go first.
    pub scavenger: bool,
    /// It does nothing, and has for longer than its owner's limit.
    pub idle: bool,
    /// Unix milliseconds.
    pub started_ms: i64,
}

/// A step that was announced, or done and not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its id.
    pub id: Uuid,
    /// The violation it is for.
    pub offence: Uuid,
    /// The container.
    pub holder: ReservationId,
    /// What.
    pub step: Step,
    /// How much it is to free.
    pub frees: u64,
    /// When it is to happen, Unix milliseconds.
    pub due_ms: i64,
    /// When it did, Unix milliseconds.
    pub done_ms: Option<i64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Say that this will happen.
    Announce {
        /// To this container.
        holder: ReservationId,
        /// What.
        step: Step,
        /// When, Unix milliseconds.
        due_ms: i64,
        /// How much it is to free.
        frees: u64,
        /// The CPU that is left to it.
        to: Option<MilliCpu>,
    },
    /// Do what was announced under this id.
    Act(Uuid),
    /// What was announced under this id does not happen.
    Drop(Uuid),
    /// What was done under this id is taken back.
    Undo(Uuid),
}

/// What was done shows at the next look, or never: nothing new is announced meanwhile.
const SHOWS_MS: i64 = 10_000;

/// What is to be done about one violation. `taken` are the steps for it, and all others on any of the
/// `holders`. In a `hurry` the next rung is reached now.
#[must_use]
pub fn climb(
    offence: &Offence,
    holders: &[Holder],
    taken: &[Taken],
    now_ms: i64,
    hurry: bool,
) -> Vec<Order> {
    let is_here = |t: &Taken| holders.iter().any(|h| h.id == t.holder);
    let shows = |done_ms| done_ms < offence.seen_ms || now_ms - done_ms >= SHOWS_MS;
    // What is exceeded still, without what was done and does not show.
    let unseen = taken
        .iter()
        .filter(|t| t.offence == offence.id && !offence.of_all());
    let unseen = unseen.filter(|t| t.done_ms.is_some_and(|d| offence.stays_held() || !shows(d)));
    let mut left = unseen
        .map(|t| t.frees)
        .fold(offence.excess, u64::saturating_sub);
    let mut orders = Vec::new();
    for t in taken.iter().filter(|t| t.offence == offence.id) {
        match t.done_ms {
            Some(_) if !offence.calls_for(t.step) || (offence.is_idle() && !is_here(t)) => {
                orders.push(Order::Undo(t.id));
            }
            Some(_) => {}
            None if !offence.calls_for(t.step) || !is_here(t) => orders.push(Order::Drop(t.id)),
            None if left > 0 && (hurry || t.due_ms <= now_ms) => {
                orders.push(Order::Act(t.id));
                if !offence.of_all() {
                    left = left.saturating_sub(t.frees);
                }
            }
            None => {}
        }
    }
    let last_ms = taken.iter().filter_map(|t| t.done_ms).max();
    if !last_ms.is_none_or(shows) {
        return orders;
    }
    let counts = |t: &&Taken| match t.done_ms {
        None => is_here(t) && !offence.of_all(),
        Some(_) => t.offence == offence.id && offence.stays_held(),
    };
    let coming = taken.iter().filter(counts).map(|t| t.frees);
    let excess = coming.fold(offence.excess, u64::saturating_sub);
    if excess > 0 {
        orders.extend(announced(offence, holders, taken, excess, now_ms, hurry));
    }
    orders
}

/// The containers that are enough, and what is to happen to them: the highest rung that is reached, in a
/// hurry the lowest that anybody is left for.
fn announced(
    offence: &Offence,
    holders: &[Holder],
    taken: &[Taken],
    excess: u64,
    now_ms: i64,
    hurry: bool,
) -> Vec<Order> {
    let notice_ms = milliseconds(offence.policy.announce_seconds);
    let is_near = |at_ms: i64| hurry || at_ms.saturating_sub(notice_ms) <= now_ms;
    let timed = Step::ALL.into_iter().filter(|s| offence.calls_for(*s));
    let timed = timed.filter_map(|step| Some((step, offence.reaches(step)?)));
    let mut reached: Vec<_> = timed.filter(|(_, at_ms)| is_near(*at_ms)).collect();
    if !hurry {
        reached.reverse();
    }
    for (step, at_ms) in reached {
        let due_ms = match hurry {
            true => now_ms,
            false => at_ms.max(now_ms.saturating_add(notice_ms)),
        };
        let victims = victims(offence, holders, taken, step, excess);
        if !victims.is_empty() {
            let announce = |(h, frees): (&Holder, u64)| Order::Announce {
                holder: h.id,
                step,
                due_ms,
                frees,
                to: (step == Step::Throttle).then(|| MilliCpu(h.holds.saturating_sub(frees))),
            };
            return victims.into_iter().map(announce).collect();
        }
    }
    Vec::new()
}

/// Who is enough to end the excess, and what each frees: scavengers first, then who borrows, then what is
/// idle, then the newest.
fn victims<'h>(
    offence: &Offence,
    holders: &'h [Holder],
    taken: &[Taken],
    step: Step,
    mut excess: u64,
) -> Vec<(&'h Holder, u64)> {
    let is_free = |h: &&Holder| {
        let spoken_of = |t: &Taken| t.holder == h.id && (t.step >= step || t.done_ms.is_none());
        !taken.iter().any(spoken_of)
    };
    let mut left: Vec<&Holder> = holders.iter().filter(is_free).collect();
    left.sort_by_key(|h| (Reverse(h.started_ms), h.id));
    let mut borrowed: BTreeMap<Uuid, u64> = holders.iter().filter_map(|h| h.borrows).collect();
    let mut chosen = Vec::new();
    while excess > 0 {
        let above = |h: &Holder| {
            let (member, _) = h.borrows?;
            borrowed.get(&member).copied()
        };
        let frees = |h: &Holder| {
            let whole = match step {
                Step::Throttle => h.holds.saturating_sub(ContainerDefaults::CPU_MIN.0),
                Step::Pause | Step::Stop => h.holds,
            };
            let counts = match offence.of_pool {
                true => whole.min(above(h).unwrap_or(0)),
                false => whole,
            };
            match step {
                _ if offence.of_all() => excess,
                Step::Throttle => counts.min(excess),
                Step::Pause | Step::Stop => counts,
            }
        };
        let rank = |h: &Holder| {
            let borrows = above(h).is_some_and(|most| most > 0);
            (!h.scavenger, !borrows, !h.idle)
        };
        // The first of the best: the newest.
        let useful = left.iter().enumerate().filter(|(_, h)| frees(h) > 0);
        let Some((i, h)) = useful.min_by_key(|(_, h)| rank(h)) else {
            break;
        };
        let (h, freed) = (*h, frees(h));
        left.remove(i);
        if let Some(above) = h.borrows.and_then(|(member, _)| borrowed.get_mut(&member)) {
            *above = above.saturating_sub(freed);
        }
        if !offence.of_all() {
            excess = excess.saturating_sub(freed);
        }
        chosen.push((h, freed));
    }
    chosen
}
