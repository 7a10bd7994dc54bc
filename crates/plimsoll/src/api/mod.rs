//! The HTTP API. One file a resource; `routes::all` is the one list of routes, from which both the
//! router and the OpenAPI document are made.

mod audit;
mod auth;
mod containers;
mod decisions;
mod docs;
mod health;
mod input;
mod metrics;
mod openapi;
mod output;
mod problem;
mod projects;
mod quotas;
mod reservations;
mod routes;
mod system;
mod teams;
mod tokens;
mod usage;
mod users;
mod validate;
mod violations;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::connect_info::Connected;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};

pub use auth::{TokenError, ensure_admin_token};
pub use openapi::document as openapi_document;

use crate::state::App;

/// The most bytes of a request body.
const BODY_MAX: usize = 1 << 20;

/// Every route over what a server shares.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn(harden))
        .with_state(app)
}

/// Serves the API over TCP; callers carry a token.
pub async fn serve_tcp(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let service = router(app).into_make_service();
    let served = axum::serve(listener, service)
        .with_graceful_shutdown(shutdown)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the API stopped listening");
    }
}

/// Serves the API over a unix socket; callers are known by their uid, root is administrator.
pub async fn serve_unix(
    app: Arc<App>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let service = router(app).into_make_service_with_connect_info::<UnixPeer>();
    let served = axum::serve(listener, service)
        .with_graceful_shutdown(shutdown)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the API's socket stopped listening");
    }
}

/// Who is at the other end of the unix socket, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct UnixPeer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for UnixPeer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream.io().peer_cred().ok().map(|c| c.uid()),
        }
    }
}

/// What every answer says to browsers, and what no browser may send: a page of another origin.
async fn harden(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let headers = request.headers();
    let foreign = headers.get("origin").is_some_and(|origin| {
        let host = headers
            .get("host")
            .and_then(|h| h.to_str().ok())
            .unwrap_or_default();
        let origin = origin.to_str().unwrap_or_default();
        origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            != Some(host)
    });
    if foreign && !request.method().is_safe() {
        return problem::Problem::forbidden("requests from another origin are not accepted").into();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let set: [(HeaderName, &'static str); 5] = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in set {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
