//! Holds the ledger against the engine and mends every difference.
//!
//! A list judges only rows that were unchanged since before it began; whether a container is really
//! gone is confirmed by an inspect under its lock.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_core::State;
use plimsoll_core::entity::ReservationId;
use plimsoll_host::engine::ContainerSummary;
use plimsoll_store::{Origin, Reservation, ReservationFilter, StoreError};

use crate::engine_facts::engine_facts;
use crate::folders;
use crate::labels;
use crate::metering::found;
use crate::settle::settle;
use crate::state::App;
use crate::tasks::{in_full, networks};

/// The name under which the task reports.
pub const NAME: &str = "reconcile";

/// What one comparison found and mended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Containers compared.
    pub compared: usize,
    /// Rows whose state or claim followed the engine.
    pub settled: usize,
    /// Containers that were created, but whose commit was lost.
    pub bound: usize,
    /// Volumes whose rows followed the engine, or that went with their container.
    pub volumes: usize,
    /// Containers whose folders of the host were mounted or taken away.
    pub mounts: usize,
    /// Reservations whose container never came.
    pub voided: usize,
    /// Users and teams that finished draining.
    pub drained: usize,
}

/// One comparison, as a background task.
///
/// # Errors
/// In words, when the engine or the ledger cannot be asked.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let mended = reconcile(&app).await?;
    let images = super::images::reconcile(&app)
        .await
        .map_err(|e| in_full(&e))?;
    if images.changes() > 0 {
        tracing::info!(?images, "mended the images");
    }
    let changes = mended.settled
        + mended.bound
        + mended.volumes
        + mended.mounts
        + mended.voided
        + mended.drained;
    if changes > 0 {
        tracing::info!(?mended, "mended the ledger");
    }
    Ok(format!(
        "compared {} containers: {} settled, {} bound late, {} voided, {} drained; {} volumes, {} mounts",
        mended.compared,
        mended.settled,
        mended.bound,
        mended.voided,
        mended.drained,
        mended.volumes,
        mended.mounts
    ))
}

async fn reconcile(app: &Arc<App>) -> Result<Mended, String> {
    engine_facts(app).await.map_err(|e| in_full(&e))?;
    let began_ms = app.clock.now_ms();
    let mut listed = app.engine.list(true, &[]).await.map_err(|e| in_full(&e))?;
    found::confirm(app, &listed)
        .await
        .map_err(|e| in_full(&e))?;
    listed.retain(|container| labels::is_of(&app.instance, &container.labels));
    let filter = ReservationFilter {
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let rows = app
        .store
        .reservations(filter)
        .await
        .map_err(|e| in_full(&e))?;
    let mut mended = Mended {
        compared: listed.len(),
        ..Mended::default()
    };

    let seen: HashMap<&str, &ContainerSummary> =
        listed.iter().map(|c| (c.id.as_str(), c)).collect();
    for row in &rows {
        if row.changed_ms >= began_ms || app.in_flight.contains(row.id) {
            continue;
        }
        match &row.container {
            Some(container) if agrees(row, seen.get(container.as_str()).copied()) => {}
            Some(container) => {
                let settled = settle(app, container).await.map_err(|e| in_full(&e))?;
                mended.settled += usize::from(settled.is_some_and(|now| now != *row));
            }
            None => {
                let expired = row.expires_ms.is_some_and(|at| at < began_ms);
                let came = listed
                    .iter()
                    .any(|c| labels::reservation(&c.labels) == Some(row.id));
                if expired && !came {
                    app.store
                        .void(row.id, began_ms)
                        .await
                        .map_err(|e| in_full(&e))?;
                    mended.voided += 1;
                }
            }
        }
    }
    for container in &listed {
        mended.bound += usize::from(bind(app, container).await?);
    }
    mended.settled += networks::reconcile(app).await?;
    mended.volumes = super::volumes::reconcile(app, began_ms).await?;
    mended.mounts = folders::reconcile(app, began_ms).await?;
    let gone = app
        .store
        .finish_drains(app.itself(None))
        .await
        .map_err(|e| in_full(&e))?;
    mended.drained = gone.len();
    if mended.drained > 0 {
        // A user's certificates go with them.
        app.certs_changed.send_replace(());
    }
    Ok(mended)
}

/// Whether the list shows what the row charges. Rows that the engine may start by itself, those
/// not yet started and those that share a charge are looked at more closely each time.
fn agrees(row: &Reservation, seen: Option<&ContainerSummary>) -> bool {
    let runs =
        seen.is_some_and(|c| matches!(c.state.as_str(), "running" | "paused" | "restarting"));
    match row.state {
        _ if row.shared.is_some() => false,
        State::Active => runs,
        State::Stopped => seen.is_some() && !runs,
        State::Pending | State::Released | State::Void => false,
    }
}

/// The row that an object's label names, unless its making is under way.
pub(super) fn row_of(app: &App, key: Option<ReservationId>) -> Result<Option<Reservation>, String> {
    let Some(id) = key.filter(|id| !app.in_flight.contains(*id)) else {
        return Ok(None);
    };
    match app.store.reservation(id) {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(in_full(&error)),
    }
}

/// Binds a container whose commit was lost to its reservation: the key on it binds once, to one
/// container. Anything else that carries a key is a copy, and not ours.
async fn bind(app: &App, container: &ContainerSummary) -> Result<bool, String> {
    let Some(row) = row_of(app, labels::reservation(&container.labels))? else {
        return Ok(false);
    };
    let ours = row.origin == Origin::Gateway && row.host == app.lease.host;
    if !ours || row.container.is_some() || row.state == State::Released {
        return Ok(false);
    }
    let id_text = container.id.as_str().to_owned();
    {
        let _held = app.container_locks.lock(&id_text).await;
        if app
            .engine
            .inspect(&id_text)
            .await
            .map_err(|e| in_full(&e))?
            .is_none()
        {
            return Ok(false);
        }
        let bound = app
            .store
            .bound(row.id, id_text.clone(), State::Active, app.clock.now_ms())
            .await;
        match bound {
            Ok(_) => {}
            // The commit was only slow.
            Err(StoreError::Conflict(_)) => return Ok(false),
            Err(error) => return Err(in_full(&error)),
        }
    }
    settle(app, &id_text).await.map_err(|e| in_full(&e))?;
    Ok(true)
}
