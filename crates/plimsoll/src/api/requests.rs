//! `/api/requests`: who would like more, and what they are told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_core::entity::{GrantId, RequestId};
use plimsoll_store::{NewRequest, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::grants::{self, Which};
use super::input::{Body, MaxFields, Params, Text, found};
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    user: Option<String>,
    team: Option<String>,
    add: MaxFields,
    until: Option<Timestamp>,
    reason: Text,
}

pub(super) async fn ask(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    let user = match (&new.user, &caller.user) {
        (Some(name), _) => caller.user(&app, name).await?,
        (None, Some(me)) => me.clone(),
        (None, None) => return Err(Problem::field("user", "name who asks")),
    };
    caller.acts_for(&user)?;
    let team = match new.team.as_deref() {
        None => user.default_team,
        Some("-") => None,
        Some(team) => {
            let found = caller.team(&app, team)?.id;
            if app.store.member(found, user.id)?.is_none() {
                let why = format!("{} is not a member of it", user.name);
                return Err(Problem::field("team", why));
            }
            Some(found)
        }
    };
    if new.reason.0.trim().is_empty() {
        return Err(Problem::field("reason", "say what it is for"));
    }
    let request = NewRequest {
        id: RequestId(new_id()),
        user: user.id,
        team,
        added: new.add.bounded("add")?,
        until_ms: new.until.map(Timestamp::as_millisecond),
        reason: new.reason.0,
    };
    let made = app.store.ask(request, caller.actor(&app, None)).await?;
    Ok((StatusCode::CREATED, Json(shown(&made))).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let mut items = Vec::new();
    for request in app.store.requests(which.all(), which.size()?).await? {
        if caller.sees_charge(&app, request.user, request.team)? {
            items.push(shown(&request));
        }
    }
    Ok(Json(json!({"items": items})))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    Ok(Json(shown(&seen(&app, &caller, &id)?)))
}

/// How a request is answered.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    reason: Option<Text>,
    until: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Words {
    reason: Option<Text>,
}

pub(super) async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(reply): Body<Reply>,
) -> Answer<Json<Value>> {
    let request = answerable(&app, &caller, &id)?;
    let actor = caller.actor(&app, reply.reason.map(|text| text.0));
    let until_ms = reply.until.map(Timestamp::as_millisecond);
    let grant = GrantId(new_id());
    let (request, grant) = app
        .store
        .approve(request.id, grant, until_ms, actor)
        .await?;
    app.wake.caps.notify_one();
    let mut answer = shown(&request);
    answer["grant"] = grants::shown(&grant);
    Ok(Json(answer))
}

pub(super) async fn deny(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Answer<Json<Value>> {
    let request = answerable(&app, &caller, &id)?;
    let actor = caller.actor(&app, words.reason.map(|text| text.0));
    Ok(Json(shown(&app.store.deny(request.id, actor).await?)))
}

pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let request = seen(&app, &caller, &id)?;
    caller.acts_for(&app.store.user(&request.user.to_string())?)?;
    let actor = caller.actor(&app, None);
    Ok(Json(shown(&app.store.withdraw(request.id, actor).await?)))
}

fn seen(app: &App, caller: &Caller, id: &str) -> Result<Request, Problem> {
    let request = found("request", id, |id| app.store.request(id))?;
    if caller.sees_charge(app, request.user, request.team)? {
        Ok(request)
    } else {
        Err(Problem::not_found("request", id))
    }
}

/// The request, if the caller may answer it: within a team its leads, who give from the pool.
fn answerable(app: &App, caller: &Caller, id: &str) -> Result<Request, Problem> {
    let request = seen(app, caller, id)?;
    match request.team {
        Some(team) => {
            let team = app.store.team(&team.to_string())?;
            caller.leads_team(app, &team)?;
        }
        None => caller.admin()?,
    }
    Ok(request)
}

fn shown(request: &Request) -> Value {
    json!({
        "id": request.id, "user": request.user_name, "team": request.team_name,
        "add": output::added(&request.added), "until": output::opt_time(request.until_ms),
        "reason": request.reason, "state": request.state,
        "createdAt": output::time(request.created_ms),
        "answeredAt": output::opt_time(request.answered_ms), "answeredBy": request.answered_by,
        "answer": request.answer, "grant": Value::Null,
    })
}
