//! The Docker API with a load line.
//!
//! Parse, judge, re-serialise, default deny: a request is taken apart, what it means is judged, and
//! the engine is sent only what Plimsoll wrote itself. A route that is not named in `route` is
//! refused. Ownership is read from the ledger; labels are a hint and never proof.

mod answer;
mod authz;
mod build;
mod create;
mod events;
mod exec;
mod files;
mod identity;
mod images;
mod lifecycle;
mod mounts;
mod names;
mod networks;
mod prune;
mod refused;
mod replace;
mod resolve;
mod route;
mod start;
mod stream;
mod system;
mod tls;
mod update;
mod upstream;
mod usage;
mod view;
mod volumes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::connections::{self, Ending, is_over};
use crate::limits::{Place, Share, TooMany};
use crate::state::App;
use answer::Body;
pub use authz::serve as serve_authz;
pub(crate) use identity::Peer;
pub(crate) use names::of as engine_name;
pub use tls::serve as serve_tls;

/// A head that takes longer than this is not coming. Also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves tenants on a unix socket until `shutdown`. Requests that change something are finished
/// then; streams, which may go on for as long as a container does, are cut.
pub async fn serve(app: Arc<App>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let next = || listener.accept();
    let serve = |(stream, _), ending| serve_socket(Arc::clone(&app), stream, ending);
    connections::accept(next, serve, shutdown).await.end().await;
}

async fn serve_socket(app: Arc<App>, stream: UnixStream, ending: Ending) {
    let peer = Peer::of(&stream);
    match app.limits.enter(peer.who(&app), app.clock.monotonic()) {
        Ok(place) => serve_connection(app, stream, peer, place, ending).await,
        Err(share) => turn_away(&share, stream).await,
    }
}

/// A tenant's connection: whose it is, and what it holds until nobody uses it any more.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    place: Place,
    /// Of certificates; seen when the connection began.
    changes: watch::Receiver<()>,
}

impl Connection {
    /// Waits until its certificate counts no more: for ever, where it has none.
    async fn barred(&self, app: &App) {
        let mut changes = self.changes.clone();
        while changes.changed().await.is_ok() {
            if identity::is_barred(app, &self.peer) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

async fn serve_connection<S>(app: Arc<App>, stream: S, peer: Peer, place: Place, ending: Ending)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = Arc::new(Connection {
        peer,
        place,
        changes: app.certs_changed.subscribe(),
    });
    let end = ending.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (app, own) = (Arc::clone(&app), Arc::clone(&own));
        let mut end = end.clone();
        async move {
            let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
            let answer = route::answer(&app, &own, request);
            // What changes something is finished; who only looks can look again at the next server.
            let response = tokio::select! {
                response = answer => response,
                () = is_over(&mut end), if only_looks => answer::status(StatusCode::SERVICE_UNAVAILABLE),
            };
            let response = response.map(|body| stream::until(body, end));
            Ok::<Response<Body>, Infallible>(response)
        }
    });
    let ended = tokio::select! {
        ended = connections::http1(stream, service, HEAD_TIMEOUT, ending) => ended,
        () = own.barred(&app) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a tenant's connection ended early");
    }
}

/// Tells a client that it has too many connections, in Docker's shape.
async fn turn_away(share: &Share, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let message = format!("plimsoll: {}", TooMany::Connections);
    let body = json!({"message": message, "code": "too_many"}).to_string();
    share.turn_away(stream, "application/json", &body).await;
}
