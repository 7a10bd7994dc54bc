//! `/api/teams`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::entity::{MemberRole, Name, TeamId};
use plimsoll_store::NewMember;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, Object, Params, max_fields};
use super::output;
use super::problem::{Answer, Problem};
use super::users::{Drain, gone};
use crate::clock::new_id;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: Name,
    class: Option<String>,
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    caller.admin()?;
    let actor = caller.actor(&app, None);
    let team = app
        .store
        .add_team(TeamId(new_id()), new.name, new.class, actor)
        .await?;
    Ok((StatusCode::CREATED, Json(output::team(&team))).into_response())
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let teams = app.store.teams().await?;
    let mut shown = Vec::new();
    for team in &teams {
        if caller.reads_team(&app, team).is_ok() {
            shown.push(output::team(team));
        }
    }
    Ok(Json(json!({"items": shown})))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer<Json<Value>> {
    let team = app.store.team(&team)?;
    caller.reads_team(&app, &team)?;
    let members = app.store.members(Some(team.id), None).await?;
    let mut shown = output::team(&team);
    shown["members"] = Value::Array(members.iter().map(output::member).collect());
    Ok(Json(shown))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
    Params(how): Params<Drain>,
) -> Answer {
    caller.admin()?;
    let team = app.store.team(&team)?;
    Ok(gone(
        app.store
            .delete_team(team.id, how.drain, caller.actor(&app, None))
            .await?,
    ))
}

pub(super) async fn members(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer<Json<Value>> {
    let team = app.store.team(&team)?;
    caller.reads_team(&app, &team)?;
    let members = app.store.members(Some(team.id), None).await?;
    Ok(Json(
        json!({"items": members.iter().map(output::member).collect::<Vec<_>>()}),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Put {
    role: Option<String>,
    allotment: Option<Object>,
    borrow_limit: Option<Object>,
    default: Option<bool>,
    reason: Option<String>,
}

pub(super) async fn put_member(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((team, user)): Path<(String, String)>,
    Body(put): Body<Put>,
) -> Answer<Json<Value>> {
    let team = app.store.team(&team)?;
    caller.leads_team(&app, &team)?;
    let user = app.store.user(&user)?;
    let role = match put.role.as_deref() {
        None => None,
        Some("lead") => Some(MemberRole::Lead),
        Some("member") => Some(MemberRole::Member),
        Some(_) => return Err(Problem::field("role", "must be lead or member")),
    };
    let allotment = put
        .allotment
        .map(|object| max_fields(&object, &[])?.bounded("allotment"))
        .transpose()?;
    let borrow = put
        .borrow_limit
        .map(|object| max_fields(&object, &[]))
        .transpose()?;
    let new = NewMember {
        team: team.id,
        user: user.id,
        role,
        allotment,
        borrow: borrow.map(|fields| fields.0),
        default: put.default,
        from_pool: !caller.is_admin(),
    };
    let member = app
        .store
        .put_member(new, caller.actor(&app, put.reason))
        .await?;
    app.wake.caps.notify_one();
    Ok(Json(output::member(&member)))
}

pub(super) async fn remove_member(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((team, user)): Path<(String, String)>,
    Params(how): Params<Drain>,
) -> Answer {
    let team = app.store.team(&team)?;
    caller.leads_team(&app, &team)?;
    let user = app.store.user(&user)?;
    let to_pool = !caller.is_admin();
    let actor = caller.actor(&app, None);
    app.store
        .remove_member(team.id, user.id, how.drain, to_pool, actor)
        .await?;
    app.wake.caps.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}
