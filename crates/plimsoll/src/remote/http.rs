//! One request a connection, over plain HTTP: TLS is for a proxy on this host.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::RemoteError;

/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;
/// How much of a refusal is shown.
const SAID_MAX: usize = 300;

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HttpError(#[from] Box<dyn std::error::Error + Send + Sync>);

impl HttpError {
    fn of(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// An address: `http://HOST:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    authority: String,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "must be like http://127.0.0.1:9090/api/v1/write";
        let uri: Uri = text.parse().map_err(|_| example.to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("must be http://: put a proxy that speaks TLS on this host".to_owned());
            }
            _ => return Err(example.to_owned()),
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| example.to_owned())?;
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Url {
    /// A path below this one, with parameters.
    pub(super) fn with(&self, path: &str, parameters: &[(&str, String)]) -> Self {
        let mut below = format!("{}{path}", self.path);
        for (index, (name, value)) in parameters.iter().enumerate() {
            let _ = write!(below, "{}{name}=", if index == 0 { '?' } else { '&' });
            for byte in value.bytes() {
                let _ = write!(below, "%{byte:02X}");
            }
        }
        Self {
            authority: self.authority.clone(),
            path: below,
        }
    }
}

pub(super) async fn get(url: &Url, token_file: Option<&Path>) -> Result<Bytes, RemoteError> {
    exchange(Method::GET, url, token_file, &[], Vec::new()).await
}

pub(super) async fn post(
    url: &Url,
    token_file: Option<&Path>,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Bytes, RemoteError> {
    exchange(Method::POST, url, token_file, headers, body).await
}

async fn exchange(
    method: Method,
    url: &Url,
    token_file: Option<&Path>,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Bytes, RemoteError> {
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &url.authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(file) = token_file {
        // Each time: whoever renews it need not restart the server.
        let token = std::fs::read_to_string(file).map_err(HttpError::of)?;
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(HttpError::of)?;
    let answered = tokio::time::timeout(TIMEOUT, over(&url.authority, request));
    let (status, answer) = answered.await.map_err(HttpError::of)??;
    if status.is_success() {
        return Ok(answer);
    }
    let said = String::from_utf8_lossy(&answer);
    Err(RemoteError::Status {
        status: status.as_u16(),
        said: said.trim().chars().take(SAID_MAX).collect(),
    })
}

async fn over(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<(http::StatusCode, Bytes), HttpError> {
    let stream = TcpStream::connect(authority).await.map_err(HttpError::of)?;
    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(HttpError::of)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(HttpError::of)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
    let body = body.await.map_err(HttpError)?;
    connection.abort();
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http() {
        for (text, authority) in [
            ("http://127.0.0.1:9090/api/v1/write", Some("127.0.0.1:9090")),
            ("http://metrics.lab", Some("metrics.lab:80")),
            ("https://metrics.lab", None),
            ("metrics.lab:9090", None),
            ("/api/v1/write", None),
            ("", None),
        ] {
            let url = text.parse::<Url>().ok().map(|url| url.authority);
            assert_eq!(url.as_deref(), authority, "{text}");
        }
        let url: Url = "http://h/prom/".parse().unwrap();
        let url = url.with("/api/v1/query", &[("query", "a b".into())]);
        assert_eq!(url.path, "/prom/api/v1/query?query=%61%20%62");
    }
}
