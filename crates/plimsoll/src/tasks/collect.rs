//! Reads what containers use, again and again, and holds it against limits.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_core::Dimension;
use plimsoll_core::admit::LevelKind;
use plimsoll_core::entity::EntityKind;
use plimsoll_core::quota::Mode;
use plimsoll_store::{Behind, Measured, Reservation, ReservationFilter, StoreError, most};

use crate::caps::{of_host, parent};
use crate::engine_facts::engine_facts;
use crate::meter::Whose;
use crate::metering::{Parent, PlaceUse};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "collector";

/// An entity counts as throttled when its cap holds it back in so many thousandths of the periods.
const THROTTLED_PERMILLE: u64 = 100;

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
    let is_near = follow(&app, MEASURED, at_places(&outcome.places)).await;
    let is_near = is_near.map_err(|e| in_full(&e))?;
    let throttled = throttled(&app, &outcome.places).await;
    let calm_ms = calm_ms(&app);
    let throttled = throttled.map_err(|e| in_full(&e))?;
    app.store
        .follow_throttled(throttled, calm_ms, app.clock.now_ms())
        .await
        .map_err(|e| in_full(&e))?;
    app.cadence.note(is_near, now, metering);
    Ok(outcome.summary)
}

/// What is held against limits at every reading.
const MEASURED: &[Dimension] = &[Dimension::Cpu, Dimension::Memory];

/// Measured use of a team, or of a user outside teams, by dimension.
pub(super) type Use = (Whose, Vec<(Dimension, u64)>);

/// Whose limits hold for what a user runs in a team, or outside.
pub(super) fn answers_for((team, user): Parent) -> Whose {
    team.map_or(Whose::User(user), Whose::Team)
}

fn at_places(places: &HashMap<Parent, PlaceUse>) -> Vec<Use> {
    let mut sums: HashMap<Whose, PlaceUse> = HashMap::new();
    for (parent, used) in places {
        let sum = sums.entry(answers_for(*parent)).or_default();
        sum.cpu_milli += used.cpu_milli;
        sum.memory_bytes += used.memory_bytes;
    }
    let by_dimension = |sum: PlaceUse| {
        vec![
            (Dimension::Cpu, sum.cpu_milli),
            (Dimension::Memory, sum.memory_bytes),
        ]
    };
    let sums = sums.into_iter();
    sums.map(|(whose, sum)| (whose, by_dimension(sum)))
        .collect()
}

/// Everybody whom the kernel holds at their cap, or kills for.
async fn throttled(
    app: &App,
    places: &HashMap<Parent, PlaceUse>,
) -> Result<Vec<Measured>, StoreError> {
    let is_held = |used: &PlaceUse| used.throttled_permille >= THROTTLED_PERMILLE;
    if !places.values().any(|used| is_held(used) || used.killed > 0) {
        return Ok(Vec::new());
    }
    let levels = of_host(&app.store, &app.instance, &app.lease.host).await?;
    let mut found = Vec::new();
    for ((team, user), used) in places {
        let cgroup = parent(&app.instance, *team, *user);
        let Some(level) = levels.iter().find(|level| level.cgroup == cgroup) else {
            continue;
        };
        let cpu = level.caps.cpu.filter(|_| is_held(used)).map(|c| c.0);
        let memory = level.caps.memory.filter(|_| used.killed > 0).map(|m| m.0);
        for (dimension, limit, used) in [
            (Dimension::Cpu, cpu, used.cpu_milli),
            (Dimension::Memory, memory, used.memory_bytes),
        ] {
            if limit.is_none() {
                continue;
            }
            found.push(Measured {
                level: level.level,
                entity: level.entity,
                name: level.name.clone(),
                dimension,
                limit,
                used,
                behind: Some(behind(app, (*team, *user), dimension).await?),
            });
        }
    }
    Ok(found)
}

/// The containers that use most, of a user in a team or outside.
async fn behind(app: &App, of: Parent, dimension: Dimension) -> Result<Vec<Behind>, StoreError> {
    let filter = ReservationFilter {
        user: Some(of.1),
        team: of.0,
        ..ReservationFilter::default()
    };
    let mut rows = app.store.reservations(filter).await?;
    rows.retain(|row| row.team == of.0);
    Ok(users_of(app, rows, dimension))
}

fn users_of(app: &App, rows: Vec<Reservation>, dimension: Dimension) -> Vec<Behind> {
    let held = rows.into_iter().filter_map(|row| {
        let id = row.container?;
        let used = app.meter.container(&id);
        let amount = match dimension {
            Dimension::Cpu => used?.cpu_milli?,
            Dimension::Memory => used?.memory_bytes?,
            _ => app.meter.storage_of(&id)?,
        };
        Some(Behind {
            reservation: row.id,
            container: row.container_name.unwrap_or(id),
            user: row.user_name,
            amount,
        })
    });
    most(held.collect())
}

/// So long a limit that was exceeded by measured use must hold before the violation closes.
fn calm_ms(app: &App) -> i64 {
    (app.config.violations.calm_s * 1000.0) as i64
}

/// Holds measured use in these dimensions against limits; returns whether any is near.
///
/// # Errors
/// When the ledger cannot be written.
pub(super) async fn follow(
    app: &App,
    dimensions: &'static [Dimension],
    watched: Vec<Use>,
) -> Result<bool, StoreError> {
    let mut measured = Vec::new();
    let mut is_near = false;
    for (whose, used) in watched {
        let (level, kind, entity) = match whose {
            Whose::System | Whose::Unmanaged | Whose::Project(_) => continue,
            Whose::Team(team) => (LevelKind::Team, EntityKind::Team, team.0),
            Whose::User(user) => (LevelKind::User, EntityKind::User, user.0),
        };
        let name = match whose {
            Whose::Team(team) => app.store.team(&team.to_string()).map(|t| t.name),
            _ => app.store.user(&entity.to_string()).map(|u| u.name),
        };
        // Somebody deleted while their last container was going.
        let (Ok(standing), Ok(name)) = (app.store.standing(kind, entity), name) else {
            continue;
        };
        let watches = app.store.quota(entity)?.mode != Mode::Off;
        for (dimension, used) in used {
            let limit = standing.limits[dimension].at_most();
            let near = u128::from(app.config.metering.near_limit_percent);
            is_near |= limit.is_some_and(|limit| u128::from(used) * 100 > u128::from(limit) * near);
            let limit = limit.filter(|_| watches);
            measured.push(Measured {
                level,
                entity,
                name: name.clone(),
                dimension,
                limit,
                used,
                behind: match limit.is_some_and(|limit| used > limit) {
                    true => Some(behind_of(app, whose, dimension).await?),
                    false => None,
                },
            });
        }
    }
    app.store
        .follow_use(dimensions, measured, calm_ms(app), app.clock.now_ms())
        .await
        .map(|()| is_near)
}

/// The containers that use most, of whoever answers for them.
async fn behind_of(
    app: &App,
    whose: Whose,
    dimension: Dimension,
) -> Result<Vec<Behind>, StoreError> {
    match whose {
        Whose::User(user) => behind(app, (None, user), dimension).await,
        Whose::Team(team) => {
            let filter = ReservationFilter {
                team: Some(team),
                ..ReservationFilter::default()
            };
            let rows = app.store.reservations(filter).await?;
            Ok(users_of(app, rows, dimension))
        }
        Whose::System | Whose::Unmanaged | Whose::Project(_) => Ok(Vec::new()),
    }
}
