//! Docker's authorization plugin: a second lock, for engines that people reach past the gateway.
//!
//! The engine asks before each request (`AuthZReq`) and before each answer (`AuthZRes`). What is judged
//! is what the gateway judges, with the same code; what cannot be understood, or would have to be
//! rewritten, is denied. `docs/authz-plugin.md` says what this lock does not hold.

mod asked;
mod judge;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde::Serialize;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

use super::answer::{self, Body};
use super::refused::Refused;
use crate::connections::{self, Ending};
use crate::state::App;
use asked::Asked;
use judge::Creating;

/// The most bytes of a question: the engine shows a body of 1 MiB at most, in base64.
const QUESTION_MAX: usize = 4 << 20;

/// How long a question may take to arrive, and an idle connection is kept.
const PATIENCE: Duration = Duration::from_secs(60);

/// The engine's plugin, while it serves.
#[derive(Debug)]
struct Plugin {
    app: Arc<App>,
    creating: Creating,
}

/// What the engine is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
    msg: String,
}

impl From<Result<(), Refused>> for Verdict {
    fn from(judged: Result<(), Refused>) -> Self {
        match judged {
            Ok(()) => Self {
                allow: true,
                msg: String::new(),
            },
            Err(refused) => Self {
                allow: false,
                msg: refused.into_message(),
            },
        }
    }
}

/// Answers the engine on `listener` until `shutdown`. The socket is root's: whoever can ask learns whose
/// a container is.
pub async fn serve(app: Arc<App>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let plugin = Arc::new(Plugin {
        app,
        creating: Creating::default(),
    });
    let next = || listener.accept();
    let serve = |(stream, _), ending| connection(Arc::clone(&plugin), stream, ending);
    connections::accept(next, serve, shutdown).await.end().await;
}

async fn connection(plugin: Arc<Plugin>, stream: UnixStream, ending: Ending) {
    let service = service_fn(|request: Request<Incoming>| {
        let plugin = Arc::clone(&plugin);
        async move { Ok::<Response<Body>, Infallible>(plugin.answer(request).await) }
    });
    if let Err(error) = connections::http1(stream, service, PATIENCE, ending).await {
        tracing::debug!(%error, "a connection of the engine ended early");
    }
}

impl Plugin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if request.method() != Method::POST {
            return answer::status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let body = Limited::new(request.into_body(), QUESTION_MAX).collect();
        let body = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(format!("the engine's question cannot be read: {error}")),
            Err(_) => Err("the engine's question did not arrive in time".to_owned()),
        };
        match path.as_str() {
            "/Plugin.Activate" => answer::json(StatusCode::OK, &json!({"Implements": ["authz"]})),
            "/AuthZPlugin.AuthZReq" => self.verdict(body, true).await,
            "/AuthZPlugin.AuthZRes" => self.verdict(body, false).await,
            _ => answer::status(StatusCode::NOT_FOUND),
        }
    }

    async fn verdict(&self, body: Result<Bytes, String>, before: bool) -> Response<Body> {
        let asked = body.and_then(|body| Asked::parse(&body));
        let judged = match &asked {
            Ok(asked) if before => judge::request(&self.app, &self.creating, asked).await,
            Ok(asked) => judge::response(&self.app, &self.creating, asked).await,
            Err(why) => Err(Refused::denied("not_understood", why.as_str())),
        };
        let verdict = Verdict::from(judged);
        if !verdict.allow {
            let (user, method, uri) = asked.as_ref().map_or(("", "", ""), |asked| {
                (
                    asked.user.as_str(),
                    asked.method.as_str(),
                    asked.uri.as_str(),
                )
            });
            tracing::info!(
                user,
                method,
                uri,
                why = verdict.msg,
                "the engine is told to deny"
            );
        }
        answer::json(StatusCode::OK, &verdict)
    }
}
