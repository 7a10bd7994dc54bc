//! Reads what containers use, again and again, and holds it against limits.

use std::sync::Arc;

use plimsoll_core::Dimension;
use plimsoll_core::admit::LevelKind;
use plimsoll_core::entity::EntityKind;
use plimsoll_store::{Measured, StoreError};

use crate::engine_facts::engine_facts;
use crate::meter::Whose;
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "collector";

/// Measured use counts as over a limit from this many thousandths of it on: readings of a container
/// held at its cap waver by a few percent.
const OVER_PERMILLE: u64 = 1050;

/// One reading of everything.
///
/// # Errors
/// In words, when the engine was never reached, or the ledger or the metrics cannot be used.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let facts = engine_facts(&app).await.map_err(|e| in_full(&e))?;
    let Some(collecting) = app.collecting.get() else {
        return Err("the metrics are not open".to_owned());
    };
    let metering = &app.config.metering;
    // Where events ask for one reading after the other they share one.
    tokio::time::sleep(app.cadence.wait(app.clock.monotonic(), metering)).await;
    let mut collecting = Arc::clone(collecting).lock_owned().await;
    let now = app.clock.monotonic();
    let interval = app.cadence.interval(now, metering);
    let (reader, hierarchy) = (Arc::clone(&app), facts.hierarchy.clone());
    let read = move || collecting.cycle(&reader, &hierarchy, interval);
    let outcome = tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| e.to_string())?;
    app.cadence.note(false, now, metering);
    outcome.saved.map_err(|e| in_full(&e))?;
    let measured = outcome.now.iter().map(|(whose, used)| {
        let memory = (Dimension::Memory, used.memory_bytes);
        (*whose, vec![(Dimension::Cpu, used.cpu_milli), memory])
    });
    let is_near = follow(&app, measured.collect()).await;
    let is_near = is_near.map_err(|e| in_full(&e))?;
    app.cadence.note(is_near, now, metering);
    Ok(outcome.summary)
}

/// Measured use of an entity, by dimension.
pub(super) type Use = (Whose, Vec<(Dimension, u64)>);

/// Holds measured use against limits; returns whether any is near.
///
/// # Errors
/// When the ledger cannot be written.
pub(super) async fn follow(app: &App, watched: Vec<Use>) -> Result<bool, StoreError> {
    let mut measured = Vec::new();
    let mut is_near = false;
    for (whose, used) in watched {
        let (level, kind, entity) = match whose {
            Whose::System | Whose::Unmanaged | Whose::Project(_) => continue,
            Whose::Team(team) => (LevelKind::Team, EntityKind::Team, team.0),
            Whose::User(user) => (LevelKind::User, EntityKind::User, user.0),
        };
        let (standing, name) = match whose {
            Whose::Team(team) => (
                app.store.standing(kind, entity),
                app.store.team(&team.to_string()).map(|t| t.name),
            ),
            _ => (
                app.store.standing(kind, entity),
                app.store.user(&entity.to_string()).map(|u| u.name),
            ),
        };
        // Somebody deleted while their last container was going.
        let (Ok(standing), Ok(name)) = (standing, name) else {
            continue;
        };
        for (dimension, used) in used {
            let limit = standing.limits[dimension].at_most();
            let is_above = |permille: u64| {
                limit.is_some_and(|limit| {
                    u128::from(used) * 1000 > u128::from(limit) * u128::from(permille)
                })
            };
            is_near |= is_above(app.config.metering.near_limit_percent * 10);
            let over = is_above(OVER_PERMILLE);
            let used = if over {
                used
            } else {
                limit.map_or(used, |limit| used.min(limit))
            };
            measured.push(Measured {
                level,
                entity,
                name: name.clone(),
                dimension,
                limit,
                used,
            });
        }
    }
    if measured.is_empty() {
        return Ok(is_near);
    }
    app.store
        .follow_use(measured, app.clock.now_ms())
        .await
        .map(|()| is_near)
}
