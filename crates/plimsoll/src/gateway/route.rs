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
    build, create, events, exec, files, images, lifecycle, networks, prune, start, stream, system,
    update, usage, view, volumes,
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
    /// The body of a route that takes a stream, not read yet.
    pub(super) upload: Option<Incoming>,
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
    let path = RequestPath::parse(head.uri.path());
    let (body, upload) = match &path {
        Ok(path) if takes_stream(&head.method, &path.parts()) => (Ok(Bytes::new()), Some(body)),
        _ => (answer::read_bounded(body, &connection.place).await, None),
    };
    connection.place.share().request(app.clock.monotonic())?;
    let path = path?;
    let parts = path.parts();
    let method = head.method.clone();
    if head.uri.authority().is_some() {
        return Err(Refused::bad("path", "must not name a host".to_owned()));
    }
    // Clients ask this before anything else, and show its refusal badly.
    if parts == ["_ping"] {
        return system::ping(app, &method).await;
    }
    let user = match identity::caller(app, &connection.peer).await {
        Ok(user) => user,
        Err(refused) => {
            if let Some(upload) = upload {
                images::pipe::drain(upload).await;
            }
            return Err(refused);
        }
    };
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
        upload,
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
        ["system", "df"] if get => usage::df(call).await,
        ["events"] if get => events::events(call).await,

        ["containers", "json"] if get => view::list(call).await,
        ["containers", "create"] if post => create::create(call).await,
        ["containers", "prune"] if post => prune::containers(call).await,
        ["containers", id, "json"] if get => view::inspect(call, id).await,
        ["containers", id, "top"] if get => view::top(call, id).await,
        ["containers", id, "logs"] if get => view::logs(call, id).await,
        ["containers", id, "stats"] if get => view::stats(call, id).await,
        ["containers", id, "changes"] if get => files::changes(call, id).await,
        ["containers", id, "export"] if method == Method::GET => files::export(call, id).await,
        ["containers", id, "archive"] if method == Method::HEAD => files::stat(call, id).await,
        ["containers", id, "archive"] if method == Method::GET => files::download(call, id).await,
        ["containers", id, "archive"] if method == Method::PUT => files::upload(call, id).await,
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

        ["auth"] if post => images::login(call).await,
        ["build", "prune"] if post => prune::build(call),
        ["build"] if post => build::build(call).await,
        ["commit"] if post => images::commit(call).await,
        ["images", "json"] if get => images::list(call).await,
        ["images", "prune"] if post => images::prune(call).await,
        ["images", "load"] if post => images::load(call).await,
        ["images", "create"] if post => images::create(call).await,
        ["images", "get"] if get => images::save(call, None).await,
        ["images", name @ .., "get"] if get && !name.is_empty() => {
            images::save(call, Some(&name.join("/"))).await
        }
        ["images", name @ .., "push"] if post && !name.is_empty() => {
            images::push(call, &name.join("/")).await
        }
        ["images", name @ .., "tag"] if post && !name.is_empty() => {
            images::tag(call, &name.join("/")).await
        }
        ["images", name @ ..] if delete && !name.is_empty() => {
            images::remove(call, &name.join("/")).await
        }
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

        ["volumes"] if get => volumes::list(call).await,
        ["volumes", "create"] if post => volumes::create(call).await,
        ["volumes", "prune"] if post => volumes::prune(call).await,
        ["volumes", name] if get => volumes::inspect(call, name).await,
        ["volumes", name] if delete => volumes::delete(call, name).await,

        // Tenants have none of these, and `docker inspect NAME` asks for each kind in turn.
        ["containers", name @ .., "json"] if get => Err(Refused::no_container(&name.join("/"))),
        ["plugins", name @ .., "json"] if get => Err(Refused::NotFound(format!(
            "plugin \"{}\" not found",
            name.join("/")
        ))),
        ["networks" | "volumes", name @ ..] if get && name.len() > 1 => {
            Err(Refused::NotFound(format!("{} not found", name.join("/"))))
        }
        _ => Err(closed(&method, &parts)),
    }
}

/// Whether a route's body is passed on as it comes, however long it is.
fn takes_stream(method: &Method, parts: &[&str]) -> bool {
    match *method {
        Method::POST => matches!(parts, ["build"] | ["images", "load" | "create"]),
        Method::PUT => matches!(parts, ["containers", _, "archive"]),
        _ => false,
    }
}

/// The refusal of a route that is not open, with what to do instead where there is something.
pub(super) fn closed(method: &Method, parts: &[&str]) -> Refused {
    let advice = match parts {
        ["session" | "grpc", ..] => {
            "BuildKit would build outside your quota; set DOCKER_BUILDKIT=0 (and COMPOSE_DOCKER_CLI_BUILD=0) \
             to build with the classic builder"
        }
        ["containers", _, "attach", "ws"] => {
            "attach over a websocket is not passed on; docker attach and the libraries upgrade the \
             connection itself"
        }
        ["images", "search"] => "the host searches no registry for its users",
        [
            "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" | "plugins",
            ..,
        ] => "this belongs to the host's administrator",
        ["distribution", ..] => "registries are not asked through this host: docker pull does that",
        _ => "it is not one of the routes open to tenants",
    };
    Refused::denied(
        "route_closed",
        format!("{method} /{} is not open here: {advice}", parts.join("/")),
    )
}
