//! The HTTP API. One file a resource; `routes::all` is the one list of routes, from which both the
//! router and the OpenAPI document are made.

mod alerts;
mod analytics;
mod audit;
mod auth;
mod certs;
mod containers;
mod decisions;
mod docs;
mod enforce;
mod events;
mod export;
mod grants;
mod health;
mod history;
mod images;
mod input;
mod listen;
mod metrics;
mod notifications;
mod openapi;
mod output;
mod problem;
mod projects;
mod quotas;
mod redistribute;
mod requests;
mod reservations;
mod routes;
mod services;
mod shadow;
mod strict;
mod system;
mod teams;
mod tokens;
mod usage;
mod users;
mod validate;
mod view;
mod violations;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};

pub use auth::{TokenError, ensure_admin_token};
pub use listen::{serve_tcp, serve_tcp_within, serve_unix};
pub use openapi::document as openapi_document;

use crate::limits::Share;
use crate::state::App;
use problem::Problem;

/// How much a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most bytes of a body.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a head may take to arrive; also how long an idle connection is kept.
    pub head_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(60),
        }
    }
}

/// Every route over what a server shares.
pub fn router(app: Arc<App>) -> Router {
    router_within(app, Bounds::default())
}

/// [`router`] with other bounds.
pub fn router_within(app: Arc<App>, bounds: Bounds) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(Extension(bounds))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), pace))
        .layer(axum::middleware::from_fn(harden))
        .with_state(app)
}

/// Counts each request against its caller's share: the token's, where it shows a good one, else that of
/// the connection.
async fn pace(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let now = app.clock.monotonic();
    let share = match auth::Bearer::of(&app, request.headers()) {
        Ok(Some(bearer)) => {
            let share = app.limits.share(bearer.who(), now);
            request.extensions_mut().insert(bearer);
            Some(share)
        }
        _ => request.extensions().get::<Arc<Share>>().cloned(),
    };
    if let Some(share) = share {
        share.request(now)?;
    }
    Ok(next.run(request).await)
}

/// What every answer says to browsers, and what no browser may send: a page of another origin.
async fn harden(request: Request, next: Next) -> Response {
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
    let mut response = if foreign && !request.method().is_safe() {
        Problem::forbidden("requests from another origin are not accepted").into()
    } else {
        next.run(request).await
    };
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
