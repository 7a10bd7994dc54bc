//! Why a tenant's request was not done, and the one place that turns that into a response.

use std::io;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use plimsoll_core::dimension::Dimension;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::engine::EngineError;
use plimsoll_host::request::refusal::{BadRequest, Refusal};
use plimsoll_store::{Decision, StoreError};
use serde_json::{Value, json};

use super::answer::{Body, json as json_answer};
use crate::engine_facts::FactsError;
use crate::limits::TooMany;
use crate::settle::SettleError;
use crate::tasks::in_full;

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// Malformed, or asks for what no tenant may have.
    Request(Refusal),
    /// The tenant may not, in words.
    Denied { code: &'static str, message: String },
    /// Not there, or not theirs: the same.
    NotFound(String),
    /// The body is larger than `most` bytes.
    TooLarge { most: usize },
    /// The caller asks too often.
    TooMany(TooMany),
    /// A limit is in the way.
    Quota(Box<Decision>),
    /// The engine said no.
    Engine { status: StatusCode, message: String },
    /// The engine is not there, or not in time.
    EngineAway(String),
    /// The engine's answer makes no sense.
    EngineNonsense,
    /// Nobody waits for the answer any more.
    ClientGone,
    /// The ledger said no.
    Ledger(StoreError),
}

impl Refused {
    pub(super) fn bad(field: &str, reason: String) -> Self {
        Self::Request(Refusal::BadRequest(BadRequest::new(field, reason)))
    }

    pub(super) fn denied(code: &'static str, message: impl Into<String>) -> Self {
        Self::Denied {
            code,
            message: message.into(),
        }
    }

    /// More CPU than the kernel would let one container have, whatever was promised.
    pub(super) fn too_much_cpu(asked: MilliCpu, most: MilliCpu) -> Self {
        let message =
            format!("--cpus {asked} is more than one container can get here: at most {most}");
        Self::denied("policy", message)
    }

    /// The host's accounts cannot be asked.
    pub(super) fn no_accounts(error: &io::Error) -> Self {
        tracing::error!(%error, "the host's accounts cannot be asked");
        Self::EngineAway(format!("the host's accounts cannot be asked: {error}"))
    }

    /// The answer for a container that is not there or not the caller's.
    pub(super) fn no_container(reference: &str) -> Self {
        Self::NotFound(format!("No such container: {reference}"))
    }

    /// The same refusal with a name in the engine's message replaced.
    pub(super) fn renamed(self, from: &str, to: &str) -> Self {
        match self {
            Self::Engine { status, message } => Self::Engine {
                status,
                message: message.replace(from, to),
            },
            other => other,
        }
    }

    /// The refusal in words alone.
    pub(super) fn into_message(self) -> String {
        let (_, body) = self.parts();
        body["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn answer(self) -> Response<Body> {
        let wait_s = match &self {
            Self::TooMany(too_many) => Some(too_many.retry_after_s()),
            _ => None,
        };
        let (status, body) = self.parts();
        let mut response = json_answer(status, &body);
        if let Some(wait_s) = wait_s {
            response.headers_mut().insert(RETRY_AFTER, wait_s.into());
        }
        response
    }

    fn parts(self) -> (StatusCode, Value) {
        let (status, mut body) = match self {
            Self::Request(refusal) => {
                let status =
                    StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
                (status, said(refusal.code(), &refusal.message()))
            }
            Self::Denied { code, message } => (
                StatusCode::FORBIDDEN,
                said(code, &format!("plimsoll: {message}")),
            ),
            Self::NotFound(message) => (StatusCode::NOT_FOUND, said("not_found", &message)),
            Self::TooLarge { most } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                said(
                    "too_large",
                    &format!("plimsoll: the body is larger than {most} bytes"),
                ),
            ),
            Self::TooMany(too_many) => (
                StatusCode::TOO_MANY_REQUESTS,
                said("too_many", &format!("plimsoll: {too_many}")),
            ),
            Self::Quota(decision) => (StatusCode::FORBIDDEN, quota(&decision)),
            Self::Engine { status, message } => (status, said("engine", &message)),
            Self::EngineAway(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                said(
                    "engine_unavailable",
                    &format!(
                        "plimsoll: the container engine does not answer ({why}); nothing was \
                         changed, try again in a moment or tell an administrator"
                    ),
                ),
            ),
            Self::EngineNonsense => (
                StatusCode::BAD_GATEWAY,
                said(
                    "engine_unavailable",
                    "plimsoll: the container engine's answer broke off",
                ),
            ),
            Self::ClientGone => (
                StatusCode::BAD_REQUEST,
                said("bad_request", "plimsoll: the client left"),
            ),
            Self::Ledger(error) => ledger(&error),
        };
        if let Value::Object(map) = &mut body {
            map.retain(|_, value| !value.is_null());
        }
        (status, body)
    }
}

fn said(code: &str, message: &str) -> Value {
    json!({"message": message, "code": code})
}

fn quota(decision: &Decision) -> Value {
    let human = |d: Dimension, amount: u64| d.to_human(amount);
    let violations: Vec<Value> = decision
        .violations
        .iter()
        .map(|v| {
            json!({
                "level": v.level, "entity": v.name, "dimension": v.dimension,
                "requested": human(v.dimension, v.requested),
                "reserved": human(v.dimension, v.reserved),
                "limit": human(v.dimension, v.limit),
                "shortBy": human(v.dimension, v.short_by), "neverFits": v.never_fits,
            })
        })
        .collect();
    json!({
        "message": decision.message.as_deref().unwrap_or("plimsoll: quota exceeded"),
        "code": "quota_exceeded",
        "decision": decision.id,
        "violations": violations,
    })
}

fn ledger(error: &StoreError) -> (StatusCode, Value) {
    match error {
        StoreError::Conflict(message) => (
            StatusCode::CONFLICT,
            said("conflict", &format!("Conflict. {message}")),
        ),
        StoreError::Forbidden(message) => (
            StatusCode::FORBIDDEN,
            said("forbidden", &format!("plimsoll: {message}")),
        ),
        StoreError::NotFound { .. } | StoreError::Invalid(_) => (
            StatusCode::NOT_FOUND,
            said("not_found", &format!("plimsoll: {error}")),
        ),
        other => {
            tracing::error!(
                error = in_full(other),
                "the ledger failed a tenant's request"
            );
            let message = format!("plimsoll: {other}");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                said("ledger_unavailable", &message),
            )
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Request(refusal)
    }
}

impl From<BadRequest> for Refused {
    fn from(bad: BadRequest) -> Self {
        Self::Request(Refusal::BadRequest(bad))
    }
}

impl From<TooMany> for Refused {
    fn from(too_many: TooMany) -> Self {
        Self::TooMany(too_many)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error)
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Api { status, message } => Self::Engine { status, message },
            EngineError::InvalidName { .. } => Self::NotFound(error.to_string()),
            EngineError::TooLarge { .. } | EngineError::Malformed { .. } => {
                tracing::error!(
                    error = in_full(&error),
                    "the engine's answer cannot be used"
                );
                Self::EngineNonsense
            }
            other => {
                tracing::warn!(error = in_full(&other), "the engine cannot be reached");
                Self::EngineAway(other.to_string())
            }
        }
    }
}

impl From<FactsError> for Refused {
    fn from(error: FactsError) -> Self {
        match error {
            FactsError::Engine(error) => error.into(),
            other => {
                tracing::error!(error = in_full(&other), "the engine cannot be used");
                Self::EngineAway(other.to_string())
            }
        }
    }
}

impl From<SettleError> for Refused {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Engine(error) => error.into(),
            SettleError::Held => Self::EngineAway(SettleError::Held.to_string()),
            SettleError::Store(error) => error.into(),
        }
    }
}
