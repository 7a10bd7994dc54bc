//! Long-lived answers: hijacked connections, and JSON lines that are looked at as they pass.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use plimsoll_host::engine::{BoxError, EngineBody, Upgrade, empty, full};
use plimsoll_host::request::query::QueryBuilder;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::answer::{self, Body};
use super::refused::Refused;
use super::resolve;
use super::route::Call;
use crate::state::App;

/// The longest JSON line that is looked at.
const LINE_MAX: usize = 4 << 20;

pub(super) async fn attach(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let mut query = QueryBuilder::new();
    for name in ["logs", "stream", "stdin", "stdout", "stderr"] {
        query = query.bool(name, call.query.bool(name)?);
    }
    query = query.opt_str("detachKeys", call.query.str("detachKeys").as_deref());
    call.query.finish()?;
    let path = format!("/containers/{}/attach{}", owned.id, query.finish());
    hijack(&call.app, &call.headers, call.upgrade, &path, None).await
}

/// Sends a request that turns its connection into a raw stream, and joins the caller's to it. A caller
/// that did not ask for an upgrade gets the output as an ordinary body.
pub(super) async fn hijack(
    app: &Arc<App>,
    headers: &HeaderMap,
    client: OnUpgrade,
    path: &str,
    body: Option<String>,
) -> Result<Response<Body>, Refused> {
    let json = [(CONTENT_TYPE, "application/json")];
    let (body, own_headers) = match body {
        Some(text) => (full(text), json.as_slice()),
        None => (empty(), [].as_slice()),
    };
    let wants_upgrade = headers
        .get(UPGRADE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"));
    if !wants_upgrade {
        let sent = app
            .engine
            .send(Method::POST, path, own_headers, body, None)
            .await?;
        return Ok(answer::relayed(answer::accepted(sent).await?));
    }
    match app
        .engine
        .upgrade(Method::POST, path, own_headers, body, None)
        .await?
    {
        Upgrade::Answered(response) => Ok(answer::relayed(answer::accepted(response).await?)),
        Upgrade::Switched { head, io } => {
            tokio::spawn(async move {
                match client.await {
                    Ok(client) => join(TokioIo::new(client), TokioIo::new(io)).await,
                    Err(error) => tracing::debug!(%error, "a client left before its stream began"),
                }
            });
            let mut response = Response::new(answer::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let out = response.headers_mut();
            out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            out.insert(UPGRADE, HeaderValue::from_static("tcp"));
            if let Some(content_type) = head.headers().get(CONTENT_TYPE) {
                out.insert(CONTENT_TYPE, content_type.clone());
            }
            Ok(response)
        }
    }
}

/// Copies both ways until the engine has nothing more to say. The end of the client's input is passed
/// on and does not end its output.
async fn join(
    client: impl AsyncRead + AsyncWrite + Unpin,
    engine: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut engine_read, mut engine_write) = tokio::io::split(engine);
    let input = async {
        let copied = tokio::io::copy(&mut client_read, &mut engine_write).await;
        let _ = engine_write.shutdown().await;
        // A client whose connection broke, rather than ended its input, wants no output either.
        if copied.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let output = async {
        let _ = tokio::io::copy(&mut engine_read, &mut client_write).await;
        let _ = client_write.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

/// Passes the engine's JSON objects on as they come, one a line, each through `show`; what it does not
/// show is left out.
pub(super) fn lines(
    response: Response<EngineBody>,
    show: impl FnMut(Value) -> Option<Value> + Send + 'static,
) -> Response<Body> {
    struct Passing<F> {
        body: EngineBody,
        pending: BytesMut,
        show: F,
    }
    let start = Passing {
        body: response.into_body(),
        pending: BytesMut::new(),
        show,
    };
    let frames = stream::unfold(start, |mut state| async move {
        loop {
            if let Some(end) = state.pending.iter().position(|b| *b == b'\n') {
                let line = state.pending.split_to(end);
                state.pending.advance(1);
                if let Some(shown) = shown_line(&line, &mut state.show) {
                    return Some((Ok(Frame::data(shown)), state));
                }
                continue;
            }
            if state.pending.len() > LINE_MAX {
                let error: BoxError = "the engine sent a line that is too long".into();
                return Some((Err(error), state));
            }
            match state.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        state.pending.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Some((Err(BoxError::from(error)), state)),
                None if state.pending.is_empty() => return None,
                None => {
                    let line = std::mem::take(&mut state.pending);
                    let shown = shown_line(&line, &mut state.show)?;
                    return Some((Ok::<_, BoxError>(Frame::data(shown)), state));
                }
            }
        }
    });
    let mut out = Response::new(StreamBody::new(frames).boxed_unsync());
    out.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    out
}

fn shown_line(line: &[u8], show: &mut impl FnMut(Value) -> Option<Value>) -> Option<Bytes> {
    let value = serde_json::from_slice(line).ok()?;
    let mut text = serde_json::to_vec(&show(value)?).ok()?;
    text.push(b'\n');
    Some(text.into())
}
