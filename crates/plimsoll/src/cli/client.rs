//! The API's client: one request a connection, over the server's unix socket or over TCP.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::args::Global;
use super::error::CliError;
use super::events::Events;
use crate::config::{Config, Sources, socket_path};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;

/// What is said when it was reached.
const SLOW: &str = "it took too long to answer";

/// An answer that has begun, and what drives its connection.
type Opened = (Response<Incoming>, JoinHandle<hyper::Result<()>>);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Unix(PathBuf),
    Tcp(String),
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    target: Target,
    token: Option<String>,
}

impl Client {
    /// The server that the options, the environment and the configuration point to.
    ///
    /// # Errors
    /// When the URL or the token's file cannot be used.
    pub(super) fn new(global: &Global) -> Result<Self, CliError> {
        let target = match (&global.url, &global.api_socket) {
            (Some(url), _) => Target::Tcp(authority(url)?),
            (None, Some(socket)) => {
                let text = socket.to_string_lossy();
                Target::Unix(socket_path(&text).to_owned())
            }
            (None, None) => Target::Unix(configured_socket(global)?),
        };
        let token = match (&global.token, &global.token_file) {
            (Some(token), _) => Some(token.trim().to_owned()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|source| CliError::Io {
                    verb: "read",
                    path: path.display().to_string(),
                    source,
                })?;
                Some(text.trim().to_owned())
            }
            (None, None) => None,
        };
        Ok(Self { target, token })
    }

    /// The server behind a socket, as whoever this process is.
    #[must_use]
    pub(super) fn at_socket(socket: PathBuf) -> Self {
        Self {
            target: Target::Unix(socket),
            token: None,
        }
    }

    /// Where the server is, in words.
    #[must_use]
    pub(super) fn address(&self) -> String {
        match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Tcp(authority) => format!("http://{authority}"),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`CliError::Api`] for any status of 400 and above, [`CliError::Unreachable`].
    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.send(Method::GET, path, None).await
    }

    /// Any method. An answer without a body is null.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let (status, value) = self.exchange(method, path, body).await?;
        done(status, value)
    }

    /// `DELETE path`. The status says whether it is gone (204) or will be (202).
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn delete(&self, path: &str) -> Result<StatusCode, CliError> {
        let (status, value) = self.exchange(Method::DELETE, path, None).await?;
        done(status, value).map(|_| status)
    }

    /// Any method; any status is an answer.
    ///
    /// # Errors
    /// [`CliError::Unreachable`], [`CliError::Malformed`].
    pub(super) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), CliError> {
        let (status, bytes) = self.fetch(method, path, body).await?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((status, value)),
            // A page of a proxy in between, most likely.
            Err(error) => Err(self.malformed(format!("status {status}, {error}"))),
        }
    }

    /// `GET path`, as text that is no JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn text(&self, path: &str) -> Result<String, CliError> {
        let (status, bytes) = self.fetch(Method::GET, path, None).await?;
        if !status.is_success() {
            let problem = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            done(status, problem)?;
        }
        String::from_utf8(bytes.to_vec()).map_err(|error| self.malformed(error.to_string()))
    }

    fn malformed(&self, what: String) -> CliError {
        CliError::Malformed {
            address: self.address(),
            what,
        }
    }

    async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), CliError> {
        let request = self.request(method, path, body)?;
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let (response, connection) = self.open(request).await?;
            let answer = whole(response).await;
            connection.abort();
            answer
        });
        match answered.await {
            Ok(outcome) => outcome.map_err(|source| self.unreachable(source)),
            Err(_) => Err(self.unreachable(SLOW.into())),
        }
    }

    /// What happens, as it happens.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn follow(&self) -> Result<Events, CliError> {
        self.begin(&path(&["events"])).await.map(Events::of)
    }

    /// `GET path`, written as it comes.
    ///
    /// # Errors
    /// As [`Client::get`], and when it cannot be written; `to` says where.
    pub(super) async fn write(
        &self,
        path: &str,
        into: &mut (dyn Write + Send),
        to: &str,
    ) -> Result<(), CliError> {
        let unwritten = |source| CliError::Io {
            verb: "write",
            path: to.to_owned(),
            source,
        };
        let mut body = self.begin(path).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| self.unreachable(source.into()))?;
            if let Ok(bytes) = frame.into_data() {
                match into.write_all(&bytes) {
                    // A reader that has gone, like `head`, is no failure.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(unwritten)?,
                }
            }
        }
        into.flush().map_err(unwritten)
    }

    /// `GET path`, as far as that it has begun.
    async fn begin(&self, path: &str) -> Result<Incoming, CliError> {
        let request = self.request(Method::GET, path, None)?;
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, self.open(request)).await;
        let opened = opened.map_err(|_| self.unreachable(SLOW.into()))?;
        let (response, _) = opened.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let answer = whole(response).await;
        let (status, bytes) = answer.map_err(|source| self.unreachable(source))?;
        let problem = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        done(status, problem)?;
        Err(self.malformed(format!("status {status}")))
    }

    /// Sends a request on a connection of its own.
    async fn open(&self, request: Request<Full<Bytes>>) -> Result<Opened, BoxError> {
        match &self.target {
            Target::Unix(socket) => {
                over(connect(UnixStream::connect(socket)).await?, request).await
            }
            Target::Tcp(authority) => {
                over(connect(TcpStream::connect(authority)).await?, request).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, CliError> {
        let host = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp(authority) => authority,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| CliError::Usage("the token is not one line of text".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(bytes))
            .map_err(|error| CliError::Usage(format!("{path} cannot be asked for: {error}")))
    }

    fn unreachable(&self, source: BoxError) -> CliError {
        let kind = source
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let next = match (&self.target, kind) {
            (Target::Unix(_), Some(std::io::ErrorKind::PermissionDenied)) => {
                "the socket's folder is closed to this user: plimsoll doctor, as root, says why"
            }
            (Target::Unix(_), _) => {
                "is it running? systemctl status plimsoll; elsewhere: --api-socket or --url"
            }
            (Target::Tcp(_), _) => "is it running, and is the address right?",
        };
        CliError::Unreachable {
            address: self.address(),
            source,
            next,
        }
    }
}

/// The answer of a request that was done, or the problem.
fn done(status: StatusCode, value: Value) -> Result<Value, CliError> {
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(value);
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Err(CliError::Api {
        status: status.as_u16(),
        code: text("code").unwrap_or_default(),
        detail: text("detail").unwrap_or_else(|| format!("the server answered {status}")),
        problem: value,
    })
}

async fn connect<S>(connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, BoxError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err("it took too long to connect".into()),
    }
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Opened, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    Ok((sender.send_request(request).await?, connection))
}

async fn whole(response: Response<Incoming>) -> Result<(StatusCode, Bytes), BoxError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await?;
    Ok((status, body.to_bytes()))
}

/// The socket of the configured server. A tenant may be unable to read the configuration, and is
/// none the worse for it; a file they named themselves must be right.
fn configured_socket(global: &Global) -> Result<PathBuf, CliError> {
    match Sources::of_process(global.config.clone()).load() {
        Ok((config, _)) => Ok(config.api_socket),
        Err(error) if global.config.is_some() => Err(error.into()),
        Err(_) => Ok(Config::default().api_socket),
    }
}

/// `host:port` of a URL without a path.
fn authority(url: &str) -> Result<String, CliError> {
    let wrong = |why: &str| CliError::Usage(format!("--url {url}: {why}"));
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(wrong(
                "TLS is not spoken here; reach the server through a tunnel (ssh -L) or on its host",
            ));
        }
        Some(_) => return Err(wrong("must begin with http://")),
        None => url,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
        _ => format!("{authority}:80"),
    };
    match with_port.parse::<http::uri::Authority>() {
        Ok(_) if !authority.is_empty() && !authority.contains(['/', '@', '?', '#']) => {
            Ok(with_port)
        }
        _ => Err(wrong("must be http://HOST:PORT, without a path")),
    }
}

/// A path of the API with each piece made safe: names come from people.
#[must_use]
pub(super) fn path(pieces: &[&str]) -> String {
    let mut path = String::from("/api");
    for piece in pieces {
        path.push('/');
        encode(&mut path, piece);
    }
    path
}

/// A query of the parameters that have a value.
#[must_use]
pub(super) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(name);
            query.push('=');
            encode(&mut query, value);
        }
    }
    query
}

fn encode(into: &mut String, text: &str) {
    use std::fmt::Write as _;
    // `.` and `..` would be taken for steps up the path.
    let dots = text.chars().all(|c| c == '.');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || (b"-_.~".contains(&byte) && !dots) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(path(&["users", "ada"]), "/api/users/ada");
        assert_eq!(
            path(&["users", "../x?y#z "]),
            "/api/users/..%2Fx%3Fy%23z%20"
        );
        assert_eq!(path(&["users", ".."]), "/api/users/%2E%2E");
        assert_eq!(
            query(&[("user", Some("a&b=c")), ("team", None)]),
            "?user=a%26b%3Dc"
        );
        assert_eq!(query(&[("user", None)]), "");
    }

    #[test]
    fn urls_are_a_host_and_a_port() {
        for (url, authority) in [
            ("http://127.0.0.1:7180", Some("127.0.0.1:7180")),
            ("http://quota.example/", Some("quota.example:80")),
            ("localhost:7180", Some("localhost:7180")),
            ("http://[::1]:7180", Some("[::1]:7180")),
            ("https://quota.example", None),
            ("http://", None),
            ("http://a/b", None),
            ("http://user@host", None),
            ("ftp://a", None),
        ] {
            assert_eq!(super::authority(url).ok().as_deref(), authority, "{url}");
        }
    }
}
