//! `/api/notifications`: what the caller was told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use plimsoll_store::Inbox;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::input::{Params, next_page, page_size};
use super::output;
use super::problem::{Answer, Problem};
use crate::notify;
use crate::state::App;

/// The inbox of a caller: administrators who are no users share one.
pub(super) fn inbox(caller: &Caller) -> Result<Inbox, Problem> {
    match &caller.user {
        Some(user) => Ok(Inbox::User(user.id)),
        None => caller.admin().map(|()| Inbox::Administrators),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    unread: bool,
    cursor: Option<Uuid>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Answer<Json<Value>> {
    let whose = inbox(&caller)?;
    let most = page_size(page.limit)?;
    let told = app
        .store
        .inbox(whose, page.unread, page.cursor, most)
        .await?;
    let next = next_page(&told, most, |n| n.id);
    let items: Vec<Value> = told
        .iter()
        .map(|n| {
            let mut item = notify::json(&n.event);
            item["id"] = json!(n.id);
            item["at"] = output::time(n.at_ms);
            item["readAt"] = output::opt_time(n.read_ms);
            item
        })
        .collect();
    let unread = app.store.unread(whose)?;
    Ok(Json(
        json!({"items": items, "nextCursor": next, "unread": unread}),
    ))
}

pub(super) async fn read_all(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    read(&app, &caller, None).await
}

pub(super) async fn read_one(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let absent = |_| Problem::not_found("notification", &id);
    read(&app, &caller, Some(id.parse().map_err(absent)?)).await
}

async fn read(app: &App, caller: &Caller, id: Option<Uuid>) -> Answer<Json<Value>> {
    let whose = inbox(caller)?;
    app.store.mark_read(whose, id, app.clock.now_ms()).await?;
    Ok(Json(json!({"unread": app.store.unread(whose)?})))
}
