//! A server of a test's own: its own ledger in a temporary directory, a real listener, and no
//! engine. Every answer is held against the API's description.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use plimsoll::api::{self, Bounds};
use plimsoll::clock::Clock;
use plimsoll::config::{Config, Limits};
use plimsoll::serve;
use plimsoll::state::App;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::schema;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn first(mut body: Incoming) -> String {
    let frame = body.frame().await.unwrap().unwrap();
    text(&frame.into_data().unwrap())
}

pub(crate) struct Site {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: JoinHandle<()>,
    dir: tempfile::TempDir,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }

    /// Expects a problem with this status and code.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        assert_eq!(self.body["code"], code, "{:#}", self.body);
        self.body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Bounds that end a stalled request while a test waits for it.
pub(crate) const SHORT: Bounds = Bounds {
    body_bytes_max: 1 << 20,
    body_timeout: Duration::from_millis(200),
    head_timeout: Duration::from_millis(200),
};

impl Site {
    pub(crate) async fn new() -> Self {
        Self::within(Bounds::default()).await
    }

    pub(crate) async fn within(bounds: Bounds) -> Self {
        Self::limited(bounds, Limits::default()).await
    }

    pub(crate) async fn limited(bounds: Bounds, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().join("data"),
            engine: "unix:///nonexistent/docker.sock".into(),
            limits,
            heartbeat_s: 0.1,
            ..Config::default()
        };
        let app = serve::build(config, Clock::default()).await.unwrap();
        let path = api::ensure_admin_token(&app).await.unwrap().unwrap();
        let admin = std::fs::read_to_string(path).unwrap().trim().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let ended = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(api::serve_tcp_within(
            Arc::clone(&app),
            bounds,
            listener,
            ended,
        ));
        Self {
            app,
            address,
            admin,
            stop: Some(stop),
            served,
            dir,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Tells the server to end, and waits until it has.
    pub(crate) async fn end(mut self) {
        self.stop();
        self.served.await.unwrap();
    }

    /// Tells the server to end.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().clone());
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let text = match head.headers.get(CONTENT_TYPE) {
            // Without end: its beginning answers for it.
            Some(kind) if kind == "text/event-stream" => first(body).await,
            _ => text(&body.collect().await.unwrap().to_bytes()),
        };
        let answer = Answer {
            status: head.status.as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            headers: head.headers,
        };
        schema::check(method.as_str(), path.path(), &answer);
        answer
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Request<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string());
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Body::new(Full::from(bytes))).unwrap()
    }

    /// Asks with a token; an empty one is none.
    pub(crate) async fn by(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        self.send(self.request(method, path, token, body.as_ref()))
            .await
    }

    /// Asks as the administrator.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask_as(&self.admin, method, path, body).await
    }

    /// Asks with a token; null is no body.
    pub(crate) async fn ask_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.by(token, method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, Value::Null).await.is(200)
    }

    /// Adds a user and a token of theirs.
    pub(crate) async fn user(&self, name: &str, role: &str) -> String {
        let new = json!({"name": name, "role": role});
        self.ask("POST", "/api/users", new).await.is(201);
        self.token(name, json!({})).await
    }

    /// Another token of a user.
    pub(crate) async fn token(&self, user: &str, mut more: Value) -> String {
        more["user"] = json!(user);
        let made = self.ask("POST", "/api/tokens", more).await.is(201);
        made["token"].as_str().unwrap().to_owned()
    }

    /// Puts a user into a team.
    pub(crate) async fn member(&self, team: &str, user: &str, body: Value) {
        let path = format!("/api/teams/{team}/members/{user}");
        self.ask("PUT", &path, body).await.is(200);
    }

    /// Asks for a reservation of so much memory.
    pub(crate) async fn reserve(&self, user: &str, memory_gb: f64) -> Answer {
        self.ask("POST", "/api/reservations", claim(user, memory_gb))
            .await
    }
}

pub(crate) fn claim(user: &str, memory_gb: f64) -> Value {
    json!({"user": user, "resourceRequest": {"cpuCores": 0.1, "memoryGB": memory_gb, "storageGB": 1}})
}
