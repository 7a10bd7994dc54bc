//! Connections: who is at the other end, how long they may take, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};
use tower::Service;

use super::problem::Problem;
use super::{Bounds, router_within};
use crate::connections::{self, Ending, Open};
use crate::gateway::Peer;
use crate::limits::{Place, Share, TooMany, Who};
use crate::state::App;

/// How long one who follows events may take to read the last of them.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

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
    let who = |_: &App, _: &TcpStream, from: &SocketAddr| (None, Who::address(from.ip()));
    serve(app, bounds, listener, who, shutdown).await;
}

/// Serves the API over a unix socket; callers are known by their uid, root is administrator.
pub async fn serve_unix(
    app: Arc<App>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let who = |app: &App, stream: &UnixStream, _: &unix::SocketAddr| {
        let peer = Peer::of(stream);
        let who = peer.who(app);
        (Some(peer), who)
    };
    serve(app, Bounds::default(), listener, who, shutdown).await;
}

/// Who is at the other end, where the connection says so, and whose share it uses.
type Known = (Option<Peer>, Who);

/// Accepts until `shutdown`, then lets requests under way end.
async fn serve<L: Listener>(
    app: Arc<App>,
    bounds: Bounds,
    mut listener: L,
    who: fn(&App, &L::Io, &L::Addr) -> Known,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = router_within(Arc::clone(&app), bounds);
    let mut open = Open::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = open.some_ended() => {}
            // Waits and tries again where there are no descriptors left.
            (stream, from) = listener.accept() => {
                let (app, router) = (Arc::clone(&app), router.clone());
                open.add(|ending| async move {
                    let (peer, who) = who(&app, &stream, &from);
                    match app.limits.enter(who, app.clock.monotonic()) {
                        Ok(place) => connection(stream, peer, &place, router, bounds, ending).await,
                        Err(share) => turn_away(&share, stream).await,
                    }
                });
            }
        }
    }
    // Whoever comes now is told at once that nobody listens.
    drop(listener);
    open.end().await;
}

/// Whether events are followed on a connection: such an answer has no end of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Following(Arc<AtomicBool>);

impl Following {
    /// From now on.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Resolves when the server ends and whoever follows does not read even that.
    async fn until_stuck(self, mut ending: Ending) {
        connections::is_over(&mut ending).await;
        tokio::time::sleep(LEAVE_TIMEOUT).await;
        if !self.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

async fn connection<S>(
    stream: S,
    peer: Option<Peer>,
    place: &Place,
    router: Router,
    bounds: Bounds,
    ending: Ending,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (following, over) = (Following::default(), ending.clone());
    let follows = following.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(place.share()));
        extensions.insert(over.clone());
        extensions.insert(follows.clone());
        if let Some(peer) = &peer {
            extensions.insert(peer.clone());
        }
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let stuck = following.until_stuck(ending.clone());
    tokio::select! {
        ended = connections::http1(stream, service, bounds.head_timeout, ending) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the API ended early");
            }
        }
        () = stuck => tracing::debug!("a follower does not read and is cut off"),
    }
}

/// Tells a client that it has too many connections, as a problem document.
async fn turn_away(share: &Share, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (content_type, body) = Problem::from(TooMany::Connections).document();
    share
        .turn_away(stream, content_type, &body.to_string())
        .await;
}
