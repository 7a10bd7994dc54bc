//! The ladder at run time: what `plimsoll_core::ladder` orders is announced, done through the engine,
//! and taken back.
//!
//! A step is in the ledger before the engine is asked, and each pass makes sure of what was done: wherever
//! this ends in the middle, the next pass goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll_core::admit::{LevelKind, Owner, Path};
use plimsoll_core::budget::period;
use plimsoll_core::dimension::Dimension;
use plimsoll_core::entity::{EntityKind, UserId};
use plimsoll_core::ladder::{Holder, Offence, Order, Policy, Step, Taken, climb};
use plimsoll_core::notice::{About, Event, EventKind, Severity};
use plimsoll_core::quota::Mode;
use plimsoll_core::reservation::State;
use plimsoll_core::violation::ViolationKind;
use plimsoll_host::engine::{ContainerInspect, ResourceUpdate, RestartPolicy};
use plimsoll_store::{
    NewStep, ObjectKind, Reservation, StepRecord, StoreError, Turned, ViolationFilter,
    ViolationRecord,
};
use uuid::Uuid;

use crate::caps::charged_on;
use crate::clock::in_seconds;
use crate::settle::{SettleError, settle_locked};
use crate::state::App;
use crate::tasks::in_full;

/// How long a step waits for what else is done to its container.
const LOCKED_MAX: Duration = Duration::from_secs(3);

/// The time a container has to stop where it names none.
const STOP_TIMEOUT_S: i64 = 10;

/// Which violations a pass looks at, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Those of this entity.
    pub whose: Option<Uuid>,
    /// The next rung is reached now.
    pub hurry: bool,
    /// Nothing is done.
    pub dry_run: bool,
    /// As if the limits that only watch were enforced, and no others. Only with `dry_run`.
    pub shadow: bool,
}

/// Something a pass did, or would do.
#[derive(Debug, Clone)]
pub struct Action {
    /// The container.
    pub container: String,
    /// Whose.
    pub user: String,
    /// In which dimension the limit is exceeded.
    pub dimension: Dimension,
    /// What.
    pub step: Step,
    /// `announce`, `do`, `drop` or `undo`.
    pub what: &'static str,
    /// Why, in words.
    pub reason: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

/// What a pass did, and in words what it could not do.
#[derive(Debug, Default)]
pub struct Passed {
    /// In order.
    pub actions: Vec<Action>,
    /// The next pass tries again.
    pub failed: Vec<String>,
}

/// The containers of this host, each with the path it is charged at.
type Charged = Vec<(Reservation, Arc<Path>)>;

/// One pass over everything that is exceeded.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn pass(app: &App, how: How) -> Result<Passed, StoreError> {
    let _alone = app.climbing.lock().await;
    let mut steps = live_steps(app, how).await?;
    let mut cases = Vec::new();
    for violation in violations(app, &steps, how).await? {
        let mut offence = offence(app, &violation)?;
        if how.shadow {
            offence.mode = match offence.mode {
                Mode::Shadow => Mode::Enforce,
                Mode::Enforce | Mode::Off => Mode::Off,
            };
        }
        let has_steps = !how.shadow && steps.iter().any(|s| s.violation == violation.id);
        if has_steps || Step::ALL.into_iter().any(|step| offence.calls_for(step)) {
            cases.push((violation, offence));
        }
    }
    let mut passed = Passed::default();
    if cases.is_empty() {
        return Ok(passed);
    }
    let charged = charged_on(&app.store, &app.lease.host).await?;
    let mut climbed = Vec::new();
    for (violation, offence) in cases {
        let case = Case {
            app,
            violation,
            how,
        };
        // What cannot be done about one is no reason to leave the others.
        match case
            .climb(&offence, &charged, &mut steps, &mut passed)
            .await
        {
            Ok(orders) => climbed.push((case, orders)),
            Err(error) => {
                let failed = format!("{}: {}", case.violation.name, in_full(&error));
                passed.failed.push(failed);
            }
        }
    }
    if !how.dry_run {
        // All at once: a container may take its time to stop.
        let sure = climbed
            .iter()
            .map(|(case, orders)| case.make_sure(orders, &steps));
        passed
            .failed
            .extend(join_all(sure).await.into_iter().flatten());
    }
    Ok(passed)
}

/// The open steps. Of a container that is gone nothing is left to take back.
async fn live_steps(app: &App, how: How) -> Result<Vec<StepRecord>, StoreError> {
    let mut live = Vec::new();
    for step in app.store.open_steps().await? {
        let row = match app.store.reservation(step.reservation) {
            Err(StoreError::NotFound { .. }) => continue,
            row => row?,
        };
        if !row.state.is_final() {
            live.push(step);
        } else if !how.dry_run {
            let actor = app.itself(Some("the container is gone"));
            app.store
                .turn_step(&step, Turned::Ended, None, actor)
                .await?;
        }
    }
    Ok(live)
}

/// What is exceeded, and what no longer is and has steps.
async fn violations(
    app: &App,
    steps: &[StepRecord],
    how: How,
) -> Result<Vec<ViolationRecord>, StoreError> {
    let filter = ViolationFilter {
        open: Some(true),
        ..ViolationFilter::default()
    };
    let mut found = app.store.violations_by(filter, u32::MAX).await?;
    for step in steps {
        if !found.iter().any(|v| v.id == step.violation) {
            found.push(app.store.violation(step.violation)?);
        }
    }
    found.retain(|v| how.whose.is_none_or(|whose| v.entity == whose));
    // The oldest first: what is announced for it may be enough for the others.
    found.sort_by_key(|v| (v.opened_ms, v.id));
    Ok(found)
}

fn offence(app: &App, v: &ViolationRecord) -> Result<Offence, StoreError> {
    let known = match (app.store.quota(v.entity), app.store.ladder(v.entity)) {
        (Ok(quota), Ok(policy)) => (quota.mode, policy),
        (Err(StoreError::NotFound { .. }), _) => (Mode::Off, Policy::default()),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let (mode, mut policy) = known;
    // Of a day's runtime people are told before it ends, and then it has ended.
    if v.dimension == Dimension::Runtime {
        let rungs = policy.dimensions.entry(v.dimension);
        rungs.or_default().stop_after_seconds = Some(0);
        policy.announce_seconds = 0;
    }
    Ok(Offence {
        id: v.id,
        kind: v.kind,
        dimension: v.dimension,
        excess: match v.calm_ms {
            Some(_) => 0,
            // Nothing that is left is exceeded, too.
            None if period(v.dimension).is_some() || v.dimension == Dimension::Idle => 1,
            None => v.current.saturating_sub(v.limit),
        },
        of_pool: v.level == LevelKind::Pool.name(),
        open: v.closed_ms.is_none(),
        opened_ms: v.opened_ms,
        seen_ms: v.updated_ms,
        mode,
        policy,
    })
}

/// The containers that count at the violation's level.
fn holders(app: &App, v: &ViolationRecord, charged: &Charged) -> Result<Vec<Holder>, StoreError> {
    let counts = |r: &Reservation| match LevelKind::from_name(&v.level) {
        Some(LevelKind::Host) => r.host == v.name,
        Some(LevelKind::System) => true,
        Some(LevelKind::Team | LevelKind::Pool) => r.team.is_some_and(|t| t.0 == v.entity),
        // Idle time, and what a day or a month has, are a user's wherever they run.
        Some(LevelKind::User) => {
            let of_all = v.dimension == Dimension::Idle || period(v.dimension).is_some();
            r.user.0 == v.entity && (r.team.is_none() || of_all)
        }
        Some(LevelKind::Member) | None => false,
    };
    let runs = |r: &Reservation| r.kind == ObjectKind::Container && r.state == State::Active;
    // Whether a user's containers go first, and after which time they are idle.
    let mut owners: BTreeMap<UserId, (bool, Option<u64>)> = BTreeMap::new();
    let mut found = Vec::new();
    for (r, path) in charged {
        let Some(id) = r.container.as_ref().filter(|_| runs(r) && counts(r)) else {
            continue;
        };
        let (scavenger, idle_limit) = match owners.get(&r.user) {
            Some(known) => *known,
            None => {
                let scavenger = app.store.ladder(r.user.0).is_ok_and(|p| p.scavenger);
                let standing = app.store.standing(EntityKind::User, r.user.0);
                let limit = standing
                    .ok()
                    .and_then(|s| s.limits[Dimension::Idle].at_most());
                (scavenger, limit)
            }
        };
        owners.insert(r.user, (scavenger, idle_limit));
        let used = app.meter.container(id);
        let idle_s = app.idlers.idle_s(id, app.clock.now_ms());
        if v.dimension == Dimension::Idle && idle_s.is_none_or(|s| s < v.limit) {
            continue;
        }
        found.push(Holder {
            id: r.id,
            holds: match (v.kind, v.dimension) {
                (ViolationKind::Used, Dimension::Cpu) => used.and_then(|u| u.cpu_milli),
                (ViolationKind::Used, Dimension::Memory) => used.and_then(|u| u.memory_bytes),
                (ViolationKind::Used, _) => app.meter.storage_of(id),
                _ => Some(r.charge().get(v.dimension)),
            }
            .unwrap_or(0),
            borrows: match &path.owner {
                Owner::User(_) => None,
                Owner::Team(place) => {
                    let permille = place.team.overcommit_permille;
                    let own = place.allotment[v.dimension].times_permille(permille);
                    let above = own.at_most().map_or(0, |own| {
                        place.member_reserved.get(v.dimension).saturating_sub(own)
                    });
                    Some((place.member, above))
                }
            },
            scavenger,
            idle: idle_s.is_some_and(|idle_s| idle_limit.is_some_and(|most| idle_s >= most)),
            started_ms: r.started_ms.unwrap_or(r.created_ms),
        });
    }
    Ok(found)
}

fn taken(step: &StepRecord) -> Taken {
    Taken {
        id: step.id,
        offence: step.violation,
        holder: step.reservation,
        step: step.step,
        frees: step.frees,
        due_ms: step.due_ms,
        done_ms: step.done_ms,
    }
}

/// One violation in one pass.
struct Case<'a> {
    app: &'a App,
    violation: ViolationRecord,
    how: How,
}

impl Case<'_> {
    async fn climb(
        &self,
        offence: &Offence,
        charged: &Charged,
        steps: &mut Vec<StepRecord>,
        passed: &mut Passed,
    ) -> Result<Vec<Order>, StoreError> {
        let holders = holders(self.app, &self.violation, charged)?;
        let concerns = |s: &&StepRecord| {
            s.violation == offence.id || holders.iter().any(|h| h.id == s.reservation)
        };
        let known: Vec<Taken> = steps.iter().filter(concerns).map(taken).collect();
        let now_ms = self.app.clock.now_ms();
        let orders = climb(offence, &holders, &known, now_ms, self.how.hurry);
        for order in &orders {
            self.follow(*order, charged, steps, passed).await?;
        }
        Ok(orders)
    }

    async fn follow(
        &self,
        order: Order,
        charged: &Charged,
        steps: &mut Vec<StepRecord>,
        passed: &mut Passed,
    ) -> Result<(), StoreError> {
        let now_ms = self.app.clock.now_ms();
        let of = |id: Uuid| steps.iter().position(|s| s.id == id);
        let (i, what, at_ms) = match order {
            Order::Announce {
                holder,
                step,
                due_ms,
                frees,
                to,
            } => {
                let Some((row, _)) = charged.iter().find(|(r, _)| r.id == holder) else {
                    return Ok(());
                };
                let new = NewStep {
                    violation: self.violation.id,
                    reservation: holder,
                    step,
                    frees,
                    to,
                    due_ms,
                };
                steps.push(self.announce(new, row).await?);
                let what = if self.how.hurry { "do" } else { "announce" };
                (steps.len() - 1, what, due_ms)
            }
            Order::Act(id) => match of(id) {
                Some(i) => (i, "do", now_ms),
                None => return Ok(()),
            },
            Order::Drop(id) | Order::Undo(id) => {
                let Some(i) = of(id) else { return Ok(()) };
                let is_done = steps[i].done_ms.is_some();
                (i, if is_done { "undo" } else { "drop" }, now_ms)
            }
        };
        let step = steps[i].clone();
        passed.actions.push(Action {
            container: step.container.clone(),
            user: step.user.clone(),
            dimension: self.violation.dimension,
            step: step.step,
            what,
            reason: reason(&self.violation),
            at_ms,
        });
        if self.how.dry_run {
            return Ok(());
        }
        match what {
            // Frozen already, and not by Plimsoll: it must not be thawed for its owner.
            "do" if step.step == Step::Pause && self.is_paused(&step).await => {
                self.turn(&step, Turned::Ended).await?;
            }
            "do" => {
                self.turn(&step, Turned::Done).await?;
                steps[i].done_ms = Some(now_ms);
                self.app.wake.caps.notify_one();
            }
            "undo" => match self.take_back(&step).await {
                Ok(()) => {
                    self.turn(&step, Turned::Ended).await?;
                    self.app.wake.caps.notify_one();
                }
                Err(error) => passed.failed.push(failure(&step, &error)),
            },
            "drop" => self.turn(&step, Turned::Ended).await?,
            _ => {}
        }
        Ok(())
    }

    async fn announce(&self, new: NewStep, row: &Reservation) -> Result<StepRecord, StoreError> {
        let now_ms = self.app.clock.now_ms();
        let planned = StepRecord {
            id: Uuid::nil(),
            violation: new.violation,
            reservation: new.reservation,
            container: row.called().to_owned(),
            user: row.user_name.clone(),
            step: new.step,
            frees: new.frees,
            to: new.to,
            announced_ms: now_ms,
            due_ms: new.due_ms,
            done_ms: None,
            ended_ms: None,
        };
        if self.how.dry_run {
            return Ok(planned);
        }
        let event = self.event(&planned, row, EventKind::StepAnnounced);
        let actor = self.app.itself(Some(&reason(&self.violation)));
        self.app.store.announce(new, event, actor).await
    }

    async fn turn(&self, step: &StepRecord, turned: Turned) -> Result<(), StoreError> {
        let row = self.app.store.reservation(step.reservation)?;
        let kind = match (turned, step.done_ms) {
            (Turned::Ended, None) => EventKind::StepAnnounced,
            _ => EventKind::StepDone,
        };
        let mut event = self.event(step, &row, kind);
        event.resolved = turned == Turned::Ended;
        event.title = match (turned, step.done_ms) {
            (Turned::Done, _) => format!("{} is {}", subject(step), step.step.done()),
            (Turned::Ended, None) => format!("{} is not {}", subject(step), step.step.done()),
            (Turned::Ended, Some(_)) if step.step == Step::Stop => {
                format!("{} may be started again", subject(step))
            }
            (Turned::Ended, Some(_)) => {
                format!("{} is no longer {}", subject(step), step.step.done())
            }
        };
        let why = match turned {
            Turned::Done => reason(&self.violation),
            Turned::Ended => "the limit does not call for it any more".to_owned(),
        };
        tracing::info!(
            container = step.container,
            user = step.user,
            step = step.step.name(),
            ?turned,
            why
        );
        let actor = self.app.itself(Some(&why));
        self.app
            .store
            .turn_step(step, turned, Some(event), actor)
            .await
    }

    /// What people are told of a step.
    fn event(&self, step: &StepRecord, row: &Reservation, kind: EventKind) -> Event {
        let v = &self.violation;
        let about = match row.team {
            Some(team) => About::member(team, row.user, &row.user_name),
            None => About::user(row.user, &row.user_name),
        };
        let title = format!(
            "{} will be {} at {}",
            subject(step),
            step.step.done(),
            in_seconds(step.due_ms)
        );
        let d = v.dimension;
        let mut event = Event::new(kind, about, title, "/mine", v.opened_ms)
            .figure("why", reason(v))
            .figure("frees", d.show(step.frees))
            .advice(format!("{}: {}", help(v), command(step)));
        event.dimension = Some(d);
        event.severity = Severity::Warning;
        event.stops = step.step == Step::Stop;
        event
    }

    /// Makes the engine's containers what the steps say: those that were done just now, and those that
    /// something else has set in motion since. Returns what could not be done.
    async fn make_sure(&self, orders: &[Order], steps: &[StepRecord]) -> Vec<String> {
        let undone = |s: &StepRecord| orders.contains(&Order::Undo(s.id));
        let mine = steps
            .iter()
            .filter(|s| s.violation == self.violation.id && s.done_ms.is_some() && !undone(s));
        let sure = mine.map(|step| async move {
            let held = self.hold(step).await;
            held.err().map(|error| failure(step, &error))
        });
        join_all(sure).await.into_iter().flatten().collect()
    }

    async fn hold(&self, step: &StepRecord) -> Result<(), SettleError> {
        match step.step {
            // The caps' task holds containers to it.
            Step::Throttle => Ok(()),
            Step::Pause => {
                self.with(step, async |id, seen| {
                    if seen.state.running && !seen.state.paused {
                        self.app.engine.pause(id).await?;
                    }
                    Ok(())
                })
                .await
            }
            Step::Stop => {
                self.with(step, async |id, seen| {
                    if seen.holds_runtime() {
                        self.stop(step, id, &seen).await?;
                        settle_locked(self.app, id).await?;
                    }
                    Ok(())
                })
                .await
            }
        }
    }

    /// Stops a container for good: the engine does not start it again by itself, and kills it where it
    /// takes longer than it may.
    async fn stop(
        &self,
        step: &StepRecord,
        id: &str,
        seen: &ContainerInspect,
    ) -> Result<(), SettleError> {
        let engine = &self.app.engine;
        let policy = &seen.host_config.restart_policy;
        if matches!(policy.name.as_str(), "always" | "on-failure") {
            let kept = serde_json::to_string(policy).ok();
            self.app.store.keep_restart(step.reservation, kept).await?;
            engine.update(id, &restarts(no_restart())).await?;
        }
        if seen.state.paused {
            engine.unpause(id).await?;
        }
        let own = seen.config.stop_timeout.unwrap_or(STOP_TIMEOUT_S);
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        let most = self.app.config.ladder.stop_timeout_s;
        engine
            .stop(id, Some(Duration::from_secs(own.min(most))))
            .await?;
        Ok(())
    }

    async fn take_back(&self, step: &StepRecord) -> Result<(), SettleError> {
        if step.step != Step::Pause {
            return Ok(());
        }
        self.with(step, async |id, seen| {
            if seen.state.paused {
                self.app.engine.unpause(id).await?;
            }
            Ok(())
        })
        .await
    }

    /// An engine that does not say is asked again when it is to be done.
    async fn is_paused(&self, step: &StepRecord) -> bool {
        let row = self.app.store.reservation(step.reservation);
        let Some(id) = row.ok().and_then(|row| row.container) else {
            return false;
        };
        let seen = self.app.engine.inspect(&id).await;
        seen.is_ok_and(|seen| seen.is_some_and(|seen| seen.state.paused))
    }

    /// Does something to the step's container, if it is there, under its locks; not while its files are
    /// on their way, which must keep nobody else waiting.
    async fn with(
        &self,
        step: &StepRecord,
        work: impl AsyncFnOnce(&str, ContainerInspect) -> Result<(), SettleError>,
    ) -> Result<(), SettleError> {
        let Some(id) = self.app.store.reservation(step.reservation)?.container else {
            return Ok(());
        };
        let locks = async {
            let moves = self.app.standstill.share(&id).await;
            (moves, self.app.container_locks.lock(&id).await)
        };
        let Ok(_held) = tokio::time::timeout(LOCKED_MAX, locks).await else {
            return Err(SettleError::Held);
        };
        match self.app.engine.inspect(&id).await? {
            Some(seen) => work(&id, seen).await,
            None => Ok(()),
        }
    }
}

fn no_restart() -> RestartPolicy {
    RestartPolicy {
        name: "no".to_owned(),
        maximum_retry_count: 0,
    }
}

fn restarts(policy: RestartPolicy) -> ResourceUpdate {
    ResourceUpdate {
        restart_policy: Some(policy),
        ..ResourceUpdate::default()
    }
}

/// Gives a container that its owner has started the restart policy back that it was stopped with.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn restart_again(app: &App, row: &Reservation) -> Result<(), SettleError> {
    let Some(kept) = app.store.kept_restart(row.id)? else {
        return Ok(());
    };
    if let (Some(id), Ok(policy)) = (&row.container, serde_json::from_str(&kept)) {
        app.engine.update(id, &restarts(policy)).await?;
    }
    app.store.keep_restart(row.id, None).await?;
    Ok(())
}

/// Why a container is kept paused or stopped and what would help, for its owner; `None` where it is not.
///
/// # Errors
/// When the ledger cannot be read.
pub fn kept_down(app: &App, row: &Reservation) -> Result<Option<String>, StoreError> {
    let kept = app.store.kept_down(row.id)?;
    Ok(kept.map(|(step, v)| {
        format!(
            "{} was {} at {}: {}\n  to go on: {}, or ask for more: docker quota request",
            step.container,
            step.step.done(),
            in_seconds(step.done_ms.unwrap_or(step.due_ms)),
            reason(&v),
            help(&v)
        )
    }))
}

/// What is exceeded, in words.
#[must_use]
pub fn reason(v: &ViolationRecord) -> String {
    let verb = match v.kind {
        ViolationKind::Reserved => "has reserved",
        ViolationKind::Used => "uses",
        ViolationKind::Held | ViolationKind::Throttled => "is held at",
    };
    let d = v.dimension;
    if d == Dimension::Idle {
        let (idle, limit) = (d.show(v.current), d.show(v.limit));
        return format!(
            "of {} something does nothing for {idle}, the limit is {limit}",
            v.name
        );
    }
    format!(
        "{} {} {verb} {} of {d}, the limit is {}",
        v.level,
        v.name,
        d.show(v.current),
        d.show(v.limit)
    )
}

fn help(v: &ViolationRecord) -> String {
    let d = v.dimension;
    let over = v.current.saturating_sub(v.limit);
    format!("free {} of {d}", d.show(over))
}

fn command(step: &StepRecord) -> String {
    format!("docker stop {}", step.container)
}

fn subject(step: &StepRecord) -> String {
    format!("{} of {}", step.container, step.user)
}

fn failure(step: &StepRecord, error: &SettleError) -> String {
    format!("{}: {}", subject(step), in_full(error))
}
