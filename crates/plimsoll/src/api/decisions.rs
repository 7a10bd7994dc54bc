//! `/api/decisions`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use plimsoll_core::entity::DecisionId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Params;
use super::output;
use super::problem::{Answer, Problem};
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    user: Option<String>,
    outcome: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let user = match &which.user {
        Some(name) => {
            let user = app.store.user(name)?;
            caller.reads_user(&app, &user).await?;
            Some(user.id)
        }
        None if caller.reads_all().is_ok() => None,
        None => caller.user.as_ref().map(|u| u.id),
    };
    let allowed = match which.outcome.as_deref() {
        None => None,
        Some("allowed") => Some(true),
        Some("refused") => Some(false),
        Some(_) => return Err(Problem::field("outcome", "must be allowed or refused")),
    };
    let most = which.limit.unwrap_or(100).clamp(1, 1000);
    let found = app.store.decisions(user, allowed, most).await?;
    Ok(Json(
        json!({"items": found.iter().map(output::decision).collect::<Vec<_>>()}),
    ))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let absent = || Problem::not_found("decision", &id);
    let parsed: DecisionId = id.parse().map_err(|_| absent())?;
    let decision = app.store.decision(parsed)?;
    match app.store.user(&decision.user.to_string()) {
        Ok(user) => caller.reads_user(&app, &user).await.map_err(|_| absent())?,
        Err(_) => caller.reads_all()?,
    }
    Ok(Json(output::decision(&decision)))
}
