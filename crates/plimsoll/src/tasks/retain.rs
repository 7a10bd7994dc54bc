//! Forgets decisions, ended reservations, closed violations and notices that are older than the
//! configuration keeps them. What was counted of them stays counted.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_store::{Channels, Forgotten as Step, StoreError};
use uuid::Uuid;

use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "retention";

/// How often it looks.
pub const EVERY: Duration = Duration::from_hours(1);

const DAY_MS: i64 = 86_400_000;

/// What one pass forgot.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Reservations that had ended.
    pub reservations: usize,
    /// Decisions on which no reservation rests.
    pub decisions: usize,
    /// Violations that have closed.
    pub violations: usize,
    /// What people were told.
    pub notices: usize,
}

/// One pass, as a background task.
///
/// # Errors
/// In words, when the ledger cannot be written.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let forgotten = forget(&app).await.map_err(|e| in_full(&e))?;
    if forgotten != Forgotten::default() {
        tracing::info!(?forgotten, "forgot what is old");
    }
    let Forgotten {
        reservations,
        decisions,
        violations,
        notices,
    } = forgotten;
    Ok(format!(
        "forgot {reservations} reservations, {decisions} decisions, {violations} violations and \
         {notices} notices"
    ))
}

async fn forget(app: &App) -> Result<Forgotten, StoreError> {
    let kept = &app.config.retention;
    let before_ms = |days: u64| {
        let kept_ms = i64::try_from(days).map_or(i64::MAX, |days| days.saturating_mul(DAY_MS));
        app.clock.now_ms().saturating_sub(kept_ms)
    };
    let store = &app.store;
    // What no channel was there for is not on its way.
    store
        .spread(Channels::default(), app.clock.now_ms())
        .await?;
    let old = before_ms(kept.reservations_days);
    // Reservations first: a decision may have stayed for one of them only.
    let reservations = each(|after| store.forget_reservations(old, after)).await?;
    let old = before_ms(kept.decisions_days);
    let decisions = each(|after| store.forget_decisions(old, after)).await?;
    let old = before_ms(kept.violations_days);
    let violations = each(|after| store.forget_violations(old, after)).await?;
    let old = before_ms(kept.notices_days);
    let notices = each(|after| store.forget_notices(old, after)).await?;
    Ok(Forgotten {
        reservations,
        decisions,
        violations,
        notices,
    })
}

/// All steps of one kind. Returns how much they forgot.
async fn each<S>(step: impl Fn(Option<Uuid>) -> S) -> Result<usize, StoreError>
where
    S: Future<Output = Result<Step, StoreError>>,
{
    let (mut rows, mut after) = (0, None);
    loop {
        let done = step(after).await?;
        rows += done.rows;
        after = done.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::entity::{DecisionId, ReservationId, UserId};
    use plimsoll_core::notice::{About, Event, EventKind};
    use plimsoll_store::{Actor, Claim, NewReservation, NewUser, Origin, Role, TeamChoice};

    use super::*;
    use crate::clock::{Clock, new_id};
    use crate::config::Config;

    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn each_kind_is_kept_for_its_own_time() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let clock = Clock::default();
        let app = crate::serve::build(config, clock.clone()).await.unwrap();
        let ada = NewUser {
            id: UserId(new_id()),
            name: "ada".parse().unwrap(),
            email: None,
            os_uid: None,
            role: Role::Member,
            class: None,
        };
        let actor = Actor {
            name: "test".into(),
            at_ms: clock.now_ms(),
            reason: None,
        };
        let user = app.store.add_user(ada, actor.clone()).await.unwrap().id;
        let about = About::user(user, "ada");
        let event = Event::new(EventKind::Test, about, "a test", "/mine", clock.now_ms());
        app.store.notify("test".into(), event, actor).await.unwrap();
        let reserve = || {
            let claim = Claim {
                user,
                team: TeamChoice::NoTeam,
                project: None,
                host: app.lease.host.clone(),
                amounts: plimsoll_core::Amounts::ZERO,
            };
            app.store.reserve(NewReservation {
                id: ReservationId(new_id()),
                kind: plimsoll_store::ObjectKind::Container,
                goes_with: None,
                host_mounts: Vec::new(),
                replaces: None,
                decision: DecisionId(new_id()),
                claim,
                origin: Origin::Api,
                idempotency: None,
                container_name: None,
                image: None,
                expires_ms: clock.now_ms() + 1000,
                now_ms: clock.now_ms(),
            })
        };
        let ended = reserve().await.unwrap().reservation.unwrap().id;
        let lives = reserve().await.unwrap().reservation.unwrap().id;
        app.store.void(ended, clock.now_ms()).await.unwrap();

        for (days_later, said) in [
            (
                89,
                "forgot 0 reservations, 0 decisions, 0 violations and 0 notices",
            ),
            (
                2,
                "forgot 0 reservations, 1 decisions, 0 violations and 1 notices",
            ),
            (
                308,
                "forgot 0 reservations, 0 decisions, 0 violations and 0 notices",
            ),
            (
                2,
                "forgot 1 reservations, 0 decisions, 0 violations and 0 notices",
            ),
            (
                1000,
                "forgot 0 reservations, 0 decisions, 0 violations and 0 notices",
            ),
        ] {
            clock.advance(DAY * days_later);
            assert_eq!(run(Arc::clone(&app)).await.unwrap(), said, "{days_later}");
        }
        assert!(app.store.reservation(lives).is_ok());
    }
}
