//! `GET /api/hosts` and the like: what the system is made of.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use plimsoll_core::ladder::Policy;
use plimsoll_core::quota::QuotaClass;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, Text};
use super::output;
use super::problem::Answer;
use crate::state::App;

/// Quota classes with their limits.
pub(super) async fn classes(State(app): State<Arc<App>>, _caller: Caller) -> Answer<Json<Value>> {
    let classes = app.store.classes().await?;
    let items: Vec<Value> = classes.iter().map(shown).collect();
    Ok(Json(json!({"items": items})))
}

fn shown(class: &QuotaClass) -> Value {
    let mut shown = output::max_fields(&class.limits);
    shown.insert("name".to_owned(), json!(class.name));
    shown.insert("ladder".to_owned(), json!(class.ladder));
    Value::Object(shown)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassChange {
    ladder: Policy,
    reason: Option<Text>,
}

pub(super) async fn put_class(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(class): Path<String>,
    Body(change): Body<ClassChange>,
) -> Answer<Json<Value>> {
    caller.admin()?;
    let actor = caller.actor(&app, change.reason.map(|text| text.0));
    let class = app
        .store
        .set_class_ladder(class, change.ladder, actor)
        .await?;
    app.wake.ladder.notify_one();
    Ok(Json(shown(&class)))
}
