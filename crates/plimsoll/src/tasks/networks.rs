//! Holds the ledger's networks against the engine's: what is gone is released, what was made and not
//! committed is bound, what never came is voided, and nobody's is removed.

use plimsoll_core::State;
use plimsoll_core::entity::UserId;
use plimsoll_host::engine::Network;
use plimsoll_store::{ObjectKind, Origin, Reservation, ReservationFilter, StoreError};
use tokio::sync::OwnedMutexGuard;

use crate::gateway::engine_name;
use crate::labels;
use crate::settle::SettleError;
use crate::state::App;
use crate::tasks::in_full;
use crate::tasks::reconcile::row_of;

/// One at a time may make, remove or settle a user's networks.
pub async fn lock(app: &App, user: UserId) -> OwnedMutexGuard<()> {
    app.container_locks.lock(&format!("networks:{user}")).await
}

/// What became of a network: its row as it stands now. The caller holds the user's [`lock`].
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn settle(app: &App, row: &Reservation) -> Result<Reservation, SettleError> {
    let now_ms = app.clock.now_ms();
    if let Some(id) = &row.container {
        return Ok(match app.engine.network(id).await? {
            Some(_) => row.clone(),
            None => app.store.release(row.id, now_ms).await?,
        });
    }
    // It was made under this name with this key, or not at all: nobody else makes it meanwhile.
    let seen = app.engine.network(&engine_name(row)).await?;
    let ours = seen
        .filter(|n| n.name == engine_name(row) && labels::reservation(&n.labels) == Some(row.id));
    Ok(match ours {
        Some(network) => {
            app.store
                .bound(row.id, network.id, State::Active, now_ms)
                .await?
        }
        None => app.store.void(row.id, now_ms).await?,
    })
}

/// One comparison; returns how many differences were mended.
///
/// # Errors
/// In words, when the engine or the ledger cannot be asked.
pub async fn reconcile(app: &App) -> Result<usize, String> {
    let began_ms = app.clock.now_ms();
    let label = app.instance_label();
    let listed = app.engine.networks(&[&label]).await;
    let listed = listed.map_err(|e| in_full(&e))?;
    let mut mended = 0;
    for row in rows(app, None).await.map_err(|e| in_full(&e))? {
        let agrees = match &row.container {
            Some(id) => listed.iter().any(|n| n.id == *id),
            // Not there yet, and still expected.
            None => {
                let came = listed
                    .iter()
                    .any(|n| labels::reservation(&n.labels) == Some(row.id));
                !came && row.expires_ms.is_none_or(|at| at >= began_ms)
            }
        };
        if agrees || row.changed_ms >= began_ms || app.in_flight.contains(row.id) {
            continue;
        }
        let _held = lock(app, row.user).await;
        let row = app.store.reservation(row.id).map_err(|e| in_full(&e))?;
        if row.state.is_final() {
            continue;
        }
        let now = settle(app, &row).await.map_err(|e| in_full(&e))?;
        mended += usize::from(now != row);
    }
    for network in &listed {
        mended += usize::from(orphan(app, network).await?);
    }
    let users = app.store.users().await.map_err(|e| in_full(&e))?;
    for user in users.iter().filter(|user| user.draining) {
        mended += leave(app, user.id).await.map_err(|e| in_full(&e))?;
    }
    Ok(mended)
}

/// Removes a network that came after its reservation had ended: nobody could reach it any more.
async fn orphan(app: &App, network: &Network) -> Result<bool, String> {
    let Some(row) = row_of(app, labels::reservation(&network.labels))? else {
        return Ok(false);
    };
    let owner = network.labels.get(labels::USER);
    let ours = row.kind == ObjectKind::Network
        && row.origin == Origin::Gateway
        && row.host == app.lease.host
        && owner.is_some_and(|owner| *owner == row.user.to_string());
    if !ours || !row.state.is_final() {
        return Ok(false);
    }
    // One with a container in it stays, for the administrator to see.
    Ok(app.engine.remove_network(&network.id).await.is_ok())
}

/// Removes every network of a user who holds no container any more, so that none is in the way of
/// their own end. Returns how many are gone.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn leave(app: &App, user: UserId) -> Result<usize, SettleError> {
    let filter = ReservationFilter {
        user: Some(user),
        ..Default::default()
    };
    if !app.store.reservations(filter).await?.is_empty() {
        return Ok(0);
    }
    let _held = lock(app, user).await;
    let mut gone = 0;
    for row in rows(app, Some(user)).await? {
        let row = settle(app, &row).await?;
        let Some(id) = row.container.as_ref().filter(|_| !row.state.is_final()) else {
            continue;
        };
        if let Err(error) = app.engine.remove_network(id).await {
            tracing::warn!(network = id, error = in_full(&error), "a network stays");
            continue;
        }
        app.store.release(row.id, app.clock.now_ms()).await?;
        gone += 1;
    }
    Ok(gone)
}

/// The live networks of this host.
async fn rows(app: &App, user: Option<UserId>) -> Result<Vec<Reservation>, StoreError> {
    let filter = ReservationFilter {
        kind: ObjectKind::Network,
        user,
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    app.store.reservations(filter).await
}
