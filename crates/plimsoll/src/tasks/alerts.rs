//! Holds what there is to see against the rules of alerts, and tells whoever is concerned.

use std::sync::Arc;

use plimsoll_store::StoreError;

use crate::alerts::samples::Picture;
use crate::alerts::{Outcome, evaluate};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "alerts";

/// One evaluation.
///
/// # Errors
/// In words, when the ledger cannot be used.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    let firing = follow(&app).await.map_err(|e| in_full(&e))?;
    Ok(format!("{firing} firing"))
}

async fn follow(app: &App) -> Result<usize, StoreError> {
    let rules = app.store.alert_rules().await?;
    let picture = Picture::take(app).await?;
    let mut samples = Vec::new();
    for rule in rules.iter().filter(|rule| rule.enabled) {
        let found = picture.samples(app, rule).await?;
        samples.extend(found.into_iter().map(|sample| (rule, sample)));
    }
    let now_ms = app.clock.now_ms();
    let known = app.store.alerts().await?;
    let silences = app.store.silences(now_ms).await?;
    let Outcome {
        changed,
        told,
        firing,
    } = evaluate(
        &rules,
        known,
        samples,
        &silences,
        &app.config.alerts,
        now_ms,
    );
    let is_news = !told.is_empty();
    app.store.follow_alerts(changed, told, now_ms).await?;
    if is_news {
        app.wake.deliver.notify_waiters();
        app.wake.alertmanager.notify_one();
    }
    Ok(firing)
}
