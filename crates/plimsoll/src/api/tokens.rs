//! `/api/tokens`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_core::entity::TokenId;
use plimsoll_store::{NewToken, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, Rights, hash, new_secret};
use super::input::{Body, Text, found};
use super::output;
use super::problem::{Answer, Problem};
use super::users::role;
use crate::clock::new_id;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct New {
    user: Option<String>,
    role: Option<String>,
    label: Option<Text>,
    expires_at: Option<Timestamp>,
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    let user = match &new.user {
        Some(name) => Some(caller.user(&app, name).await?),
        // Without a user a token is nobody's: administrators' automation.
        None if caller.is_admin() => None,
        None => caller.user.clone(),
    };
    match &user {
        Some(user) => caller.acts_for(user)?,
        None => caller.admin()?,
    }
    let allowed = user.as_ref().map_or(caller.rights, |user| {
        caller.rights.and(Rights::of(user.role))
    });
    let role = match new.role.as_deref() {
        Some(text) => role("role", text)?,
        None => [Role::Admin, Role::Viewer, Role::Member]
            .into_iter()
            .find(|role| allowed.cover(Rights::of(*role)))
            .unwrap_or(Role::Member),
    };
    if !allowed.cover(Rights::of(role)) {
        return Err(Problem::forbidden(format!(
            "a token of role {} would allow more than its user or its maker may",
            role.name()
        )));
    }
    let now_ms = app.clock.now_ms();
    let expires_ms = new.expires_at.map(Timestamp::as_millisecond);
    if expires_ms.is_some_and(|at| at <= now_ms) {
        return Err(Problem::field("expiresAt", "must be in the future"));
    }
    // A token that expires must not live on in one it made.
    if let Some(until) = caller.until_ms
        && expires_ms.is_none_or(|at| at > until)
    {
        let why = format!(
            "must not be later than the caller's own token's: {}",
            output::time(until)
        );
        return Err(Problem::field("expiresAt", why));
    }
    let secret = new_secret().map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    })?;
    let token = NewToken {
        id: TokenId(new_id()),
        hash: hash(&secret),
        user: user.map(|u| u.id),
        role,
        label: new.label.map_or_else(|| "api".to_owned(), |text| text.0),
        expires_ms,
    };
    let token = app.store.add_token(token, caller.actor(&app, None)).await?;
    let mut shown = output::token(&token);
    shown["token"] = json!(secret);
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let of = match &caller.user {
        _ if caller.rights.read_all => None,
        Some(user) => Some(user.id),
        None => return Ok(Json(json!({"items": []}))),
    };
    let tokens = app.store.tokens(of).await?;
    Ok(Json(
        json!({"items": tokens.iter().map(output::token).collect::<Vec<_>>()}),
    ))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer {
    let token = found("token", &id, |id| app.store.token(id))?;
    // Ending one's own token takes no right: whoever lost one must be able to.
    if !caller.is_admin() && !token.user.is_some_and(|user| caller.is(user)) {
        return Err(if caller.rights.read_all {
            Problem::forbidden("only its user and administrators may revoke a token")
        } else {
            Problem::not_found("token", &id)
        });
    }
    let actor = caller.actor(&app, None);
    app.store.revoke_token(token.id, actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
