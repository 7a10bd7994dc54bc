//! Writes the kernel caps of everybody who has a cgroup here, after limits changed and from time to
//! time, in one order the kernel accepts. Containers that have more CPU than a limit are made smaller
//! before, and get it back after.

use std::sync::Arc;

use plimsoll_core::Dimension;
use plimsoll_host::cgroup::{Applied, CapError, ParentPath};
use plimsoll_store::Measured;

use crate::caps::{Capped, of_host, outcome, tree};
use crate::clamp::{self, Way};
use crate::engine_facts::engine_facts;
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "kernel caps";

/// One pass over everybody with a live reservation.
///
/// # Errors
/// In words, when the engine or the ledger cannot be asked, or the kernel refuses a cap.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let facts = engine_facts(&app).await.map_err(|e| in_full(&e))?;
    let pass = async |way| clamp::pass(&app, way).await.map_err(|e| in_full(&e));
    let (lowered, mut failed) = pass(Way::Down).await?;
    let levels = of_host(&app.store, &app.instance, &app.lease.host)
        .await
        .map_err(|e| in_full(&e))?;
    let hierarchy = facts.hierarchy.clone();
    let wanted = tree(&levels);
    let written = tokio::task::spawn_blocking(move || hierarchy.apply_tree(&wanted))
        .await
        .map_err(|e| e.to_string())?;
    app.store
        .follow_held(held(&levels, &written), app.clock.now_ms())
        .await
        .map_err(|e| in_full(&e))?;
    let (raised, not_raised) = pass(Way::Up).await?;
    failed.extend(not_raised);
    let outcome = outcome(&written)?;
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    Ok(format!(
        "{outcome}, {lowered} containers held, {raised} let go"
    ))
}

/// The caps that the kernel did not lower: the largest child's, or what is in use, stays.
fn held(levels: &[Capped], written: &[(ParentPath, Result<Applied, CapError>)]) -> Vec<Measured> {
    let mut held = Vec::new();
    for (cgroup, outcome) in written {
        let Some(level) = levels.iter().find(|l| l.cgroup == *cgroup) else {
            continue;
        };
        for refused in outcome.iter().flat_map(|applied| &applied.refused) {
            let (dimension, limit, used) = match refused {
                CapError::CpuBelowChild { wanted, child, .. } => {
                    (Dimension::Cpu, wanted.0, child.0)
                }
                CapError::MemoryBusy {
                    wanted,
                    used: Some(used),
                    ..
                } => (Dimension::Memory, wanted.0, used.0),
                _ => continue,
            };
            held.push(Measured {
                level: level.level,
                entity: level.entity,
                name: level.name.clone(),
                dimension,
                limit: Some(limit),
                used,
                behind: None,
            });
        }
    }
    held
}
