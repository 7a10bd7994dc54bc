//! Writes the kernel caps of everybody who has a cgroup here, after limits changed and from time to
//! time, in one order the kernel accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_host::cgroup::{Caps, ParentPath};
use plimsoll_store::ReservationFilter;

use crate::caps::desired;
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
    let filter = ReservationFilter {
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let rows = app
        .store
        .reservations(filter)
        .await
        .map_err(|e| in_full(&e))?;
    let mut owners = BTreeSet::new();
    let mut tree: BTreeMap<ParentPath, Caps> = BTreeMap::new();
    for row in rows {
        if owners.insert((row.team, row.user)) {
            let path = app.store.path_of(&row).map_err(|e| in_full(&e))?;
            tree.extend(desired(&app.instance, &path));
        }
    }
    let tree: Vec<_> = tree.into_iter().collect();
    let hierarchy = facts.hierarchy.clone();
    let outcomes = tokio::task::spawn_blocking(move || hierarchy.apply_tree(&tree))
        .await
        .map_err(|e| e.to_string())?;
    let mut refused = Vec::new();
    let mut changed = 0;
    let cgroups = outcomes.len();
    for (_, outcome) in outcomes {
        match outcome {
            Ok(applied) => {
                changed += usize::from(applied.changed);
                refused.extend(applied.refused.iter().map(|e| in_full(e)));
            }
            Err(error) => refused.push(in_full(&error)),
        }
    }
    if refused.is_empty() {
        Ok(format!("{cgroups} cgroups, {changed} changed"))
    } else {
        Err(refused.join("; "))
    }
}
