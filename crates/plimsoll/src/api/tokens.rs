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

use super::auth::{Caller, hash, new_secret};
use super::input::Body;
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
    label: Option<String>,
    expires_at: Option<Timestamp>,
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    let user = match &new.user {
        Some(name) => {
            let user = app.store.user(name)?;
            caller.acts_for(&user)?;
            Some(user)
        }
        // Without a user a token is nobody's: administrators' automation.
        None if caller.is_admin() => None,
        None => caller.user.clone(),
    };
    let most = user
        .as_ref()
        .map_or(Role::Admin, |u| u.role)
        .min(caller.role);
    let wanted = new
        .role
        .as_deref()
        .map_or(Ok(most), |text| role("role", text))?;
    if wanted > most {
        return Err(Problem::forbidden(format!(
            "a token here can be {} at most",
            most.name()
        )));
    }
    let now_ms = app.clock.now_ms();
    if new
        .expires_at
        .is_some_and(|at| at.as_millisecond() <= now_ms)
    {
        return Err(Problem::field("expiresAt", "must be in the future"));
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
        role: wanted,
        label: new.label.unwrap_or_else(|| "api".to_owned()),
        expires_ms: new.expires_at.map(Timestamp::as_millisecond),
    };
    let token = app.store.add_token(token, caller.actor(&app, None)).await?;
    let mut shown = output::token(&token);
    shown["token"] = json!(secret);
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let of = if caller.is_admin() {
        None
    } else {
        let user = caller.user.as_ref();
        Some(
            user.ok_or_else(|| Problem::forbidden("only administrators may see this"))?
                .id,
        )
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
    let id: TokenId = id.parse().map_err(|_| Problem::not_found("token", &id))?;
    if !caller.is_admin() {
        let of = caller.user.as_ref().map(|u| u.id);
        let mine = app
            .store
            .tokens(of)
            .await?
            .into_iter()
            .any(|t| t.id == id && t.user == of);
        if of.is_none() || !mine {
            return Err(Problem::not_found("token", &id.to_string()));
        }
    }
    app.store.revoke_token(id, caller.actor(&app, None)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
