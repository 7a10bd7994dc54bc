//! `/healthz` and `/readyz`

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::output;
use crate::engine_facts::engine_facts;
use crate::state::App;
use crate::tasks::in_full;

/// Whoever asks for health waits no longer for an engine that hangs.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(2);

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

async fn engine_answers(app: &App) -> Result<(), String> {
    engine_facts(app).await.map_err(|e| in_full(&e))?;
    let version = app.engine.negotiate().await;
    version.map(drop).map_err(|e| in_full(&e))
}

/// Everything a request may need is there. Says what is missing otherwise.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ledger = app.store.ping().await.map_err(|e| in_full(&e));
    let engine = tokio::time::timeout(ENGINE_TIMEOUT, engine_answers(&app)).await;
    let engine = engine.unwrap_or_else(|_| {
        let seconds = ENGINE_TIMEOUT.as_secs();
        Err(format!(
            "the container engine did not answer within {seconds} s: restart it if it stays so"
        ))
    });
    let ready = ledger.is_ok() && engine.is_ok();
    let said = |outcome: &Result<(), String>| match outcome {
        Ok(()) => json!("ok"),
        Err(why) => json!(why),
    };
    let tasks: serde_json::Map<String, Value> = app
        .tasks
        .all()
        .into_iter()
        .map(|(name, status)| {
            let (ok, text) = match &status.outcome {
                Ok(text) => (true, text),
                Err(text) => (false, text),
            };
            let shown = json!({
                "ok": ok, "outcome": text, "at": output::time(status.at_ms),
                "tookMs": status.took_us as f64 / 1000.0, "runs": status.runs,
            });
            (name.to_owned(), shown)
        })
        .collect();
    let body = json!({
        "ready": ready, "ledger": said(&ledger), "engine": said(&engine), "tasks": tasks,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}
