//! The routes that are open. Everything else is refused.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use plimsoll_host::request::path::RequestPath;
use plimsoll_host::request::query::Query;
use plimsoll_store::User;

use super::Connection;
use super::answer::{self, Body};
use super::identity;
use super::refused::Refused;
use super::{
    create, events, exec, images, lifecycle, networks, start, stream, system, update, view, volumes,
};
use crate::engine_facts::engine_facts;
use crate::state::App;

/// A request, taken apart, of a known caller.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) user: User,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    /// Read before anything is decided: a client that is refused in the middle of sending sees a broken
    /// pipe in place of the reason.
    pub(super) body: Result<Bytes, Refused>,
    pub(super) upgrade: OnUpgrade,
    /// Counts for as long as anybody holds it.
    pub(super) connection: Arc<Connection>,
}

/// Answers one request.
pub(super) async fn answer(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let mut response = match dispatch(app, connection, request).await {
        Ok(response) => response,
        Err(refused) => refused.answer(),
    };
    if is_head {
        *response.body_mut() = answer::empty();
    }
    stamp(app, response.headers_mut());
    response
}

/// The headers by which clients know what they speak to.
fn stamp(app: &App, headers: &mut HeaderMap) {
    let api = app
        .engine
        .api_version()
        .map_or_else(|| "1.41".to_owned(), |v| v.to_string());
    if let Ok(api) = HeaderValue::from_str(&api) {
        headers.insert(HeaderName::from_static("api-version"), api);
    }
    for (name, value) in [
        ("ostype", "linux"),
        ("docker-experimental", "false"),
        (
            "server",
            concat!("Plimsoll/", env!("CARGO_PKG_VERSION"), " (linux)"),
        ),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
}

async fn dispatch(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = answer::read_bounded(body, &connection.place).await;
    connection.place.share().request(app.clock.monotonic())?;
    let path = RequestPath::parse(head.uri.path())?;
    let parts = path.parts();
    let method = head.method.clone();
    if head.uri.authority().is_some() {
        return Err(Refused::bad("path", "must not name a host".to_owned()));
    }
    // Clients ask this before anything else, and show its refusal badly.
    if parts == ["_ping"] {
        return system::ping(app, &method).await;
    }
    let user = identity::caller(app, &connection.peer).await?;
    if method == Method::OPTIONS {
        return Ok(answer::status(StatusCode::OK));
    }
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let call = Call {
        app: Arc::clone(app),
        user,
        headers: head.headers,
        query,
        body,
        upgrade,
        connection: Arc::clone(connection),
    };
    // Every open route needs an engine that was understood.
    engine_facts(app).await?;

    let get = method == Method::GET || method == Method::HEAD;
    let post = method == Method::POST;
    let delete = method == Method::DELETE;
    match parts.as_slice() {
        ["version"] if get => system::version(call).await,
        ["info"] if get => system::info(call).await,
        ["events"] if get => events::events(call).await,

        ["containers", "json"] if get => view::list(call).await,
        ["containers", "create"] if post => create::create(call).await,
        ["containers", id, "json"] if get => view::inspect(call, id).await,
        ["containers", id, "top"] if get => view::top(call, id).await,
        ["containers", id, "logs"] if get => view::logs(call, id).await,
        ["containers", id, "stats"] if get => view::stats(call, id).await,
        ["containers", id, "start"] if post => start::start(call, id).await,
        ["containers", id, "restart"] if post => start::restart(call, id).await,
        ["containers", id, "stop"] if post => lifecycle::stop(call, id).await,
        ["containers", id, "kill"] if post => lifecycle::kill(call, id).await,
        ["containers", id, "pause"] if post => lifecycle::pause(call, id, "pause").await,
        ["containers", id, "unpause"] if post => lifecycle::pause(call, id, "unpause").await,
        ["containers", id, "wait"] if post => lifecycle::wait(call, id).await,
        ["containers", id, "resize"] if post => lifecycle::resize(call, id).await,
        ["containers", id, "rename"] if post => lifecycle::rename(call, id).await,
        ["containers", id, "update"] if post => update::update(call, id).await,
        ["containers", id, "attach"] if post => stream::attach(call, id).await,
        ["containers", id, "exec"] if post => exec::create(call, id).await,
        ["containers", id] if delete => lifecycle::remove(call, id).await,

        ["exec", id, "start"] if post => exec::start(call, id).await,
        ["exec", id, "resize"] if post => exec::resize(call, id).await,
        ["exec", id, "json"] if get => exec::inspect(call, id).await,

        ["images", "json"] if get => images::list(call).await,
        ["images", name @ .., "json"] if get && !name.is_empty() => {
            images::inspect(call, &name.join("/")).await
        }
        ["images", name @ .., "history"] if get && !name.is_empty() => {
            images::history(call, &name.join("/")).await
        }
        ["networks"] if get => networks::list(call).await,
        ["networks", "create"] if post => networks::create(call).await,
        ["networks", "prune"] if post => networks::prune(call).await,
        ["networks", id] if get => networks::inspect(call, id).await,
        ["networks", id] if delete => networks::delete(call, id).await,
        ["networks", id, "connect"] if post => networks::connect(call, id).await,
        ["networks", id, "disconnect"] if post => networks::disconnect(call, id).await,

        // Tenants have none of these, and `docker inspect NAME` asks for each kind in turn.
        ["volumes"] if get => volumes::list(call).await,
        ["volumes", "create"] if post => volumes::create(call).await,
        ["volumes", "prune"] if post => volumes::prune(call).await,
        ["volumes", name] if get => volumes::inspect(call, name).await,
        ["volumes", name] if delete => volumes::delete(call, name).await,
        ["plugins", name, "json"] if get => {
            Err(Refused::NotFound(format!("plugin \"{name}\" not found")))
        }
        _ => Err(closed(&method, &parts)),
    }
}

/// The refusal of a route that is not open, with what to do instead where there is something.
pub(super) fn closed(method: &Method, parts: &[&str]) -> Refused {
    let advice = match parts {
        ["build" | "session" | "grpc", ..] => {
            "build images where you may, and ask an administrator to load them"
        }
        ["images", ..] => "ask an administrator to bring the image onto this host",
        [
            "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" | "plugins",
            ..,
        ] => "this belongs to the host's administrator",
        ["auth" | "distribution", ..] => "registries are not reached through this host",
        _ => "it is not one of the routes open to tenants",
    };
    Refused::denied(
        "route_closed",
        format!("{method} /{} is not open here: {advice}", parts.join("/")),
    )
}
