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

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The most connections one uid may have open: more would take descriptors from everybody else.
const CONNECTIONS_MAX: u32 = 256;

/// Serves tenants on `listener` until `shutdown`, then lets requests under way end.
pub async fn serve(app: Arc<App>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let (over, ending) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let open = OpenConnections::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Finished connections are let go of as they end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match open.enter(&stream) {
                    Some(place) => {
                        let (app, ending) = (Arc::clone(&app), ending.clone());
                        connections.spawn(serve_connection(app, stream, place, ending));
                    }
                    None => turn_away(&stream),
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

/// Answers one connection too many without reading from it.
fn turn_away(stream: &UnixStream) {
    const BODY: &str = r#"{"message":"plimsoll: too many open connections: close some first"}"#;
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    // A client that does not take even this is not waited for.
    let _ = stream.try_write(text.as_bytes());
}

/// How many connections each uid has open, hijacked ones included.
#[derive(Debug, Default, Clone)]
struct OpenConnections(Arc<Mutex<HashMap<Option<u32>, u32>>>);

impl OpenConnections {
    /// A place for one more, unless its uid has too many.
    fn enter(&self, stream: &UnixStream) -> Option<Place> {
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Place {
            all: self.clone(),
            uid,
        })
    }
}

/// A connection that counts, until dropped.
#[derive(Debug)]
struct Place {
    all: OpenConnections,
    uid: Option<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}
