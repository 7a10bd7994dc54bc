//! Containers with more CPU than a limit on their path, or than the ladder leaves them: held to it through the engine, and given back
//! what they had when there is room again.
//!
//! Never by raw writes: the engine would write its stored value back. What a container had is in the
//! ledger before the engine lowers it, so wherever this ends in the middle, the next pass goes on
//! from what the engine shows.

use plimsoll_core::admit::{Path, admit};
use plimsoll_core::dimension::Dimension;
use plimsoll_core::quota::ContainerDefaults;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::engine::ResourceUpdate;
use plimsoll_store::{Clamp, Reservation, StoreError};

use crate::caps::{charged_on, most_cpu};
use crate::settle::{SettleError, settle_locked};
use crate::state::App;
use crate::tasks::in_full;

/// Which way a pass goes: down before the caps above are lowered, up after they are raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Containers with more than a limit are held to it.
    Down,
    /// Containers that were held get back what there is.
    Up,
}

/// One pass over this host's containers. Returns how many changed, and in words which could not be
/// changed.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn pass(app: &App, way: Way) -> Result<(usize, Vec<String>), StoreError> {
    let (mut changed, mut failed) = (0, Vec::new());
    let throttles = app.store.throttles()?;
    for (row, path) in charged_on(&app.store, &app.lease.host).await? {
        let throttle = throttles.get(&row.id).copied();
        let most = most(app, &path, throttle);
        let over = row.claim.get(Dimension::Cpu) > most.0;
        if most < ContainerDefaults::CPU_MIN || !(over || row.clamp.is_some()) {
            continue;
        }
        let Some(container) = &row.container else {
            continue;
        };
        match one(app, container, way, throttle).await {
            Ok(did) => changed += usize::from(did),
            Err(error) => failed.push(format!("container {container}: {}", in_full(&error))),
        }
    }
    Ok((changed, failed))
}

/// The most CPU a container may have: the lowest limit on its path, or what it is throttled to.
fn most(app: &App, path: &Path, throttle: Option<MilliCpu>) -> MilliCpu {
    let most = most_cpu(path, app.capacity.cpu);
    throttle.map_or(most, |to| to.min(most))
}

/// Brings one container where its limits allow.
async fn one(
    app: &App,
    container: &str,
    way: Way,
    throttle: Option<MilliCpu>,
) -> Result<bool, SettleError> {
    let _held = app.container_locks.lock(container).await;
    let Some(row) = settle_locked(app, container).await? else {
        return Ok(false);
    };
    let Some(seen) = app.engine.inspect(container).await? else {
        return Ok(false);
    };
    let Some(has) = u64::try_from(seen.host_config.nano_cpus)
        .ok()
        .filter(|nano| *nano > 0)
        .map(MilliCpu::from_nano)
    else {
        // Without a limit of its own it is held by those above it.
        return Ok(false);
    };
    let path = app.store.path_of(&row)?;
    let most = most(app, &path, throttle);
    let changed = match (row.clamp, way) {
        (clamp, Way::Down) if has > most => {
            let from = clamp.map_or(has, |c| c.from);
            down(app, &row, container, Clamp { from, to: most }).await?;
            true
        }
        (Some(clamp), Way::Up) if has <= most => {
            up(app, &row, container, (&path, most), clamp, has).await?
        }
        _ => false,
    };
    if changed {
        settle_locked(app, container).await?;
    }
    Ok(changed)
}

async fn down(
    app: &App,
    row: &Reservation,
    container: &str,
    clamp: Clamp,
) -> Result<(), SettleError> {
    let actor = app.itself(Some(
        "a limit on its path or a throttle is lower than its CPU",
    ));
    app.store
        .set_clamp(row.id, Some(clamp), clamp.to, actor)
        .await?;
    app.engine.update(container, &cpu(clamp.to)).await?;
    tracing::info!(container, from = %clamp.from, to = %clamp.to, "a container is held to less CPU");
    Ok(())
}

/// Gives back as much as limits allow, if what it holds then is admitted.
async fn up(
    app: &App,
    row: &Reservation,
    container: &str,
    (path, most): (&Path, MilliCpu),
    clamp: Clamp,
    has: MilliCpu,
) -> Result<bool, SettleError> {
    let back = clamp.from.min(most);
    if has == clamp.to && has < back {
        let claim = row.claim.with(Dimension::Cpu, back.0);
        let charge = |claim| row.charge_of(claim);
        if !admit(path, &charge(&row.claim), &charge(&claim)).allowed() {
            return Ok(false);
        }
        match app.store.resize(row.id, claim, app.deed()).await {
            Ok(resized) if resized.reservation.is_some() => {}
            // Somebody was faster, or is suspended and gets nothing new.
            Ok(_) | Err(StoreError::Forbidden(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        app.engine.update(container, &cpu(back)).await?;
        tracing::info!(container, to = %back, "a container gets back its CPU");
    } else if has == clamp.to {
        return Ok(false);
    }
    // Where it has neither, somebody else chose meanwhile, and there is nothing to give back.
    let now = if has == clamp.to { back } else { has };
    let left = (now == back && back < clamp.from).then_some(Clamp {
        from: clamp.from,
        to: back,
    });
    let actor = app.itself(Some("the limits on its path allow it"));
    app.store.set_clamp(row.id, left, now, actor).await?;
    Ok(true)
}

fn cpu(to: MilliCpu) -> ResourceUpdate {
    ResourceUpdate {
        nano_cpus: i64::try_from(to.nano()).ok(),
        ..ResourceUpdate::default()
    }
}
