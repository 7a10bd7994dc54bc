//! The gateway over TCP: TLS 1.3 and nothing else, for clients with a certificate of Plimsoll's own.
//!
//! Until a handshake is done nobody is known, so what is held for it is bounded: in number, for each
//! machine, and in time. From then on it is a connection like any other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::{PeerIncompatible, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Peer, serve_connection, turn_away};
use crate::ca;
use crate::connections::{self, Ending};
use crate::limits::Who;
use crate::state::App;
use crate::tasks::in_full;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most handshakes under way, of all machines together.
const HANDSHAKES_MAX: usize = 256;

/// How long a client that is turned away may take to go.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// After so much silence it is asked whether the other machine is still there, so often, before it is
/// taken for gone.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Serves tenants on a TCP port until `shutdown`, then lets requests under way end.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let next = || listener.accept();
    let serve = |(stream, from), ending| {
        let (app, acceptor) = (Arc::clone(&app), acceptor.clone());
        let turn = Arc::clone(&handshakes).try_acquire_owned();
        async move {
            match turn {
                Ok(turn) => arrive(app, acceptor, stream, from, turn, ending).await,
                Err(_) => {
                    tracing::warn!(%from, "too many TLS handshakes are under way: turned away");
                }
            }
        }
    };
    let open = connections::accept(next, serve, shutdown).await;
    drop(listener);
    open.end().await;
}

async fn arrive(
    app: Arc<App>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    turn: OwnedSemaphorePermit,
    ending: Ending,
) {
    let now = app.clock.monotonic();
    let machine = app.limits.share(Who::address(from.ip()), now);
    let (Some(_one_of_its), Ok(())) = (machine.handshake(), machine.request(now)) else {
        tracing::info!(%from, "too many TLS handshakes of one machine: turned away");
        return;
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake_hands(&acceptor, stream)).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%from, error = in_full(&error), "a TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::info!(%from, "a TLS handshake took too long");
            return;
        }
    };
    drop((_one_of_its, turn));
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(<[_]>::first);
    let Some(named) = first.and_then(|der| ca::said(der)?.user) else {
        // Only this server signs, and it signs nothing else for clients.
        tracing::warn!(%from, "a client's certificate names no user");
        return;
    };
    let who = Who::User(named.user);
    match app.limits.enter(who, app.clock.monotonic()) {
        Ok(place) => {
            serve_connection(app, stream, Peer::Certificate(named), place, ending).await;
        }
        Err(share) => turn_away(&share, stream).await,
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let (idle, every, times) = KEEPALIVE;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, idle)?;
    sockopt::set_tcp_keepintvl(&stream, every)?;
    sockopt::set_tcp_keepcnt(&stream, times)?;

    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [HANDSHAKE_RECORD] {
        say_that_this_is_tls(stream).await;
        return Err(io::Error::other("the client does not speak TLS"));
    }
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, stream)) => {
            let_go(stream).await;
            Err(in_words(error))
        }
    }
}

/// The one error whose own words say nothing to an administrator.
fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )) => io::Error::other("the client does not speak TLS 1.3"),
        _ => error,
    }
}

/// Answers plain HTTP in kind: a client that was not told to use TLS would show the alert as rubbish.
async fn say_that_this_is_tls(mut stream: TcpStream) {
    const BODY: &str = r#"{"message":"plimsoll: this port speaks TLS only: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use the context that came with your certificate"}"#;
    let text = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
    let_go(stream).await;
}

/// Ends a connection so that the client reads what it was told: closing while something of the client's
/// is unread would have the kernel throw that away.
async fn let_go(mut stream: TcpStream) {
    let gone = async {
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, gone).await;
}
