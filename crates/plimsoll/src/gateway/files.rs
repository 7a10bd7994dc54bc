//! Files of own containers: `docker cp` both ways, `docker export`, `docker diff`.
//!
//! The engine looks paths up as root, on the host, and mounts the container's volumes there before it
//! reads or unpacks anything. Whoever swaps a folder for a link meanwhile chooses where on the host that
//! happens. So a container stands still while the engine reaches into it (see [`Still`]), and one that
//! has folders of the host mounted, where the tenant can swap things from outside, is refused.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use plimsoll_core::Dimension;
use plimsoll_host::engine::{BoxError, ContainerInspect, EngineBody, EngineError, empty};
use plimsoll_host::request::archive;
use plimsoll_host::request::query::{Filters, Query, QueryBuilder};
use plimsoll_store::{ObjectKind, User};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedRwLockWriteGuard, mpsc, oneshot};

use super::answer::{self, Body};
use super::images::pipe;
use super::names;
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::upstream;
use crate::state::App;
use crate::tasks::in_full;

const TAR: (HeaderName, &str) = (CONTENT_TYPE, "application/x-tar");
const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// The longest path that a kernel takes.
const PATH_MAX: usize = 4096;

/// How long a start, a stop or another copy under way may take before this one is told to come again.
const TURN_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a container that changes under our eyes is looked at.
const TRIES: usize = 3;

pub(super) async fn changes(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    call.query.finish()?;
    let path = format!("/containers/{}/changes", owned.id);
    let seen = upstream::get(&call.app, &path).await?;
    Ok(answer::json(StatusCode::OK, &seen))
}

/// What the container's image and its own layer hold. The engine packs it within that root, and leaves
/// out what is mounted there, folders of the host too.
pub(super) async fn export(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    call.query.finish()?;
    let path = format!("/containers/{}/export", owned.id);
    let (app, connection) = (call.app, call.connection);
    let (begun, answered) = oneshot::channel();
    tokio::spawn(async move {
        let _slot = connection.place.large_body().await;
        let response = upstream::follow(&app, &path).await;
        pump(response, begun, |_| Ok(HeaderMap::new())).await;
    });
    answered.await.unwrap_or(Err(Refused::EngineNonsense))
}

pub(super) async fn stat(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = QueryBuilder::new().str("path", &wanted(&mut call.query)?);
    call.query.finish()?;
    let path = format!("/containers/{}/archive{}", owned.id, query.finish());
    let (app, user) = (call.app, call.user);
    let done = tokio::spawn(async move {
        let still = Still::begin(&app, &user, &owned).await?;
        let patience = Some(app.engine.patience().call);
        let sent = app.engine.send(Method::HEAD, &path, &[], empty(), patience);
        let answered = accepted(sent.await, &owned).await;
        still.end(&app).await;
        let mut response = answer::status(StatusCode::OK);
        response.headers_mut().extend(path_stat(&answered?)?);
        Ok(response)
    });
    done.await.unwrap_or(Err(Refused::EngineNonsense))
}

pub(super) async fn download(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = QueryBuilder::new().str("path", &wanted(&mut call.query)?);
    call.query.finish()?;
    let path = format!("/containers/{}/archive{}", owned.id, query.finish());
    let (app, user, connection) = (call.app, call.user, call.connection);
    let (begun, answered) = oneshot::channel();
    // Finished even if the client goes away, or the container would stand still for ever.
    tokio::spawn(async move {
        let _slot = connection.place.large_body().await;
        let mut still = match Still::begin(&app, &user, &owned).await {
            Ok(still) => still,
            Err(refused) => return drop(begun.send(Err(refused))),
        };
        let sent = app
            .engine
            .send(Method::GET, &path, &[], empty(), None)
            .await;
        // The engine has mounted what it mounts.
        still.others = None;
        pump(accepted(sent, &owned).await, begun, path_stat).await;
        still.end(&app).await;
    });
    answered.await.unwrap_or(Err(Refused::EngineNonsense))
}

pub(super) async fn upload(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let upload = call.upload.take().ok_or(Refused::EngineNonsense)?;
    let judged = (|| {
        let owned = resolve::container(&call.app, &call.user, reference)?;
        let query = QueryBuilder::new()
            .str("path", &wanted(&mut call.query)?)
            .bool(
                "noOverwriteDirNonDir",
                call.query.bool("noOverwriteDirNonDir")?,
            )
            .bool("copyUIDGID", call.query.bool("copyUIDGID")?);
        std::mem::take(&mut call.query).finish()?;
        Ok((owned, query.finish()))
    })();
    let ((owned, query), upload) = pipe::or_drained(judged, upload).await?;
    let (app, user, connection) = (call.app, call.user, call.connection);
    let done = tokio::spawn(async move {
        let _slot = connection.place.large_body().await;
        let begun = Still::begin(&app, &user, &owned).await;
        let (still, upload) = pipe::or_drained(begun, upload).await?;
        let most = still.room;
        let (body, work) = pipe::converted(upload, move |from, to| archive::layer(from, to, most));
        let path = format!("/containers/{}/archive{query}", owned.id);
        let sent = app
            .engine
            .send(Method::PUT, &path, &[TAR], body, None)
            .await;
        let to_fit =
            "that is what the container and its volumes were charged for at their creation";
        let done = pipe::uploaded(sent, work, to_fit).await;
        still.end(&app).await;
        let (response, ()) = done.map_err(|refused| in_own_words(refused, &owned))?;
        Ok(answer::status(response.status()))
    });
    done.await.unwrap_or(Err(Refused::EngineNonsense))
}

/// The path a copy is about.
fn wanted(query: &mut Query) -> Result<String, Refused> {
    let path = query.str("path").filter(|path| path.len() < PATH_MAX);
    path.ok_or_else(|| Refused::bad("query path", "must be a path in the container".to_owned()))
}

async fn accepted(
    sent: Result<Response<EngineBody>, EngineError>,
    owned: &Owned,
) -> Result<Response<EngineBody>, Refused> {
    let answered = answer::accepted(sent?).await;
    answered.map_err(|refused| in_own_words(refused, owned))
}

fn in_own_words(refused: Refused, owned: &Owned) -> Refused {
    refused.renamed(&owned.id, &names::shown(&owned.reservation))
}

/// What the engine says of a file, made anew.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathStat {
    name: String,
    size: i64,
    mode: u32,
    mtime: jiff::Timestamp,
    #[serde(default)]
    link_target: String,
}

fn path_stat(response: &Response<EngineBody>) -> Result<HeaderMap, Refused> {
    let told = || {
        let text = BASE64_STANDARD
            .decode(response.headers().get(PATH_STAT)?)
            .ok()?;
        let stat: PathStat = serde_json::from_slice(&text).ok()?;
        let text = BASE64_STANDARD.encode(serde_json::to_vec(&stat).ok()?);
        HeaderValue::from_str(&text).ok()
    };
    let stat = told().ok_or(Refused::EngineNonsense)?;
    Ok(HeaderMap::from_iter([(PATH_STAT, stat)]))
}

/// Answers with an archive of the engine's and passes it on, until it is over, or its receiver has gone
/// or has taken nothing for [`pipe::SILENCE`]: the engine keeps the container locked meanwhile.
async fn pump(
    response: Result<Response<EngineBody>, Refused>,
    begun: oneshot::Sender<Result<Response<Body>, Refused>>,
    headers: impl Fn(&Response<EngineBody>) -> Result<HeaderMap, Refused>,
) {
    let answer = response.and_then(|response| Ok((headers(&response)?, response.into_body())));
    let (headers, mut body) = match answer {
        Ok(answer) => answer,
        Err(refused) => return drop(begun.send(Err(refused))),
    };
    let (frames, taken) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(pipe::CHUNKS);
    let passed = stream::unfold(taken, |mut taken| async move {
        let frame = taken.recv().await?;
        Some((frame, taken))
    });
    let mut response = Response::new(StreamBody::new(passed).boxed_unsync());
    *response.headers_mut() = headers;
    let tar = HeaderValue::from_static("application/x-tar");
    response.headers_mut().insert(CONTENT_TYPE, tar);
    if begun.send(Ok(response)).is_err() {
        return;
    }
    while let Some(frame) = body.frame().await {
        let sent = frames.send(frame.map_err(BoxError::from));
        if !matches!(tokio::time::timeout(pipe::SILENCE, sent).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A container that stands still: it does not run, or is paused, and nothing that the gateway takes
/// sets it in motion, nor another container with one of its volumes, which could hold the place of a
/// mount. It must be ended, or it stays paused.
struct Still {
    id: String,
    paused: bool,
    /// Bytes that it and its volumes are charged for.
    room: u64,
    others: Option<OwnedRwLockWriteGuard<()>>,
    _own: OwnedRwLockWriteGuard<()>,
}

impl Still {
    async fn begin(app: &App, user: &User, owned: &Owned) -> Result<Self, Refused> {
        let seen = inspect(app, owned).await?;
        if seen.mounts.iter().any(|mount| mount.r#type == "bind") {
            return Err(no_cp(&names::shown(&owned.reservation)));
        }
        let volumes: Vec<String> = seen
            .mounts
            .into_iter()
            .map(|m| m.name)
            .filter(|n| !n.is_empty())
            .collect();
        let others = match volumes.is_empty() {
            true => None,
            false => Some(turn(app, &user.id.to_string()).await?),
        };
        let own = turn(app, &owned.id).await?;
        let room = room(app, owned, &volumes)?;
        if let Some(other) = shared_with(app, user, owned, volumes).await? {
            return Err(busy(format!(
                "{other} runs with a volume of {}: stop it first, or use docker exec",
                names::shown(&owned.reservation)
            )));
        }
        let paused = pause(app, owned).await?;
        Ok(Self {
            id: owned.id.clone(),
            paused,
            room,
            others,
            _own: own,
        })
    }

    async fn end(self, app: &App) {
        if self.paused
            && let Err(error) = app.engine.unpause(&self.id).await
        {
            tracing::warn!(
                container = self.id,
                error = in_full(&error),
                "a container stays paused"
            );
        }
    }
}

fn no_cp(name: &str) -> Refused {
    Refused::denied(
        "policy",
        format!(
            "{name} has folders of the host mounted, where the engine would copy as root: copy in the \
             folder itself, or run tar as yourself: docker exec -i {name} tar -xf - -C FOLDER < FILES.tar"
        ),
    )
}

fn busy(message: String) -> Refused {
    Refused::Engine {
        status: StatusCode::CONFLICT,
        message,
    }
}

async fn turn(app: &App, key: &str) -> Result<OwnedRwLockWriteGuard<()>, Refused> {
    let turn = tokio::time::timeout(TURN_TIMEOUT, app.standstill.alone(key)).await;
    turn.map_err(|_| {
        busy("something else is done with the container: try again in a moment".to_owned())
    })
}

async fn inspect(app: &App, owned: &Owned) -> Result<ContainerInspect, Refused> {
    let seen = app.engine.inspect(&owned.id).await?;
    seen.ok_or_else(|| Refused::no_container(&names::shown(&owned.reservation)))
}

fn room(app: &App, owned: &Owned, volumes: &[String]) -> Result<u64, Refused> {
    let mut room = owned.reservation.claim.get(Dimension::Storage);
    for volume in volumes {
        let charged = app
            .store
            .by_engine_name(&app.lease.host, ObjectKind::Volume, volume)?;
        room = room.saturating_add(charged.map_or(0, |v| v.claim.get(Dimension::Storage)));
    }
    Ok(room)
}

/// Another container that runs with one of these volumes.
async fn shared_with(
    app: &App,
    user: &User,
    owned: &Owned,
    volumes: Vec<String>,
) -> Result<Option<String>, Refused> {
    if volumes.is_empty() {
        return Ok(None);
    }
    let filters = Filters::from([("volume".to_owned(), volumes)]);
    let path = format!(
        "/containers/json{}",
        QueryBuilder::new().filters(&filters).finish()
    );
    let Value::Array(running) = upstream::get(app, &path).await? else {
        return Err(Refused::EngineNonsense);
    };
    let mut ids = running
        .iter()
        .filter_map(|container| container["Id"].as_str());
    let Some(other) = ids.find(|id| *id != owned.id) else {
        return Ok(None);
    };
    let other = resolve::by_id(app, user, other)?;
    Ok(Some(other.map_or_else(
        || "another container".to_owned(),
        |r| names::shown(&r),
    )))
}

/// Pauses a container that runs; says whether it did.
async fn pause(app: &App, owned: &Owned) -> Result<bool, Refused> {
    for _ in 0..TRIES {
        let state = inspect(app, owned).await?.state;
        if state.restarting {
            break;
        }
        if !state.running || state.paused {
            return Ok(false);
        }
        match app.engine.pause(&owned.id).await {
            Ok(()) => return Ok(true),
            // It has just ended.
            Err(EngineError::Api { status, .. }) if status == StatusCode::CONFLICT => {}
            Err(error) => return Err(in_own_words(error.into(), owned)),
        }
    }
    let name = names::shown(&owned.reservation);
    Err(busy(format!(
        "{name} is about to be started by its restart policy: try again"
    )))
}
