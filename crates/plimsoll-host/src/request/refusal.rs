//! Why a request is refused, in the words the CLI's user reads.

use std::fmt;

/// The request does not mean anything the engine or Plimsoll accepts: status 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plimsoll: {field}: {reason}")]
pub struct BadRequest {
    /// The field, as a path: `HostConfig.NanoCpus`. `body`, `path` or `query` when there is none.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BadRequest {
    /// A refusal of `field` for `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// The request is understood and not allowed to a tenant: status 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRefusal {
    /// The field, as a path: `HostConfig.Privileged`.
    pub field: String,
    /// What was asked, as a user would have written it: `--privileged`.
    pub asked: String,
    /// Why it is not allowed.
    pub why: String,
    /// What to do instead; empty when there is nothing.
    pub instead: String,
}

impl fmt::Display for PolicyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plimsoll: {} is not allowed here: {}",
            self.asked, self.why
        )?;
        if !self.instead.is_empty() {
            write!(f, "; {}", self.instead)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyRefusal {}

/// Why a request does not reach the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Malformed or out of range.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// Not allowed to a tenant.
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Policy(_) => 403,
        }
    }

    /// The `message` of the answer.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The `code` of the answer, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Policy(_) => "policy",
        }
    }

    /// The field that was refused, as a path.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::BadRequest(bad) => &bad.field,
            Self::Policy(policy) => &policy.field,
        }
    }

    pub(crate) fn policy(
        field: impl Into<String>,
        asked: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self::Policy(PolicyRefusal {
            field: field.into(),
            asked: asked.into(),
            why: why.into(),
            instead: instead.into(),
        })
    }

    pub(crate) fn bad(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadRequest(BadRequest::new(field, reason))
    }
}
