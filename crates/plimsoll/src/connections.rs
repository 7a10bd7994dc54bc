//! Accepting connections, speaking HTTP on them, and ending both when the server ends. Whose a
//! connection is and what is asked on it is its caller's.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use plimsoll_host::engine::BoxError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most bytes of a request's head.
const HEAD_MAX: usize = 64 * 1024;

/// How long to wait where a connection cannot be accepted: out of descriptors, most likely, and
/// connections that end give some back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// True once the server is to end.
pub(crate) type Ending = watch::Receiver<bool>;

/// Resolves when the server is to end.
pub(crate) async fn is_over(ending: &mut Ending) {
    let _ = ending.wait_for(|over| *over).await;
}

/// Has `serve` deal with everything that `next` accepts until `shutdown`. What is open then is told to
/// end by [`Open::end`].
pub(crate) async fn accept<C, N, F>(
    mut next: impl FnMut() -> N,
    mut serve: impl FnMut(C, Ending) -> F,
    shutdown: impl Future<Output = ()>,
) -> Open
where
    N: Future<Output = io::Result<C>>,
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = Open::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return open,
            () = open.some_ended() => {}
            accepted = next() => match accepted {
                Ok(connection) => open.add(|ending| serve(connection, ending)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
}

/// Connections that were accepted.
#[derive(Debug, Default)]
pub(crate) struct Open {
    over: watch::Sender<bool>,
    connections: JoinSet<()>,
}

impl Open {
    /// One more, which hears of the end.
    pub(crate) fn add<F>(&mut self, serve: impl FnOnce(Ending) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.connections.spawn(serve(self.over.subscribe()));
    }

    /// Lets go of what has ended, once something has: for ever, where nothing is open.
    pub(crate) async fn some_ended(&mut self) {
        if self.connections.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells each to end, and waits until it has.
    pub(crate) async fn end(mut self) {
        self.over.send_replace(true);
        while self.connections.join_next().await.is_some() {}
    }
}

/// Speaks HTTP/1 on a connection until its client has gone, or the server is to end and the request
/// under way is answered. A head that takes longer than `head_timeout` is not coming; an idle connection
/// is kept as long.
///
/// # Errors
/// When the connection broke off: clients go away in the middle of things all the time.
pub(crate) async fn http1<S, V, B>(
    stream: S,
    service: V,
    head_timeout: Duration,
    mut ending: Ending,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => ended,
        () = is_over(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
