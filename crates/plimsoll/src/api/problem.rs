//! Errors as RFC 9457 problem documents: the one place that gives them a status.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use plimsoll_store::{Decision, StoreError};
use serde_json::{Map, Value, json};

use super::output;
use super::strict::FieldError;
use crate::limits::TooMany;
use crate::tasks::in_full;

/// A request that was not done, and why.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
}

/// What handlers return.
pub(super) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
            retry_after_s: None,
        }
    }

    pub(super) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn not_found(what: &str, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no {what} named {name}"),
        )
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// A field that does not hold what it should.
    pub(super) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        FieldError::new(field, why).into()
    }

    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.more.insert(key.to_owned(), value);
        self
    }

    /// A refused claim.
    pub(super) fn refused(decision: &Decision) -> Self {
        let detail = decision
            .message
            .clone()
            .unwrap_or_else(|| "quota exceeded".to_owned());
        let violations = decision.violations.iter().map(output::violation).collect();
        let remedies = decision.remedies.iter().map(output::remedy).collect();
        Self::new(StatusCode::FORBIDDEN, "quota_exceeded", detail)
            .with("decision", json!(decision.id))
            .with("violations", Value::Array(violations))
            .with("remedies", Value::Array(remedies))
    }

    /// The media type and the document itself.
    pub(super) fn document(self) -> (&'static str, Value) {
        let mut body = self.more;
        body.insert(
            "type".to_owned(),
            json!(format!("urn:plimsoll:problem:{}", self.code)),
        );
        let title = self.status.canonical_reason().unwrap_or("Error");
        body.insert("title".to_owned(), json!(title));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("code".to_owned(), json!(self.code));
        body.insert("detail".to_owned(), json!(self.detail));
        ("application/problem+json", Value::Object(body))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after_s) = (self.status, self.retry_after_s);
        let (media_type, body) = self.document();
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

impl From<TooMany> for Problem {
    fn from(too_many: TooMany) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self {
            retry_after_s: Some(too_many.retry_after_s()),
            ..Self::new(status, "too_many", too_many.to_string())
        }
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        let detail = error.to_string();
        let field = if error.path.is_empty() {
            "body".to_owned()
        } else {
            error.path
        };
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail)
            .with("field", json!(field));
        match error.nearest {
            Some(nearest) => problem.with("nearest", json!(nearest)),
            None => problem,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            StoreError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            StoreError::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "stale"),
            StoreError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            StoreError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            StoreError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            StoreError::Busy | StoreError::Stopped | StoreError::Fenced { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            StoreError::SchemaTooNew { .. }
            | StoreError::Locked { .. }
            | StoreError::Io { .. }
            | StoreError::Sqlite(_)
            | StoreError::Aborted(_)
            | StoreError::Corrupt(_) => {
                tracing::error!(error = in_full(&error), "the ledger failed a request");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        // What went wrong inside is for the log.
        let detail = if status == StatusCode::INTERNAL_SERVER_ERROR {
            "the ledger failed; nothing was changed, and the server's log says why".to_owned()
        } else {
            error.to_string()
        };
        let problem = Self::new(status, code, detail);
        match error {
            StoreError::Stale { now } => problem.with("version", json!(now)),
            _ => problem,
        }
    }
}

pub(super) async fn no_route(uri: Uri) -> Problem {
    let detail = format!("there is no {}; /api/docs lists what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no_route", detail)
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not possible on {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", detail)
}
