//! Volumes: what the ledger charges against what the engine has, and those that go with a container.

use std::collections::HashMap;

use plimsoll_core::State;
use plimsoll_core::entity::{ReservationId, UserId};
use plimsoll_host::engine::EngineError;
use plimsoll_store::{ObjectKind, Reservation, ReservationFilter, StoreError};

use crate::gateway::engine_name;
use crate::labels;
use crate::state::App;
use crate::tasks::in_full;
use crate::tasks::reconcile::row_of;

/// A volume could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The engine did not remove it.
    #[error("the engine keeps the volume")]
    Engine(#[from] EngineError),
    /// The ledger did not take it.
    #[error("the ledger could not be brought up to date")]
    Store(#[from] StoreError),
}

/// Removes a volume from the engine and then its charge; one that is gone already counts as removed.
///
/// # Errors
/// [`RemoveError`], such as the engine's 409 for one that a container uses.
pub async fn remove(app: &App, volume: &Reservation, force: bool) -> Result<(), RemoveError> {
    if let Some(name) = &volume.container {
        app.engine.remove_volume(name, force).await?;
    }
    app.store.release(volume.id, app.clock.now_ms()).await?;
    Ok(())
}

/// The lock under which a volume is made, mounted and removed.
#[must_use]
pub fn lock_name(user: UserId, name: &str) -> String {
    format!("volume {user} {name}")
}

/// Removes the volumes whose container has ended. One that another container uses stays, and so does
/// one that is about to be: the engine would make it anew for that container, and nobody would pay for
/// it. Returns how many went.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn sweep(app: &App) -> Result<usize, StoreError> {
    let mut gone = 0;
    for volume in app.store.volumes_to_go(&app.lease.host)? {
        let name = volume.container_name.as_deref().unwrap_or_default();
        let lock = lock_name(volume.user, name);
        // Not waited for: whoever holds it may be long, and the caller may hold a container's.
        let Some(_held) = app.container_locks.try_lock(&lock) else {
            continue;
        };
        match remove(app, &volume, false).await {
            Ok(()) => gone += 1,
            Err(error) => tracing::debug!(
                volume = volume.container,
                error = in_full(&error),
                "a volume stays for now"
            ),
        }
    }
    Ok(gone)
}

/// Brings the ledger to what the engine has, as of a list that began at `began_ms`. Returns how many
/// rows changed.
///
/// # Errors
/// In words, when the engine or the ledger cannot be asked.
pub async fn reconcile(app: &App, began_ms: i64) -> Result<usize, String> {
    let words = |error: StoreError| in_full(&error);
    let label = app.instance_label();
    let listed = app.engine.volumes(&[&label]).await;
    let listed: HashMap<String, Option<ReservationId>> = listed
        .map_err(|e| in_full(&e))?
        .into_iter()
        .map(|volume| (volume.name, labels::reservation(&volume.labels)))
        .collect();
    let filter = ReservationFilter {
        kind: ObjectKind::Volume,
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let mut changed = 0;
    for row in app.store.reservations(filter).await.map_err(words)? {
        if row.changed_ms >= began_ms || app.in_flight.contains(row.id) {
            continue;
        }
        match &row.container {
            Some(name) if listed.contains_key(name) => {}
            // Absence is confirmed, because a list can be older than the volume.
            Some(name) => {
                if app
                    .engine
                    .volume(name)
                    .await
                    .map_err(|e| in_full(&e))?
                    .is_none()
                {
                    app.store.release(row.id, began_ms).await.map_err(words)?;
                    changed += 1;
                }
            }
            None => {
                let expired = row.expires_ms.is_some_and(|at| at < began_ms);
                if expired && !listed.contains_key(&engine_name(&row)) {
                    app.store.void(row.id, began_ms).await.map_err(words)?;
                    changed += 1;
                }
            }
        }
    }
    for (name, key) in listed {
        changed += usize::from(bind(app, name, key).await?);
    }
    changed += sweep(app).await.map_err(words)?;
    Ok(changed)
}

/// Charges a volume whose commit was lost, or that is there although its row has ended.
async fn bind(app: &App, name: String, key: Option<ReservationId>) -> Result<bool, String> {
    let Some(row) = row_of(app, key)? else {
        return Ok(false);
    };
    let ours = row.kind == ObjectKind::Volume
        && row.host == app.lease.host
        && engine_name(&row) == name
        && (row.container.is_none() || row.state.is_final());
    if !ours
        || app
            .engine
            .volume(&name)
            .await
            .map_err(|e| in_full(&e))?
            .is_none()
    {
        return Ok(false);
    }
    let now_ms = app.clock.now_ms();
    let bound = app.store.bound(row.id, name, State::Active, now_ms).await;
    match bound {
        Ok(_) => Ok(true),
        // The commit was only slow.
        Err(StoreError::Conflict(_)) => Ok(false),
        Err(error) => Err(in_full(&error)),
    }
}
