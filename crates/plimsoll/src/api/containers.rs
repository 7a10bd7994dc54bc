//! `GET /api/containers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use plimsoll_core::State as Stands;
use plimsoll_store::ReservationFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Params;
use super::output;
use super::problem::{Answer, Problem};
use crate::meter::Stranger;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    user: Option<String>,
    team: Option<String>,
    project: Option<String>,
    state: Option<String>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let mut filter = ReservationFilter {
        project: which.project,
        ..ReservationFilter::default()
    };
    if let Some(state) = &which.state {
        let state = Stands::from_name(state).ok_or_else(|| {
            Problem::field(
                "state",
                "must be pending, active, stopped, released or void",
            )
        })?;
        filter.states = vec![state];
    }
    if let Some(team) = &which.team {
        let team = caller.team(&app, team)?;
        filter.team = Some(team.id);
    }
    if let Some(user) = &which.user {
        let user = caller.user(&app, user).await?;
        filter.user = Some(user.id);
    }
    // Nobody's containers belong to no scope, and have no state.
    let is_whole = filter.team.is_none()
        && filter.user.is_none()
        && filter.project.is_none()
        && filter.states.is_empty();
    // Without a scope of their own choosing, people see their own.
    if filter.team.is_none() && filter.user.is_none() && !caller.rights.read_all {
        filter.user = caller.user.as_ref().map(|u| u.id);
        if filter.user.is_none() {
            return Ok(Json(json!({"items": []})));
        }
    }
    let mut rows = app.store.reservations(filter).await?;
    if !caller.rights.read_all {
        // Of a team its leads see every container, of a user who leads them what is in the team.
        let leads = caller.leads(&app).await?;
        rows.retain(|r| caller.is(r.user) || r.team.is_some_and(|team| leads.contains(&team)));
    }
    let items: Vec<Value> = rows
        .iter()
        .map(|r| {
            let id = r.container.as_deref();
            let used = id.and_then(|id| app.meter.container(id));
            output::container(r, used, id.and_then(|id| app.meter.storage_of(id)))
        })
        .collect();
    let mut body = json!({"items": items});
    if is_whole && caller.rights.read_all {
        let used = |stranger: &Stranger| app.meter.container(&stranger.id);
        let strangers = app.meter.strangers();
        let shown = strangers.iter().map(|s| output::stranger(s, used(s)));
        body["unmanaged"] = shown.collect();
    }
    Ok(Json(body))
}
