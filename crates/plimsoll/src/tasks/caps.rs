//! Writes the kernel caps of everybody who has a cgroup here, after limits changed and from time to
//! time, in one order the kernel accepts.

use std::sync::Arc;

use crate::caps::{of_host, outcome};
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
    let tree = of_host(&app.store, &app.instance, &app.lease.host)
        .await
        .map_err(|e| in_full(&e))?;
    let hierarchy = facts.hierarchy.clone();
    let written = tokio::task::spawn_blocking(move || hierarchy.apply_tree(&tree))
        .await
        .map_err(|e| e.to_string())?;
    outcome(written)
}
