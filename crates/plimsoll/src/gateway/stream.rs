//! Long-lived answers: hijacked connections, and JSON lines that are looked at as they pass.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use plimsoll_host::engine::{BoxError, EngineBody, Upgrade, empty, full};
use plimsoll_host::request::query::{Query, QueryBuilder};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::Connection;
use super::answer::{self, Body};
use super::refused::Refused;
use super::resolve;
use super::route::Call;
use crate::connections::{Ending, is_over};
use crate::state::App;

/// Bytes of input passed on at a time.
const INPUT_CHUNK: usize = 16 << 10;

/// How often it is looked whether a client that ended its input is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a client's input is still taken after the engine ended the stream. Closing at once would
/// have the kernel tell the client of a reset, and not of the end.
const LINGER: Duration = Duration::from_secs(2);

/// The longest JSON line that is looked at.
const LINE_MAX: usize = 4 << 20;

pub(super) fn attach_query(query: &mut Query) -> Result<String, Refused> {
    let mut out = QueryBuilder::new();
    for name in ["logs", "stream", "stdin", "stdout", "stderr"] {
        out = out.bool(name, query.bool(name)?);
    }
    let keys = query.str("detachKeys");
    Ok(out.opt_str("detachKeys", keys.as_deref()).finish())
}

pub(super) async fn attach(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = attach_query(&mut call.query)?;
    call.query.finish()?;
    let path = format!("/containers/{}/attach{query}", owned.id);
    let (upgrade, connection) = (call.upgrade, call.connection);
    let ends = (upgrade, connection);
    hijack(&call.app, &call.headers, ends, &owned.id, &path, None).await
}

/// Sends a request that turns its connection into a raw stream, and joins the caller's to it. A caller
/// that did not ask for an upgrade gets the output as an ordinary body.
pub(super) async fn hijack(
    app: &Arc<App>,
    headers: &HeaderMap,
    (client, connection): (OnUpgrade, Arc<Connection>),
    container: &str,
    path: &str,
    body: Option<String>,
) -> Result<Response<Body>, Refused> {
    let json = [(CONTENT_TYPE, "application/json")];
    let (body, own_headers) = match body {
        Some(text) => (full(text), json.as_slice()),
        None => (empty(), [].as_slice()),
    };
    if !offers_raw_stream(headers) {
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
            let app = Arc::clone(app);
            let attended = app.attended.share(container).await;
            tokio::spawn(async move {
                let _attended = attended;
                let joined = async {
                    match client.await {
                        Ok(client) => join(client, io).await,
                        Err(error) => {
                            tracing::debug!(%error, "a client left before its stream began");
                        }
                    }
                };
                tokio::select! {
                    () = joined => {}
                    () = connection.barred(&app) => {}
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

/// `Connection: Upgrade` and `Upgrade: tcp`, as every Docker client writes them.
fn offers_raw_stream(headers: &HeaderMap) -> bool {
    let names = |name, wanted: &str| {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    names(CONNECTION, "upgrade") && names(UPGRADE, "tcp")
}

/// Copies both ways until the engine has nothing more to say or the client is gone. The end of the
/// client's input is passed on and does not end its output.
async fn join(client: Upgraded, engine: Upgraded) {
    let client = match client.downcast::<TokioIo<UnixStream>>() {
        Ok(client) => {
            let (from, to) = client.io.into_inner().into_split();
            return copy(from, client.read_buf, to, engine, socket_closed).await;
        }
        Err(client) => client,
    };
    let Ok(client) = client.downcast::<TokioIo<TlsStream<TcpStream>>>() else {
        tracing::error!("a hijacked connection is not a tenant's");
        return;
    };
    let stream = client.io.into_inner();
    let beneath = match second_handle(stream.get_ref().0) {
        Ok(beneath) => beneath,
        Err(error) => return tracing::warn!(%error, "a stream cannot be watched and is not begun"),
    };
    let (from, to) = tokio::io::split(stream);
    copy(from, client.read_buf, to, engine, async |_| {
        tcp_closed(&beneath).await;
    })
    .await;
}

async fn copy<R: AsyncRead + Unpin>(
    from_client: R,
    typed: Bytes,
    mut to_client: impl AsyncWrite + Unpin,
    engine: Upgraded,
    closed: impl AsyncFnOnce(R),
) {
    let (mut from_engine, to_engine) = tokio::io::split(TokioIo::new(engine));
    let mut input = pin!(input(from_client, typed, to_engine, closed));
    let output = async {
        let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = &mut input => return,
        () = output => {}
    }
    let _ = tokio::time::timeout(LINGER, input).await;
}

/// Passes a client's input on, and its end. Ends itself only when the client is gone: neither the end of
/// the input nor an engine that takes no more of it means that nobody reads the output.
async fn input<R: AsyncRead + Unpin>(
    mut client: R,
    typed: Bytes,
    engine: impl AsyncWrite + Unpin,
    closed: impl AsyncFnOnce(R),
) {
    let mut engine = Some(engine);
    let mut chunk = typed.to_vec();
    loop {
        if let Some(open) = &mut engine
            && open.write_all(&chunk).await.is_err()
        {
            // What is typed from here on is read and thrown away.
            engine = None;
        }
        chunk.resize(INPUT_CHUNK, 0);
        match client.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => chunk.truncate(read),
            // Within TLS an end is said; a connection that merely stops was cut, and half an input is no
            // input.
            Err(_) => return,
        }
    }
    if let Some(mut open) = engine {
        let _ = open.shutdown().await;
    }
    closed(client).await;
}

/// Waits until the client of a unix socket has closed it altogether. To a reader that looks the same as
/// the end of input.
async fn socket_closed(client: OwnedReadHalf) {
    while let Ok(ready) = client.ready(Interest::READABLE | Interest::WRITABLE).await
        && !ready.is_write_closed()
    {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A body that breaks off when the server is to end, unless its length is known: what is sent for as
/// long as there is something to send must not hold the server up, nor look complete.
pub(super) fn until(body: Body, ending: Ending) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    let frames = stream::unfold((body, ending), |(mut body, mut ending)| async move {
        let frame = tokio::select! {
            biased;
            () = is_over(&mut ending) => Err("the server is ending".into()),
            frame = body.frame() => frame?,
        };
        Some((frame, (body, ending)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The same over TCP: a client that ended its input within TLS closes the connection beneath it when it
/// goes.
async fn tcp_closed(beneath: &TcpStream) {
    while let Ok(ready) = beneath.ready(Interest::READABLE | Interest::WRITABLE).await
        && !ready.is_read_closed()
        && !ready.is_write_closed()
    {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Another handle of the same connection, to be looked at while the first is read and written.
fn second_handle(stream: &TcpStream) -> std::io::Result<TcpStream> {
    let handle = stream.as_fd().try_clone_to_owned()?;
    TcpStream::from_std(handle.into())
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

/// Two answers of [`lines`] in one.
pub(super) fn merged(one: Response<Body>, other: Response<Body>) -> Response<Body> {
    let (head, one) = one.into_parts();
    let frames = |body: Body| {
        stream::unfold(body, |mut body| async move {
            let frame = body.frame().await?;
            Some((frame, body))
        })
    };
    let both = stream::select(frames(one), frames(other.into_body()));
    Response::from_parts(head, StreamBody::new(both).boxed_unsync())
}

fn shown_line(line: &[u8], show: &mut impl FnMut(Value) -> Option<Value>) -> Option<Bytes> {
    let value = serde_json::from_slice(line).ok()?;
    let mut text = serde_json::to_vec(&show(value)?).ok()?;
    text.push(b'\n');
    Some(text.into())
}
