//! Begins and ends what has its time: grants, requests, loans within teams.

use std::sync::Arc;
use std::time::Duration;

use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "grants and loans";

/// How late something may begin or end. The question is one index lookup.
pub const EVERY: Duration = Duration::from_secs(1);

/// Everything that is due.
///
/// # Errors
/// In words, when the ledger cannot be written.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let turns = app.store.turn(app.clock.now_ms()).await;
    let turns = turns.map_err(|e| in_full(&e))?;
    for turn in &turns {
        tracing::info!(what = turn.what, whose = turn.whose, "its time has come");
    }
    if !turns.is_empty() {
        app.wake.caps.notify_one();
    }
    Ok(format!("{} due", turns.len()))
}
