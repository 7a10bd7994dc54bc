//! Connections: who is at the other end, how long they may take, and how they end.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;

use super::{Bounds, router_within};
use crate::gateway::Peer;
use crate::state::App;

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Serves the API over TCP; callers carry a token.
pub async fn serve_tcp(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_tcp_within(app, Bounds::default(), listener, shutdown).await;
}

/// [`serve_tcp`] with other bounds.
pub async fn serve_tcp_within(
    app: Arc<App>,
    bounds: Bounds,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve(app, bounds, listener, |_| None, shutdown).await;
}

/// Serves the API over a unix socket; callers are known by their uid, root is administrator.
pub async fn serve_unix(
    app: Arc<App>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let who = |stream: &UnixStream| Some(Peer::of(stream));
    serve(app, Bounds::default(), listener, who, shutdown).await;
}

/// Accepts until `shutdown`, then lets requests under way end.
async fn serve<L: Listener>(
    app: Arc<App>,
    bounds: Bounds,
    mut listener: L,
    who: fn(&L::Io) -> Option<Peer>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = router_within(app, bounds);
    let (over, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Finished connections are let go of as they end.
            Some(_) = connections.join_next() => {}
            // Waits and tries again where there are no descriptors left.
            (stream, _) = listener.accept() => {
                let (peer, router) = (who(&stream), router.clone());
                connections.spawn(connection(stream, peer, router, bounds, ending.clone()));
            }
        }
    }
    // Whoever comes now is told at once that nobody listens.
    drop(listener);
    let _ = over.send(true);
    while connections.join_next().await.is_some() {}
}

async fn connection<S>(
    stream: S,
    peer: Option<Peer>,
    router: Router,
    bounds: Bounds,
    mut ending: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
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
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
