//! `/api/images`: which of the host's references are kept from tenants.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use plimsoll_host::request::image_reference::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Body;
use super::problem::{Answer, Problem};
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    reference: String,
    private: bool,
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let marked = app.store.marked_images()?;
    let items: Vec<Value> = marked
        .iter()
        .map(|reference| shown(reference, true))
        .collect();
    Ok(Json(json!({"items": items})))
}

pub(super) async fn mark(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(mark): Body<Mark>,
) -> Answer<Json<Value>> {
    caller.admin()?;
    let reference = Reference::parse(&mark.reference)
        .map_err(|error| Problem::field("reference", error.reason))?;
    if reference.tag().is_none() {
        return Err(Problem::field(
            "reference",
            "name a tag: a digest alone opens nothing to tenants",
        ));
    }
    let reference = reference.to_string();
    app.store
        .mark_image(reference.clone(), mark.private, caller.actor(&app, None))
        .await?;
    Ok(Json(shown(&reference, mark.private)))
}

fn shown(reference: &str, private: bool) -> Value {
    json!({"reference": reference, "private": private})
}
