//! Holds what was used against budgets and climbs the ladder: announces, does and takes back what exceeded limits call for.

use std::sync::Arc;

use crate::budget;
use crate::idle;
use crate::ladder::{How, pass};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "ladder";

/// One pass over everything that is exceeded.
///
/// # Errors
/// In words, when the ledger or the engine cannot be asked.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    budget::follow(&app).await.map_err(|e| in_full(&e))?;
    idle::follow(&app).await.map_err(|e| in_full(&e))?;
    let passed = pass(&app, How::default()).await.map_err(|e| in_full(&e))?;
    match passed.failed.as_slice() {
        [] => Ok(format!("{} steps", passed.actions.len())),
        failed => Err(failed.join("; ")),
    }
}
