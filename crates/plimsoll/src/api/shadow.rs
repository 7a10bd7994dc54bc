//! `GET /api/quotas/shadow`: what limits that only watch would have refused and stopped.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::enforce;
use super::input::Params;
use super::output;
use super::problem::Answer;
use crate::ladder::{How, pass};
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    since: Option<Timestamp>,
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let since_ms = which.since.map_or(0, Timestamp::as_millisecond);
    let refused = app.store.would_refuse(since_ms).await?;
    let how = How {
        hurry: true,
        dry_run: true,
        shadow: true,
        ..How::default()
    };
    let stopped = pass(&app, how).await?;
    Ok(Json(json!({
        "refused": refused.iter().map(output::would_refuse).collect::<Vec<_>>(),
        "steps": stopped.actions.iter().map(enforce::shown).collect::<Vec<_>>(),
    })))
}
