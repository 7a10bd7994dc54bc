//! One request a connection, to another program: over plain HTTP, or TLS that proves who answers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The most bytes of an answer that is read for what it says.
pub const ANSWER_MAX: usize = 64 << 20;
/// The most bytes of one that is only shown.
pub const SHOWN_MAX: usize = 64 << 10;
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

/// An address: `http://HOST:PORT/PATH`, or `https://`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    host: String,
    authority: String,
    path: String,
}

/// Without the path, which may be a secret.
impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.authority)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = || "must be an address like http://127.0.0.1:9090/path".to_owned();
        let uri: Uri = text.parse().map_err(|_| example())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(example()),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(example)?;
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self {
            is_tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            authority: format!("{host}:{port}"),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }
}

impl Url {
    /// A path below this one, with parameters.
    #[must_use]
    pub fn with(&self, path: &str, parameters: &[(&str, String)]) -> Self {
        let above = self.path.split('?').next().unwrap_or_default();
        let mut below = format!("{}{path}", above.trim_end_matches('/'));
        for (index, (name, value)) in parameters.iter().enumerate() {
            let _ = write!(below, "{}{name}=", if index == 0 { '?' } else { '&' });
            for byte in value.bytes() {
                let _ = write!(below, "%{byte:02X}");
            }
        }
        Self {
            path: below,
            ..self.clone()
        }
    }
}

/// What the other side answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Its first words, for people.
    #[must_use]
    pub fn said(&self) -> String {
        let said = String::from_utf8_lossy(&self.body);
        said.trim().chars().take(SAID_MAX).collect()
    }
}

/// Whom it believes and how long it waits.
#[derive(Debug)]
pub struct Client {
    timeout: Duration,
    /// Authorities that count beside the system's.
    ca_file: Option<PathBuf>,
    /// The rest of an answer is not read.
    answer_max: usize,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Client {
    /// A client that gives up after this time.
    #[must_use]
    pub const fn new(timeout: Duration, ca_file: Option<PathBuf>, answer_max: usize) -> Self {
        Self {
            timeout,
            ca_file,
            answer_max,
            tls: OnceLock::new(),
        }
    }

    /// Asks with what the file holds as a bearer token, if one is named.
    ///
    /// # Errors
    /// [`HttpError`] when no answer came in time.
    pub async fn ask(
        &self,
        method: Method,
        url: &Url,
        token_file: Option<&Path>,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(&url.path)
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
        let answered = tokio::time::timeout(self.timeout, self.exchange(url, request));
        answered
            .await
            .map_err(|_| HttpError::of(format!("no answer within {:?}", self.timeout)))?
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, HttpError> {
        let stream = TcpStream::connect(&url.authority)
            .await
            .map_err(HttpError::of)?;
        if !url.is_tls {
            return over(stream, request, self.answer_max).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(HttpError::of)?;
        let connector = TlsConnector::from(self.tls()?);
        let stream = connector.connect(name, stream).await;
        over(stream.map_err(HttpError::of)?, request, self.answer_max).await
    }

    /// Read once: the system's list is long.
    fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        if let Some(tls) = self.tls.get() {
            return Ok(Arc::clone(tls));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = &self.ca_file {
            let own =
                CertificateDer::pem_file_iter(file).map_err(|e| HttpError::of(e.to_string()))?;
            for cert in own {
                let cert = cert.map_err(|e| HttpError::of(e.to_string()))?;
                roots.add(cert).map_err(HttpError::of)?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(HttpError::of)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    answer_max: usize,
) -> Result<Answer, HttpError> {
    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(HttpError::of)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(HttpError::of)?;
    let status = response.status();
    let (mut rest, mut body) = (response.into_body(), BytesMut::new());
    while let Some(frame) = rest.frame().await.filter(|_| body.len() < answer_max) {
        body.extend_from_slice(
            frame
                .map_err(HttpError::of)?
                .data_ref()
                .unwrap_or(&Bytes::new()),
        );
    }
    body.truncate(answer_max);
    connection.abort();
    let body = body.freeze();
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_with_or_without_tls() {
        for (text, authority) in [
            ("http://127.0.0.1:9090/api/v1/write", Some("127.0.0.1:9090")),
            ("http://metrics.lab", Some("metrics.lab:80")),
            ("https://metrics.lab", Some("metrics.lab:443")),
            ("https://[::1]:8443/x", Some("[::1]:8443")),
            ("ftp://metrics.lab", None),
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
        assert_eq!(format!("{url:?}"), "h:80", "a path may be a secret");
    }
}
