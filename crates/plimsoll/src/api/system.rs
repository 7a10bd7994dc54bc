//! `GET /api/hosts` and the like: what the system is made of.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::auth::Caller;
use super::output;
use super::problem::Answer;
use crate::state::App;

/// Quota classes with their limits.
pub(super) async fn classes(State(app): State<Arc<App>>, _caller: Caller) -> Answer<Json<Value>> {
    let classes = app.store.classes().await?;
    let items: Vec<Value> = classes
        .iter()
        .map(|class| {
            let mut shown = output::max_fields(&class.limits);
            shown.insert("name".to_owned(), json!(class.name));
            Value::Object(shown)
        })
        .collect();
    Ok(Json(json!({"items": items})))
}
