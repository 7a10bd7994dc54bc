//! Responses, and reading request bodies within bounds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use plimsoll_host::engine::{BoxError, EngineBody};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Sleep;

use super::refused::Refused;
use crate::limits::Place;

/// The body of a response.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The most bytes of a JSON request body.
const JSON_MAX: usize = 4 << 20;

/// Bodies up to here are read at once; of larger ones each uid has few at a time.
pub(super) const SMALL_BODY: usize = 64 << 10;

/// How long a tenant may take to send one.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a stream that are passed on at once, where they are there.
const PIECE: usize = 64 << 10;

/// After less than this it pays to wait for more.
const SMALL_PIECE: usize = 4 << 10;

/// How long that is; nobody who watches a log sees it.
const GATHERING: Duration = Duration::from_millis(1);

/// The most bytes of an engine's answer that is read whole before it is passed on.
const ENGINE_JSON_MAX: usize = 256 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The engine's body, passed on as it comes.
pub(super) fn passed(body: EngineBody) -> Body {
    let gathered = Gathered {
        body,
        bytes: BytesMut::new(),
        failed: None,
        rest: None,
    };
    gathered.boxed_unsync()
}

/// What is there already in one piece, and after a small piece not at once the next: the engine sends
/// a log in a chunk for each line, and each chunk has its price.
struct Gathered {
    body: EngineBody,
    bytes: BytesMut,
    /// What comes behind the bytes.
    failed: Option<BoxError>,
    /// Until then what comes is left to gather.
    rest: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Gathered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(rest) = &mut this.rest {
            ready!(rest.as_mut().poll(cx));
            this.rest = None;
        }
        let came = loop {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if this.bytes.is_empty() && data.len() >= PIECE {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    this.bytes.extend_from_slice(&data);
                    if this.bytes.len() >= PIECE {
                        break Poll::Ready(None);
                    }
                }
                Poll::Ready(Some(Err(error))) if this.bytes.is_empty() => {
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.failed = Some(error.into());
                    break Poll::Ready(None);
                }
                Poll::Ready(None) => break Poll::Ready(None),
                Poll::Pending => break Poll::Pending,
            }
        };
        if this.bytes.is_empty() {
            return came;
        }
        if came.is_pending() && this.bytes.len() < SMALL_PIECE {
            this.rest = Some(Box::pin(tokio::time::sleep(GATHERING)));
        }
        Poll::Ready(Some(Ok(Frame::data(this.bytes.split().freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + self.bytes.len() as u64);
        }
        hint
    }
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("answers are plain JSON");
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

pub(super) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// A response of the engine with its own head: status and content type, nothing else.
pub(super) fn relayed(response: Response<EngineBody>) -> Response<Body> {
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let (head, body) = response.into_parts();
    let mut relayed = Response::new(passed(body));
    *relayed.status_mut() = head.status;
    if let Some(content_type) = content_type {
        relayed.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    relayed
}

/// Reads a JSON body. The Content-Type is pinned, because the engine accepts forms, too.
pub(super) fn read_json(
    headers: &HeaderMap,
    body: Result<Bytes, Refused>,
) -> Result<Bytes, Refused> {
    let bytes = body?;
    let declared = headers.get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
    let essence = declared.map(|v| {
        v.split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase()
    });
    match essence.as_deref() {
        Some("application/json") => Ok(bytes),
        None if bytes.is_empty() => Ok(bytes),
        other => Err(Refused::bad(
            "Content-Type",
            format!(
                "must be application/json, not {}",
                other.unwrap_or("absent")
            ),
        )),
    }
}

/// Reads the body of a request that has none; `{}` counts as none.
pub(super) fn read_nothing(body: Result<Bytes, Refused>) -> Result<(), Refused> {
    let bytes = body?;
    match bytes.trim_ascii() {
        b"" | b"{}" | b"null" => Ok(()),
        _ => Err(Refused::bad(
            "body",
            "must be empty on this route".to_owned(),
        )),
    }
}

/// Reads a request's body whole, within [`JSON_MAX`] and [`BODY_TIMEOUT`].
pub(super) async fn read_bounded(body: Incoming, place: &Place) -> Result<Bytes, Refused> {
    match tokio::time::timeout(BODY_TIMEOUT, read_frames(body, place)).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(Refused::bad(
                "body",
                format!("did not arrive within {seconds} s"),
            ))
        }
    }
}

async fn read_frames(body: Incoming, place: &Place) -> Result<Bytes, Refused> {
    let mut body = Limited::new(body, JSON_MAX);
    let mut bytes = BytesMut::new();
    let mut large = None;
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Refused::TooLarge { most: JSON_MAX });
            }
            Err(error) => {
                return Err(Refused::bad("body", format!("cannot be read: {error}")));
            }
        };
        if bytes.len() + data.len() > SMALL_BODY && large.is_none() {
            large = place.large_body().await;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads an engine's JSON answer whole; its refusals become ours.
pub(super) async fn engine_json(response: Response<EngineBody>) -> Result<Value, Refused> {
    let status = response.status();
    let bytes = engine_bytes(response).await?;
    if status.is_client_error() || status.is_server_error() {
        return Err(Refused::Engine {
            status,
            message: engine_message(&bytes),
        });
    }
    serde_json::from_slice(&bytes).map_err(|_| Refused::EngineNonsense)
}

/// An engine's answer as it is, unless it is a refusal.
pub(super) async fn accepted(
    response: Response<EngineBody>,
) -> Result<Response<EngineBody>, Refused> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let bytes = engine_bytes(response).await?;
        return Err(Refused::Engine {
            status,
            message: engine_message(&bytes),
        });
    }
    Ok(response)
}

pub(super) async fn engine_bytes(response: Response<EngineBody>) -> Result<Bytes, Refused> {
    let collected = Limited::new(response.into_body(), ENGINE_JSON_MAX)
        .collect()
        .await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_| Refused::EngineNonsense)
}

fn engine_message(bytes: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(bytes).ok();
    let message = value.as_ref().and_then(|v| v["message"].as_str());
    message.map_or_else(
        || String::from_utf8_lossy(bytes).trim().to_owned(),
        str::to_owned,
    )
}
