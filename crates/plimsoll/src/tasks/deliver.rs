//! Sends what people are told over one channel; each channel has a run of its own, so that none waits for
//! another.

use std::sync::Arc;

use crate::notify::{Outlet, drain};
use crate::state::App;
use crate::tasks::in_full;

/// Sends what is due.
///
/// # Errors
/// In words, when nothing gets through; what was not sent waits.
pub async fn run(app: Arc<App>, outlet: Arc<Outlet>) -> Result<String, String> {
    let sent = drain(&app, &outlet).await.map_err(|e| in_full(&e))?;
    Ok(format!("{sent} sent"))
}
