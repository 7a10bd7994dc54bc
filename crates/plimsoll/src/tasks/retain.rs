//! Forgets decisions, ended reservations and closed violations that are older than the configuration keeps them. What
//! was counted of them stays counted.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_store::StoreError;

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
    } = forgotten;
    Ok(format!(
        "forgot {reservations} reservations, {decisions} decisions and {violations} violations"
    ))
}

async fn forget(app: &App) -> Result<Forgotten, StoreError> {
    let kept = &app.config.retention;
    let before_ms = |days: u64| {
        let kept_ms = i64::try_from(days).map_or(i64::MAX, |days| days.saturating_mul(DAY_MS));
        app.clock.now_ms().saturating_sub(kept_ms)
    };
    let mut forgotten = Forgotten::default();
    let mut next = None;
    // Reservations first: a decision may have stayed for one of them only.
    loop {
        let before_ms = before_ms(kept.reservations_days);
        let step = app.store.forget_reservations(before_ms, next).await?;
        forgotten.reservations += step.rows;
        next = step.next;
        if next.is_none() {
            break;
        }
    }
    loop {
        let before_ms = before_ms(kept.decisions_days);
        let step = app.store.forget_decisions(before_ms, next).await?;
        forgotten.decisions += step.rows;
        next = step.next;
        if next.is_none() {
            break;
        }
    }
    loop {
        let before_ms = before_ms(kept.violations_days);
        let step = app.store.forget_violations(before_ms, next).await?;
        forgotten.violations += step.rows;
        next = step.next;
        if next.is_none() {
            return Ok(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::entity::{DecisionId, ReservationId, UserId};
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
        let user = app.store.add_user(ada, actor).await.unwrap().id;
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
            (89, "forgot 0 reservations, 0 decisions and 0 violations"),
            (2, "forgot 0 reservations, 1 decisions and 0 violations"),
            (308, "forgot 0 reservations, 0 decisions and 0 violations"),
            (2, "forgot 1 reservations, 0 decisions and 0 violations"),
            (1000, "forgot 0 reservations, 0 decisions and 0 violations"),
        ] {
            clock.advance(DAY * days_later);
            assert_eq!(run(Arc::clone(&app)).await.unwrap(), said, "{days_later}");
        }
        assert!(app.store.reservation(lives).is_ok());
    }
}
