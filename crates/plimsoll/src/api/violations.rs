//! `GET /api/quotas/violations`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Params;
use super::output;
use super::problem::Answer;
use crate::state::App;

/// The most violations in one answer.
const MOST: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    since: Option<Timestamp>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let since = which.since.map(Timestamp::as_millisecond);
    let mut found = app.store.violations(since, MOST).await?;
    if caller.reads_all().is_err() {
        let mut mine = Vec::new();
        if let Some(me) = &caller.user {
            mine.push(me.id.0);
            let places = app.store.members(None, Some(me.id)).await?;
            mine.extend(places.iter().map(|place| place.team.0));
        }
        found.retain(|v| mine.contains(&v.entity));
    }
    Ok(Json(
        json!({"items": found.iter().map(output::violation_record).collect::<Vec<_>>()}),
    ))
}
