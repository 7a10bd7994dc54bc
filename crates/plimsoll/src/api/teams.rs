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
use super::input::{Body, MaxFields, Params, Text, id_or_name};
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
        if caller.sees_team(&app, team.id)? {
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
    let team = caller.team(&app, &team)?;
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
    let team = caller.team(&app, &team)?;
    caller.admin()?;
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
    let team = caller.team(&app, &team)?;
    let members = app.store.members(Some(team.id), None).await?;
    Ok(Json(
        json!({"items": members.iter().map(output::member).collect::<Vec<_>>()}),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Put {
    role: Option<MemberRole>,
    allotment: Option<MaxFields>,
    borrow_limit: Option<MaxFields>,
    default: Option<bool>,
    reason: Option<Text>,
}

pub(super) async fn put_member(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((team, user)): Path<(String, String)>,
    Body(put): Body<Put>,
) -> Answer<Json<Value>> {
    let team = caller.team(&app, &team)?;
    let place = caller.place(&app, team.id)?;
    let own = place.is_some() && (caller.is_named(&user));
    // Which of their teams is their default, people choose for themselves.
    let only_default = put.role.is_none() && put.allotment.is_none() && put.borrow_limit.is_none();
    if !(own && only_default && caller.rights.change) {
        caller.leads_team(&app, &team)?;
    }
    let user = app.store.user(&id_or_name(&user))?;
    if !caller.is_admin() {
        let now = app.store.member(team.id, user.id)?.map(|m| m.role);
        let lead = Some(MemberRole::Lead);
        if put.role.is_some_and(|role| Some(role) != now) && (put.role == lead || now == lead) {
            return Err(Problem::forbidden(
                "only administrators decide who leads a team",
            ));
        }
        if put.default.is_some() && !own {
            let why = format!(
                "only {} and administrators choose their default team",
                user.name
            );
            return Err(Problem::forbidden(why));
        }
    }
    let allotment = put.allotment.map(|fields| fields.bounded("allotment"));
    let new = NewMember {
        team: team.id,
        user: user.id,
        role: put.role,
        allotment: allotment.transpose()?,
        borrow: put.borrow_limit.map(|fields| fields.0),
        default: put.default,
        from_pool: !caller.is_admin(),
    };
    let reason = put.reason.map(|text| text.0);
    let member = app
        .store
        .put_member(new, caller.actor(&app, reason))
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
    let team = caller.team(&app, &team)?;
    caller.leads_team(&app, &team)?;
    let user = app.store.user(&id_or_name(&user))?;
    let member = app.store.member(team.id, user.id)?;
    let is_lead = member.is_some_and(|m| m.role == MemberRole::Lead);
    if is_lead && !caller.is_admin() && !caller.is(user.id) {
        return Err(Problem::forbidden(
            "only administrators decide who leads a team",
        ));
    }
    let to_pool = !caller.is_admin();
    let actor = caller.actor(&app, None);
    app.store
        .remove_member(team.id, user.id, how.drain, to_pool, actor)
        .await?;
    app.wake.caps.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}
