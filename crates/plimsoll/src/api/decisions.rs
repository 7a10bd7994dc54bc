//! `/api/decisions`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use plimsoll_core::entity::DecisionId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Params, found, next_page, page_size};
use super::output;
use super::problem::{Answer, Problem};
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    user: Option<String>,
    outcome: Option<String>,
    cursor: Option<DecisionId>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let user = match &which.user {
        Some(name) => {
            let user = caller.user(&app, name).await?;
            Some(user.id)
        }
        None if caller.rights.read_all => None,
        None => match &caller.user {
            Some(user) => Some(user.id),
            None => return Ok(Json(json!({"items": [], "nextCursor": null}))),
        },
    };
    let allowed = match which.outcome.as_deref() {
        None => None,
        Some("allowed") => Some(true),
        Some("refused") => Some(false),
        Some(_) => return Err(Problem::field("outcome", "must be allowed or refused")),
    };
    let most = page_size(which.limit)?;
    let mut found = app
        .store
        .decisions_before(which.cursor, user, allowed, most)
        .await?;
    let next = next_page(&found, most, |d| d.id);
    if !caller.rights.read_all {
        let leads = caller.leads(&app).await?;
        found.retain(|d| caller.is(d.user) || d.team.is_some_and(|team| leads.contains(&team)));
    }
    let items: Vec<Value> = found.iter().map(output::decision).collect();
    Ok(Json(json!({"items": items, "nextCursor": next})))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let decision = found("decision", &id, |id| app.store.decision(id))?;
    if !caller.sees_charge(&app, decision.user, decision.team)? {
        return Err(Problem::not_found("decision", &id));
    }
    Ok(Json(output::decision(&decision)))
}
