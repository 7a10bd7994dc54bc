//! What the engine shows of a container becomes what the ledger charges.
//!
//! Events, answers and lists are only reasons to look; the look is an inspect, under the container's
//! lock. Doing it twice changes nothing.

use plimsoll_core::State;
use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::ReservationId;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::engine::{ContainerInspect, EngineError};
use plimsoll_store::{Reservation, StoreError};

use crate::folders;
use crate::ladder;
use crate::state::App;
use crate::tasks::in_full;

/// Something the engine holds could not be settled; the reconciler will try again.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The engine did not say.
    #[error("the engine could not be asked")]
    Engine(#[from] EngineError),
    /// Something else is done to it, and takes its time.
    #[error("its files are being copied, or it is being changed")]
    Held,
    /// The ledger did not take it.
    #[error("the ledger could not be brought up to date")]
    Store(#[from] StoreError),
}

/// Settles one container of this host under its lock. Returns its reservation as it stands now;
/// `None` for a container that is not charged.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn settle(app: &App, container: &str) -> Result<Option<Reservation>, SettleError> {
    let _held = app.container_locks.lock(container).await;
    settle_locked(app, container).await
}

/// [`settle`] for a caller that holds the container's lock.
///
/// # Errors
/// As [`settle`].
pub async fn settle_locked(app: &App, container: &str) -> Result<Option<Reservation>, SettleError> {
    let Some(reservation) = app.store.by_container(&app.lease.host, container)? else {
        return Ok(None);
    };
    if reservation.state.is_final() {
        return Ok(Some(reservation));
    }
    let now_ms = app.clock.now_ms();
    let Some(seen) = app.engine.inspect(container).await? else {
        let released = app.store.release(reservation.id, now_ms).await?;
        crate::tasks::volumes::sweep(app).await?;
        if !released.host_mounts.is_empty()
            && let Err(error) = folders::clear(&app.config, released.id).await
        {
            tracing::warn!(error = in_full(&error), "left to the reconciler");
        }
        return Ok(Some(released));
    };
    let claim = seen_claim(&seen, &reservation.claim);
    let reservation = if claim == reservation.claim {
        reservation
    } else {
        app.store.resized(reservation.id, claim, now_ms).await?
    };
    let unstarted_ms =
        i64::try_from(app.config.reservations.unstarted_s * 1000).unwrap_or(i64::MAX);
    let reservation = settle_shared(app, &seen, reservation, now_ms, unstarted_ms).await?;
    let state = seen_state(&seen, &reservation, now_ms, unstarted_ms);
    Ok(Some(match (reservation.state, state) {
        (State::Active, State::Stopped) => app.store.stopped(reservation.id, now_ms).await?,
        (State::Stopped, State::Active) => {
            let running = app.store.running(reservation.id, now_ms).await?;
            // By whichever door it was started.
            Box::pin(ladder::restart_again(app, &running)).await?;
            running
        }
        _ => reservation,
    }))
}

/// Ends what a container shares with the one it replaces where both run, or where it has taken its time:
/// two that stay are charged as two.
async fn settle_shared(
    app: &App,
    seen: &ContainerInspect,
    reservation: Reservation,
    now_ms: i64,
    unstarted_ms: i64,
) -> Result<Reservation, SettleError> {
    let Some(shared) = reservation.shared else {
        return Ok(reservation);
    };
    let late = now_ms - reservation.created_ms >= unstarted_ms;
    let both_run = seen.state.occupies()
        && reservation.runs_instead_of().is_some()
        && runs(app, shared.with).await?;
    if !late && !both_run {
        return Ok(reservation);
    }
    Ok(app.store.beside(reservation.id, late, now_ms).await?)
}

/// Whether the container of a reservation runs now.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn runs(app: &App, id: ReservationId) -> Result<bool, SettleError> {
    let Some(container) = app.store.reservation(id)?.container else {
        return Ok(false);
    };
    let seen = app.engine.inspect(&container).await?;
    Ok(seen.is_some_and(|seen| seen.state.occupies()))
}

/// What a container that exists charges: everything while it runs, may run by itself, or was just
/// created and is about to be started.
fn seen_state(
    seen: &ContainerInspect,
    reservation: &Reservation,
    now_ms: i64,
    unstarted_ms: i64,
) -> State {
    let fresh = seen.state.started_at.is_none()
        && seen.state.status == "created"
        && seen.state.error.is_empty()
        && now_ms - reservation.created_ms < unstarted_ms
        && reservation.state == State::Active;
    if seen.holds_runtime() || fresh {
        State::Active
    } else {
        State::Stopped
    }
}

/// The claim as the engine holds it: CPU, memory and pids can be changed behind Plimsoll's back.
/// A limit the engine does not report stays as it was charged.
fn seen_claim(seen: &ContainerInspect, charged: &Amounts) -> Amounts {
    let mut claim = *charged;
    let host = &seen.host_config;
    if let Ok(nano) = u64::try_from(host.nano_cpus)
        && nano > 0
    {
        claim[Dimension::Cpu] = MilliCpu::from_nano(nano).0;
    }
    if let Ok(memory) = u64::try_from(host.memory)
        && memory > 0
    {
        claim[Dimension::Memory] = memory;
    }
    if let Some(pids) = host
        .pids_limit
        .and_then(|p| u64::try_from(p).ok())
        .filter(|p| *p > 0)
    {
        claim[Dimension::Pids] = pids;
    }
    claim
}
