//! The Docker API with a load line.
//!
//! Parse, judge, re-serialise, default deny: a request is taken apart, what it means is judged, and
//! the engine is sent only what Plimsoll wrote itself. A route that is not named in `route` is
//! refused. Ownership is read from the ledger; labels are a hint and never proof.

mod answer;
mod create;
mod events;
mod exec;
mod identity;
mod images;
mod lifecycle;
mod names;
mod refused;
mod resolve;
mod route;
mod start;
mod stream;
mod system;
mod update;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::state::App;
use answer::Body;
use identity::Peer;

/// A head that takes longer than this is not coming. Also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const HEAD_MAX: usize = 64 * 1024;

/// Serves tenants on `listener` until `shutdown`, then lets requests under way end.
pub async fn serve(app: Arc<App>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let (over, ending) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Finished connections are let go of as they end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(Arc::clone(&app), stream, ending.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: connections that end give some back.
                    tracing::warn!(%error, "cannot accept a tenant's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let _ = over.send(true);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    app: Arc<App>,
    stream: UnixStream,
    mut ending: tokio::sync::watch::Receiver<bool>,
) {
    let peer = Peer::of(&stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let peer = peer.clone();
        async move { Ok::<Response<Body>, Infallible>(route::answer(&app, &peer, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { let _ = ending.wait_for(|over| *over).await; } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients go away in the middle of things all the time.
        tracing::debug!(%error, "a tenant's connection ended early");
    }
}
