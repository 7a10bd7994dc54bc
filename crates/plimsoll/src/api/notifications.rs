//! `/api/notifications`: what the caller was told, and how it gets to people.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::notice::{About, Event, EventKind};
use plimsoll_store::{Actor, Delivery, DeliveryState, Inbox};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::input::{Body, Params, next_page, page_size};
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    state: Option<String>,
    limit: Option<u32>,
}

/// What is on its way over channels, and what became of it.
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let most = page_size(which.limit)?;
    let state = match which.state.as_deref() {
        None => None,
        Some(name) => Some(
            DeliveryState::from_name(name)
                .ok_or_else(|| Problem::field("state", "must be waiting, sent or failed"))?,
        ),
    };
    let found = app.store.deliveries(state, most).await?;
    let items: Vec<Value> = found.iter().map(delivery).collect();
    Ok(Json(json!({"items": items})))
}

fn delivery(of: &Delivery) -> Value {
    let is_waiting = of.state == DeliveryState::Waiting;
    json!({
        "id": of.id, "channel": of.channel.name(), "user": of.user_name, "kind": of.event.kind,
        "title": of.event.title, "at": output::time(of.at_ms), "state": of.state.name(),
        "tries": of.tries, "nextAt": output::opt_time(is_waiting.then_some(of.next_ms)),
        "settledAt": output::opt_time(of.settled_ms), "error": of.error,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial {
    user: Option<String>,
}

/// Tells somebody, or the administrators, that they can be reached.
pub(super) async fn test(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(trial): Body<Trial>,
) -> Answer {
    let about = match (&trial.user, &caller.user) {
        (Some(user), _) => {
            let user = caller.user(&app, user).await?;
            caller.acts_for(&user)?;
            About::user(user.id, user.name)
        }
        (None, Some(me)) => About::user(me.id, me.name.clone()),
        (None, None) => {
            caller.admin()?;
            About::system(app.lease.host.clone())
        }
    };
    let now_ms = app.clock.now_ms();
    let title = "A test: what you read this in reaches you";
    let event = Event::new(EventKind::Test, about, title, "/mine", now_ms).by(caller.name.clone());
    // By nobody: whoever asks for it is told, too.
    let actor = Actor {
        name: "plimsoll".to_owned(),
        at_ms: now_ms,
        reason: None,
    };
    app.store
        .notify(format!("test:{}", new_id()), event, actor)
        .await?;
    app.wake.deliver.notify_waiters();
    Ok(StatusCode::ACCEPTED.into_response())
}
