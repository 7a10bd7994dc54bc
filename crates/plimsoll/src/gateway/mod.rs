//! The Docker API with a load line.
//!
//! Parse, judge, re-serialise, default deny: a request is taken apart, what it means is judged, and
//! the engine is sent only what Plimsoll wrote itself. A route that is not named in `route` is
//! refused. Ownership is read from the ledger; labels are a hint and never proof.

mod answer;
mod build;
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
mod upstream;
mod view;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::state::App;
use answer::Body;
pub(crate) use identity::Peer;

/// A head that takes longer than this is not coming. Also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const HEAD_MAX: usize = 64 * 1024;

/// The most connections one uid may have open: more would take descriptors from everybody else.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection too many may take to send something.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The most bodies above [`answer::SMALL_BODY`] that are held in memory for one uid; others wait.
const LARGE_BODIES_MAX: usize = 4;

/// How many uids are remembered before those without a connection are forgotten.
const UIDS_KEPT: usize = 1024;

/// Serves tenants on `listener` until `shutdown`, then lets requests under way end.
pub async fn serve(app: Arc<App>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let (over, ending) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut places = Places::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Finished connections are let go of as they end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match places.enter(&stream) {
                    Some(place) => {
                        let (app, ending) = (Arc::clone(&app), ending.clone());
                        connections.spawn(serve_connection(app, stream, place, ending));
                    }
                    None => places.turn_away(stream, &mut connections),
                },
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
    place: Place,
    mut ending: tokio::sync::watch::Receiver<bool>,
) {
    let peer = Peer::of(&stream);
    let place = Arc::new(place);
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let (peer, place) = (peer.clone(), Arc::clone(&place));
        async move {
            let response = route::answer(&app, &peer, &place, request).await;
            Ok::<Response<Body>, Infallible>(response)
        }
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

/// Answers one connection too many, once its request has begun to arrive: an answer before it, or a
/// close in the middle of it, reaches clients as a broken pipe in place of the reason.
async fn turn_away(stream: UnixStream, leaving: Option<OwnedSemaphorePermit>) {
    const BODY: &str = r#"{"message":"plimsoll: too many open connections: close some first"}"#;
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    if leaving.is_some()
        && tokio::time::timeout(LEAVE_TIMEOUT, stream.readable())
            .await
            .is_ok()
    {
        let _ = stream.try_read(&mut [0; 4096]);
    }
    // A client that does not take even this is not waited for.
    let _ = stream.try_write(text.as_bytes());
}

/// What each uid holds of this server, so that no one takes it all.
#[derive(Debug, Default)]
struct Places(HashMap<Option<u32>, Weak<Share>>);

/// One uid's share.
#[derive(Debug)]
struct Share {
    connections: Arc<Semaphore>,
    /// Connections beyond those, while they are told so.
    leaving: Arc<Semaphore>,
    large_bodies: Semaphore,
}

impl Places {
    /// A place for one more connection, hijacked ones included, unless its uid has too many.
    fn enter(&mut self, stream: &UnixStream) -> Option<Place> {
        let share = self.share(stream);
        let permit = Arc::clone(&share.connections).try_acquire_owned().ok()?;
        Some(Place {
            share,
            _connection: permit,
        })
    }

    /// Tells a client that its uid has too many connections. Beyond [`CONNECTIONS_MAX`] of those, too,
    /// it is not waited for.
    fn turn_away(&mut self, stream: UnixStream, tasks: &mut JoinSet<()>) {
        let leaving = Arc::clone(&self.share(&stream).leaving)
            .try_acquire_owned()
            .ok();
        tasks.spawn(turn_away(stream, leaving));
    }

    fn share(&mut self, stream: &UnixStream) -> Arc<Share> {
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        if self.0.len() > UIDS_KEPT {
            self.0.retain(|_, share| share.strong_count() > 0);
        }
        let known = self.0.get(&uid).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let share = Arc::new(Share {
                connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
                leaving: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
                large_bodies: Semaphore::new(LARGE_BODIES_MAX),
            });
            self.0.insert(uid, Arc::downgrade(&share));
            share
        })
    }
}

/// A connection that counts, until dropped.
#[derive(Debug)]
struct Place {
    share: Arc<Share>,
    _connection: OwnedSemaphorePermit,
}

impl Place {
    /// Waits until the uid may have another large body in memory.
    async fn large_body(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so always given.
        self.share.large_bodies.acquire().await.ok()
    }
}
