//! The container engine's API, over its unix socket or whatever else its caller can connect.
//!
//! Two layers. [`Engine::send`] and [`Engine::upgrade`] carry any request, with streamed bodies and
//! hijacked connections, for whoever forwards requests. The typed calls are what Plimsoll itself
//! asks. Both put the negotiated API version in front of the path, so a caller never writes one.
//!
//! Every request has its own connection, closed with its response: a connection that has carried
//! one tenant's request never carries another's.
//!
//! This module must not decide what a tenant may ask, and keeps nothing but the API version.

mod calls;
mod error;
mod events;
mod images;
mod networks;
mod types;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io, path::PathBuf};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

pub use error::EngineError;
pub use events::{Event, EventStream};
pub use images::{ImageHistory, ImageSummary};
pub use networks::Network;
pub use types::*;

/// How long the engine may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The API versions this client speaks; it takes the lowest that the engine accepts, because that
/// is the one whose semantics have been tested longest.
pub const API_SPOKEN: std::ops::RangeInclusive<ApiVersion> = ApiVersion {
    major: 1,
    minor: 41,
}..=ApiVersion {
    major: 1,
    minor: 51,
};

/// How long the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Over a question, head and body together.
    pub answer: Duration,
    /// Over a tenant's question or small act.
    pub call: Duration,
    /// Over an order (create, start, stop, remove): a busy engine queues them.
    pub order: Duration,
}

impl Patience {
    /// Everything in proportion to how long an answer may take.
    #[must_use]
    pub fn of(answer: Duration) -> Self {
        Self {
            answer,
            call: answer * 2,
            order: answer * 4,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(Duration::from_secs(30))
    }
}

/// Any error a streamed request body may end in.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request: empty, in memory ([`full`]), or streamed.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A request body without bytes.
#[must_use]
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A request body that is all there.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A version of the engine's API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// The part before the dot.
    pub major: u16,
    /// The part behind it.
    pub minor: u16,
}

impl ApiVersion {
    /// Parses `1.41`; nothing before or behind it, no sign, no third part.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (major, minor) = text.split_once('.')?;
        Some(Self {
            major: part(major)?,
            minor: part(minor)?,
        })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the engine says about itself at negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// The engine's own version, such as `20.10.24`.
    pub engine: String,
    /// The oldest API version it accepts.
    pub api_min: ApiVersion,
    /// The newest API version it accepts.
    pub api_max: ApiVersion,
    /// The one this client now speaks.
    pub api: ApiVersion,
}

/// A client of one engine. Cloning is cheap and shares the negotiated version.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    patience: Patience,
}

/// A connection to the engine.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that is being made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Another way to the engine than its unix socket.
pub trait Connect: fmt::Debug + Send + Sync {
    /// Where it leads, in words.
    fn place(&self) -> String;

    /// A new connection.
    fn connect(&self) -> Connecting<'_>;
}

#[derive(Debug)]
struct Inner {
    /// In words where there is no socket.
    socket: PathBuf,
    over: Option<Arc<dyn Connect>>,
    /// Major version << 16 | minor; 0 before the first negotiation.
    api: AtomicU32,
}

/// What the engine did with a request to upgrade its connection.
#[derive(Debug)]
pub enum Upgrade {
    /// 101: the connection is now a raw stream. The response carries the headers (such as the
    /// stream's content type); its body is in `io`.
    Switched {
        /// Status and headers.
        head: Response<()>,
        /// The raw stream both ways. Shutting it down half-closes, as `docker run -i` does at the
        /// end of its input.
        io: Upgraded,
    },
    /// Any other status: an ordinary response, such as an error.
    Answered(Response<EngineBody>),
}

impl Engine {
    /// A client of the engine behind `socket`: a path, or a URL like `unix:///var/run/docker.sock`.
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let socket = socket.into();
        let socket = match socket
            .to_str()
            .and_then(|text| text.strip_prefix("unix://"))
        {
            Some(path) => PathBuf::from(path),
            None => socket,
        };
        Self {
            inner: Arc::new(Inner {
                socket,
                over: None,
                api: AtomicU32::new(0),
            }),
            patience: Patience::default(),
        }
    }

    /// A client of the engine at the end of `over`. Nothing is connected yet.
    #[must_use]
    pub fn over(over: Arc<dyn Connect>) -> Self {
        Self {
            inner: Arc::new(Inner {
                socket: over.place().into(),
                over: Some(over),
                api: AtomicU32::new(0),
            }),
            patience: Patience::default(),
        }
    }

    /// The same client with another patience.
    #[must_use]
    pub fn within(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// How long the engine may take.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// The socket's path, or where else the engine is, in words.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.inner.socket
    }

    /// The API version in use; `None` before the first request.
    #[must_use]
    pub fn api_version(&self) -> Option<ApiVersion> {
        match self.inner.api.load(Ordering::Relaxed) {
            0 => None,
            packed => Some(ApiVersion {
                major: (packed >> 16) as u16,
                minor: (packed & 0xffff) as u16,
            }),
        }
    }

    /// Asks the engine for its API versions and settles on the lowest one that it and we both
    /// speak. Requests negotiate by themselves when nobody has yet; call this again after the
    /// engine was restarted, because it may have been upgraded.
    ///
    /// # Errors
    /// [`EngineError::NoCommonVersion`] when there is none, else the error of the request.
    pub async fn negotiate(&self) -> Result<EngineVersion, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            version: String,
            api_version: String,
            // Engines before 1.25 left it out.
            #[serde(default, rename = "MinAPIVersion")]
            min_api_version: String,
        }
        let said: Version = calls::bounded(self.patience.answer, "its version", async {
            let response = self
                .exchange(Method::GET, "/version", &[], empty(), None)
                .await?;
            calls::read_json("its version", response).await
        })
        .await?;
        let wrong = || EngineError::Malformed {
            what: "its version",
            source: serde::de::Error::custom(format!("API version {:?}", said.api_version)),
        };
        let api_max = ApiVersion::parse(&said.api_version).ok_or_else(wrong)?;
        let api_min = ApiVersion::parse(&said.min_api_version).unwrap_or(ApiVersion {
            major: 1,
            minor: 12,
        });
        let api = (*API_SPOKEN.start()).max(api_min);
        if api > api_max || api > *API_SPOKEN.end() {
            return Err(EngineError::NoCommonVersion { api_min, api_max });
        }
        let packed = u32::from(api.major) << 16 | u32::from(api.minor);
        self.inner.api.store(packed, Ordering::Relaxed);
        Ok(EngineVersion {
            engine: said.version,
            api_min,
            api_max,
            api,
        })
    }

    /// Sends one request on a connection of its own. `path_and_query` starts with `/` and carries
    /// no version. Any status is a success here, 500 too. Dropping the response closes the
    /// connection.
    ///
    /// `head_timeout` bounds the time from connecting to the response's head, the upload of the
    /// body included; `None` for requests that may rightly wait (wait, attach, logs, build,
    /// events).
    ///
    /// # Errors
    /// [`EngineError::Unreachable`], [`EngineError::Timeout`], [`EngineError::Connection`], and
    /// [`EngineError::InvalidRequest`] when path or headers are not HTTP.
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, &str)],
        body: RequestBody,
        head_timeout: Option<Duration>,
    ) -> Result<Response<EngineBody>, EngineError> {
        let path = self.versioned(path_and_query).await?;
        self.exchange(method, &path, headers, body, head_timeout)
            .await
    }

    /// Sends one request that asks to turn its connection into a raw stream, as attach and exec do.
    /// Parameters and errors as [`Engine::send`].
    ///
    /// # Errors
    /// As [`Engine::send`].
    pub async fn upgrade(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, &str)],
        body: RequestBody,
        head_timeout: Option<Duration>,
    ) -> Result<Upgrade, EngineError> {
        let path = self.versioned(path_and_query).await?;
        let mut all = Vec::with_capacity(headers.len() + 2);
        all.extend_from_slice(headers);
        all.push((CONNECTION, "Upgrade"));
        all.push((UPGRADE, "tcp"));
        let response = self
            .exchange(method, &path, &all, body, head_timeout)
            .await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgrade::Answered(response));
        }
        let (head, body) = response.into_parts();
        let EngineBody {
            incoming,
            connection,
        } = body;
        let switched = hyper::upgrade::on(Response::from_parts(head.clone(), incoming));
        // The connection hands the stream over, and ends.
        let (io, ()) = tokio::join!(switched, async {
            if let Some(connection) = connection {
                let _ = connection.await;
            }
        });
        let io = io.map_err(|source| EngineError::Connection { source })?;
        Ok(Upgrade::Switched {
            head: Response::from_parts(head, ()),
            io,
        })
    }

    async fn versioned(&self, path_and_query: &str) -> Result<String, EngineError> {
        let api = match self.api_version() {
            Some(api) => api,
            None => self.negotiate().await?.api,
        };
        Ok(format!("/v{api}{path_and_query}"))
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, &str)],
        body: RequestBody,
        head_timeout: Option<Duration>,
    ) -> Result<Response<EngineBody>, EngineError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .body(body)
            .map_err(EngineError::InvalidRequest)?;
        let map = request.headers_mut();
        map.insert(HOST, HeaderValue::from_static("docker"));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|error| EngineError::InvalidRequest(error.into()))?;
            map.append(name, value);
        }
        // Boxed: every request that waits for the engine holds one, and hyper's are large.
        let answer = Box::pin(self.dispatch(request));
        match head_timeout {
            Some(limit) => calls::bounded(limit, "an answer", answer).await,
            None => answer.await,
        }
    }

    async fn dispatch(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<EngineBody>, EngineError> {
        let socket = &self.inner.socket;
        let stream = calls::bounded(CONNECT_TIMEOUT, "a connection", async {
            let connected = match &self.inner.over {
                None => UnixStream::connect(socket)
                    .await
                    .map(|stream| Box::new(stream) as Box<dyn Io>),
                Some(over) => over.connect().await,
            };
            connected.map_err(|source| EngineError::Unreachable {
                socket: socket.clone(),
                source,
            })
        })
        .await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| EngineError::Connection { source })?;
        let mut connection: Option<Moved> = Some(Box::pin(connection.with_upgrades()));
        let mut answer = pin!(sender.send_request(request));
        let response = poll_fn(|cx| {
            // Its error reaches the answer or its body.
            if let Some(moved) = &mut connection
                && moved.as_mut().poll(cx).is_ready()
            {
                connection = None;
            }
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(|source| EngineError::Connection { source })?;
        Ok(response.map(|incoming| EngineBody {
            incoming,
            connection,
        }))
    }
}

/// A connection, which moves its bytes when it is polled and is closed when it is dropped.
type Moved = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The body of a response, with its connection. Whoever reads the body moves the connection's bytes,
/// those of a request that is still being sent, too; no other task is woken for each piece.
pub struct EngineBody {
    incoming: Incoming,
    /// Until it has ended.
    connection: Option<Moved>,
}

impl fmt::Debug for EngineBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBody").finish_non_exhaustive()
    }
}

impl Body for EngineBody {
    type Data = Bytes;
    type Error = EngineError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EngineError>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.incoming).poll_frame(cx);
        // Having asked, what the connection has to give is wanted.
        if frame.is_pending()
            && let Some(connection) = &mut this.connection
        {
            if connection.as_mut().poll(cx).is_ready() {
                this.connection = None;
            }
            frame = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        frame.map_err(|source| EngineError::Connection { source })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
