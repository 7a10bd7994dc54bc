//! `/api/users`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use plimsoll_core::entity::{Name, UserId};
use plimsoll_store::{NewUser, Role, UserChange};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, Email, Params, Text, present};
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
use crate::state::App;
use crate::tasks::{in_full, networks};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct New {
    name: Name,
    email: Option<Email>,
    os_uid: Option<u32>,
    class: Option<String>,
    role: Option<String>,
}

pub(super) fn role(field: &str, text: &str) -> Result<Role, Problem> {
    Role::from_name(text).ok_or_else(|| Problem::field(field, "must be member, viewer or admin"))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    caller.admin()?;
    let user = NewUser {
        id: UserId(new_id()),
        name: new.name,
        email: new.email.map(|text| text.0),
        os_uid: new.os_uid,
        role: new
            .role
            .as_deref()
            .map_or(Ok(Role::Member), |text| role("role", text))?,
        class: new.class,
    };
    let user = app.store.add_user(user, caller.actor(&app, None)).await?;
    Ok((
        StatusCode::CREATED,
        Json(output::user(&user, &app.config.ports)),
    )
        .into_response())
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let users = app.store.users().await?;
    Ok(Json(
        json!({"items": users.iter().map(|u| output::user(u, &app.config.ports)).collect::<Vec<_>>()}),
    ))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Answer<Json<Value>> {
    let user = caller.user(&app, &user).await?;
    let places = app.store.members(None, Some(user.id)).await?;
    let mut shown = output::user(&user, &app.config.ports);
    shown["teams"] = Value::Array(places.iter().map(output::member).collect());
    Ok(Json(shown))
}

/// The caller themselves.
pub(super) async fn me(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let teams = match &caller.user {
        Some(user) => app.store.members(None, Some(user.id)).await?,
        None => Vec::new(),
    };
    Ok(Json(json!({
        "name": caller.name, "role": caller.role_name(),
        "user": caller.user.as_ref().map(|u| output::user(u, &app.config.ports)),
        "teams": teams.iter().map(output::member).collect::<Vec<_>>(),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Change {
    suspended: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    email: Option<Option<Email>>,
    #[serde(default, deserialize_with = "present")]
    os_uid: Option<Option<u32>>,
    mail: Option<bool>,
    reason: Option<Text>,
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Body(change): Body<Change>,
) -> Answer<Json<Value>> {
    let user = caller.user(&app, &user).await?;
    if change.suspended.is_some() || change.os_uid.is_some() {
        caller.admin()?;
    } else {
        caller.acts_for(&user)?;
    }
    let actor = caller.actor(&app, change.reason.map(|text| text.0));
    let changed = app
        .store
        .change_user(
            user.id,
            UserChange {
                suspended: change.suspended,
                email: change.email.map(|email| email.map(|text| text.0)),
                mail: change.mail,
                os_uid: change.os_uid,
            },
            actor,
        )
        .await?;
    Ok(Json(output::user(&changed, &app.config.ports)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    #[serde(default)]
    pub(super) drain: bool,
}

/// 204 when gone, 202 when draining.
pub(super) fn gone(gone: bool) -> Response {
    if gone {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::ACCEPTED
    }
    .into_response()
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Params(how): Params<Drain>,
) -> Answer {
    let user = caller.user(&app, &user).await?;
    caller.admin()?;
    if let Err(error) = networks::leave(&app, user.id).await {
        // Their networks stay, and are the reason they do.
        tracing::warn!(error = in_full(&error), "a user's networks stay");
    }
    let actor = caller.actor(&app, None);
    let is_gone = app.store.delete_user(user.id, how.drain, actor).await?;
    app.certs_changed.send_replace(());
    Ok(gone(is_gone))
}
