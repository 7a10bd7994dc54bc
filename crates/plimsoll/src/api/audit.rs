//! `GET /api/audit`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Params, next_page, page_size};
use super::output;
use super::problem::Answer;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    cursor: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let most = page_size(page.limit)?;
    let entries = app.store.audit(page.cursor, most).await?;
    let state = |text: &Option<String>| {
        text.as_deref()
            .and_then(|t| serde_json::from_str::<Value>(t).ok())
            .unwrap_or(Value::Null)
    };
    let next = next_page(&entries, most, |e| e.seq);
    let items: Vec<Value> = entries
        .iter()
        .map(|e| {
            json!({
                "seq": e.seq, "at": output::time(e.at_ms), "actor": e.actor, "action": e.action,
                "entityType": e.entity_kind, "entity": e.entity, "before": state(&e.before),
                "after": state(&e.after), "reason": e.reason,
            })
        })
        .collect();
    Ok(Json(json!({"items": items, "nextCursor": next})))
}
