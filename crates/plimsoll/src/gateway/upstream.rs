//! Short questions to the engine: those that are answered at once, or not at all.

use http::header::CONTENT_TYPE;
use http::{Method, Response};
use plimsoll_host::engine::{EngineBody, empty, full};
use serde_json::Value;

use super::answer;
use super::refused::Refused;
use crate::state::App;

/// The JSON behind a path.
pub(super) async fn get(app: &App, path: &str) -> Result<Value, Refused> {
    let sent = app
        .engine
        .send(
            Method::GET,
            path,
            &[],
            empty(),
            Some(app.engine.patience().call),
        )
        .await?;
    answer::engine_json(sent).await
}

/// An act without a body.
pub(super) async fn post(app: &App, path: &str) -> Result<Response<EngineBody>, Refused> {
    let sent = app
        .engine
        .send(
            Method::POST,
            path,
            &[],
            empty(),
            Some(app.engine.patience().call),
        )
        .await?;
    answer::accepted(sent).await
}

/// An act with a JSON body that Plimsoll wrote.
pub(super) async fn post_json(
    app: &App,
    path: &str,
    body: String,
) -> Result<Response<EngineBody>, Refused> {
    let headers = [(CONTENT_TYPE, "application/json")];
    let sent = app
        .engine
        .send(
            Method::POST,
            path,
            &headers,
            full(body),
            Some(app.engine.patience().call),
        )
        .await?;
    answer::accepted(sent).await
}

/// What the engine sends for as long as it has something to send: logs, stats, events.
pub(super) async fn follow(app: &App, path: &str) -> Result<Response<EngineBody>, Refused> {
    let sent = app
        .engine
        .send(Method::GET, path, &[], empty(), None)
        .await?;
    answer::accepted(sent).await
}
