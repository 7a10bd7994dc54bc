//! Stop, kill, pause, wait, rename, resize, remove: own containers only. What changes a charge settles
//! the container before it answers, but never waits long for the ledger.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use plimsoll_host::engine::{BoxError, empty};
use plimsoll_host::request::path::container_name;
use plimsoll_host::request::query::{Query, QueryBuilder};
use plimsoll_store::User;

use super::answer::{self, Body};
use super::names;
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::start;
use super::upstream;
use crate::settle::settle;
use crate::state::App;
use crate::tasks::in_full;

/// How long an answer waits for the ledger after the engine has acted.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

/// The query of stop and restart, written anew.
pub(super) fn stop_query(query: &mut Query) -> Result<String, Refused> {
    let mut out = QueryBuilder::new();
    if let Some(t) = query.i64("t")? {
        out = out.i64("t", t);
    }
    if let Some(signal) = signal(query)? {
        out = out.str("signal", &signal);
    }
    Ok(out.finish())
}

fn signal(query: &mut Query) -> Result<Option<String>, Refused> {
    let signal = query.str("signal");
    let plain = |s: &String| {
        s.len() <= 16
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b))
    };
    match signal {
        Some(signal) if !plain(&signal) => Err(Refused::bad(
            "query signal",
            "is not the name or number of a signal".to_owned(),
        )),
        signal => Ok(signal),
    }
}

pub(super) async fn stop(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = stop_query(&mut call.query)?;
    acted(call, owned, Method::POST, &format!("/stop{query}"), None).await
}

pub(super) fn kill_query(query: &mut Query) -> Result<String, Refused> {
    let signal = signal(query)?;
    let query = QueryBuilder::new().opt_str("signal", signal.as_deref());
    Ok(query.finish())
}

pub(super) async fn kill(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = kill_query(&mut call.query)?;
    let patience = Some(call.app.engine.patience().call);
    acted(
        call,
        owned,
        Method::POST,
        &format!("/kill{query}"),
        patience,
    )
    .await
}

pub(super) async fn pause(
    call: Call,
    reference: &str,
    verb: &'static str,
) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    if verb == "unpause" {
        start::may_move(&call.app, &owned.reservation)?;
    }
    let patience = Some(call.app.engine.patience().call);
    acted(call, owned, Method::POST, &format!("/{verb}"), patience).await
}

/// Whether a removal takes the container's volumes along, and its query, written anew.
pub(super) fn remove_query(query: &mut Query) -> Result<(bool, String), Refused> {
    let (volumes, force) = (query.bool("v")?, query.bool("force")?);
    if query.bool("link")? {
        return Err(Refused::denied(
            "policy",
            "links between containers are not open here",
        ));
    }
    Ok((volumes, QueryBuilder::new().bool("force", force).finish()))
}

pub(super) async fn remove(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let (volumes, query) = remove_query(&mut call.query)?;
    let app = Arc::clone(&call.app);
    let going = if volumes {
        super::volumes::go_with(&app, &call.user, &owned).await?
    } else {
        Vec::new()
    };
    let patience = Some(app.engine.patience().call);
    let removed = acted(call, owned, Method::DELETE, &query, patience).await;
    if removed.is_err() {
        for (volume, before) in going {
            app.store.goes_with(volume, before).await?;
        }
    }
    removed
}

/// Removes a container that does not run, and its charge.
pub(super) async fn remove_ended(app: &Arc<App>, id: &str) -> Result<(), Refused> {
    let _moves = app.standstill.share(id).await;
    app.engine.remove(id, false).await?;
    settle_soon(app, id).await;
    Ok(())
}

pub(super) async fn resize(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = size_query(&mut call.query)?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let path = format!("/containers/{}/resize{query}", owned.id);
    let done = upstream::post(&call.app, &path).await?;
    Ok(answer::status(done.status()))
}

/// Height and width of a terminal.
pub(super) fn size_query(query: &mut Query) -> Result<String, Refused> {
    let (h, w) = (query.i64("h")?.unwrap_or(0), query.i64("w")?.unwrap_or(0));
    Ok(QueryBuilder::new().i64("h", h).i64("w", w).finish())
}

pub(super) async fn rename(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let name = call.query.str("name").unwrap_or_default();
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let name = container_name(&name)?.to_owned();
    let (app, user) = (call.app, call.user);
    // Finished even if the client goes away: the two names never part.
    let done = tokio::spawn(async move { rename_own(&app, &user, &owned, name).await }).await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

async fn rename_own(
    app: &App,
    user: &User,
    owned: &Owned,
    name: String,
) -> Result<Response<Body>, Refused> {
    let _held = app.container_locks.lock(&owned.id).await;
    // The ledger first: it is where names are unique, and the easier of the two to take back.
    app.store.rename(owned.reservation.id, name.clone()).await?;
    let engine_name = names::in_engine(&user.name, user.id, &name);
    let query = QueryBuilder::new().str("name", &engine_name).finish();
    let path = format!("/containers/{}/rename{query}", owned.id);
    match upstream::post(app, &path).await {
        Ok(response) => Ok(answer::status(response.status())),
        Err(refused) => {
            app.store
                .rename(owned.reservation.id, names::shown(&owned.reservation))
                .await?;
            Err(refused.renamed(&engine_name, &name))
        }
    }
}

/// Sends an act on a container whose charge may follow from it, and settles.
async fn acted(
    call: Call,
    owned: Owned,
    method: Method,
    rest: &str,
    timeout: Option<Duration>,
) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let path = format!("/containers/{}{rest}", owned.id);
    let app = call.app;
    let _moves = app.standstill.share(&owned.id).await;
    let sent = app
        .engine
        .send(method, &path, &[], empty(), timeout)
        .await?;
    let answered = answer::accepted(sent).await;
    settle_soon(&app, &owned.id).await;
    let response = answered.map_err(|refused| {
        refused.renamed(
            &names::of(&owned.reservation),
            &names::shown(&owned.reservation),
        )
    })?;
    Ok(answer::status(response.status()))
}

/// Settles a container, waiting for it as long as [`SETTLE_PATIENCE`]; it goes on by itself after that.
pub(super) async fn settle_soon(app: &Arc<App>, container: &str) {
    let (settled, id) = (Arc::clone(app), container.to_owned());
    let task = tokio::spawn(async move {
        if let Err(error) = settle(&settled, &id).await {
            tracing::debug!(
                container = id,
                error = in_full(&error),
                "left to the reconciler"
            );
            settled.wake.reconcile.notify_one();
        }
    });
    let _ = tokio::time::timeout(SETTLE_PATIENCE, task).await;
}

pub(super) fn wait_query(query: &mut Query) -> Result<String, Refused> {
    let condition = query.str("condition");
    if let Some(condition) = &condition
        && !matches!(condition.as_str(), "not-running" | "next-exit" | "removed")
    {
        return Err(Refused::bad(
            "query condition",
            "must be not-running, next-exit or removed".to_owned(),
        ));
    }
    let query = QueryBuilder::new().opt_str("condition", condition.as_deref());
    Ok(query.finish())
}

pub(super) async fn wait(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = wait_query(&mut call.query)?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let path = format!("/containers/{}/wait{query}", owned.id);
    let app = call.app;
    let sent = app
        .engine
        .send(Method::POST, &path, &[], empty(), None)
        .await?;
    let response = answer::accepted(sent).await?;
    // The head goes out now, because clients start the container only after it; the body when the
    // container has ended and what it held is free.
    let body = stream::once(async move {
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(BoxError::from)?
            .to_bytes();
        settle_soon(&app, &owned.id).await;
        Ok::<Frame<Bytes>, BoxError>(Frame::data(bytes))
    });
    let mut relayed = Response::new(StreamBody::new(body).boxed_unsync());
    *relayed.status_mut() = StatusCode::OK;
    relayed.headers_mut().insert(
        "content-type",
        "application/json".parse().expect("a plain header"),
    );
    Ok(relayed)
}
