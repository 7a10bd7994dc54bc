//! `GET /api/quotas/violations`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use plimsoll_core::{Dimension, LevelKind};
use plimsoll_store::{ViolationFilter, ViolationKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Params;
use super::output;
use super::problem::{Answer, Problem};
use crate::state::App;

/// The most violations in one answer.
const MOST: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    since: Option<Timestamp>,
    status: Option<String>,
    user: Option<String>,
    team: Option<String>,
    kind: Option<String>,
    level: Option<String>,
    dimension: Option<String>,
}

impl Which {
    /// Open ones unless it says otherwise.
    async fn filter(self, app: &App, caller: &Caller) -> Result<ViolationFilter, Problem> {
        let open = match (self.status.as_deref(), self.since) {
            (Some("open"), _) | (None, None) => Some(true),
            (Some("closed"), _) => Some(false),
            (Some("all"), _) | (None, Some(_)) => None,
            _ => return Err(Problem::field("status", "must be open, closed or all")),
        };
        let entity = match (&self.user, &self.team) {
            (Some(_), Some(_)) => {
                return Err(Problem::field("team", "cannot be given with user"));
            }
            (Some(user), None) => Some(caller.user(app, user).await?.id.0),
            (None, Some(team)) => Some(caller.team(app, team)?.id.0),
            (None, None) => None,
        };
        Ok(ViolationFilter {
            open,
            since_ms: self.since.map(Timestamp::as_millisecond),
            entity,
            kind: named("kind", self.kind, ViolationKind::from_name)?,
            level: named("level", self.level, LevelKind::from_name)?,
            dimension: named("dimension", self.dimension, Dimension::from_name)?,
        })
    }
}

fn named<T>(
    field: &str,
    text: Option<String>,
    read: fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(text) = text else { return Ok(None) };
    read(&text)
        .map(Some)
        .ok_or_else(|| Problem::field(field, "is not known"))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let filter = which.filter(&app, &caller).await?;
    let mut found = app.store.violations_by(filter, MOST).await?;
    if let Some(mine) = caller.entities(&app).await? {
        found.retain(|v| mine.contains(&v.entity));
    }
    let ids: Vec<_> = found.iter().map(|v| v.id).collect();
    let steps = app.store.steps_of(&ids)?;
    let items = found.iter().map(|v| output::violation_record(v, &steps));
    Ok(Json(json!({"items": items.collect::<Vec<_>>()})))
}
