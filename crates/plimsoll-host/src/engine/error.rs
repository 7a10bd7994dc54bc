//! Why a request to the engine failed, in words for whoever runs the host.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use super::{API_SPOKEN, ApiVersion};

/// A request to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody listens on the socket, or we may not use it.
    #[error(
        "cannot reach the container engine at {}: is it running, and may this user open its socket?",
        socket.display()
    )]
    Unreachable {
        /// The engine's socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The engine is there but does not answer in time.
    #[error("the container engine did not give {what} within {} s", after.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The engine refused, in its own words.
    #[error("the container engine answered {}: {message}", status.as_u16())]
    Api {
        /// The status, 400 or above.
        status: StatusCode,
        /// The engine's message.
        message: String,
    },
    /// The connection broke, or carried something that is not HTTP.
    #[error("the connection to the container engine broke")]
    Connection {
        /// What broke.
        source: hyper::Error,
    },
    /// The engine's JSON is not what this client expects.
    #[error("the container engine gave {what} in a form Plimsoll does not know")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Where the JSON went wrong.
        source: serde_json::Error,
    },
    /// An answer or an event is larger than this client keeps in memory.
    #[error("the container engine sent more than {limit} bytes for {what}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// The engine is too old or too new.
    #[error(
        "the container engine speaks API {api_min} to {api_max}, Plimsoll speaks {} to {}: upgrade \
         whichever is older",
        API_SPOKEN.start(),
        API_SPOKEN.end()
    )]
    NoCommonVersion {
        /// The engine's oldest.
        api_min: ApiVersion,
        /// The engine's newest.
        api_max: ApiVersion,
    },
    /// A path or a header that HTTP cannot carry.
    #[error("the request to the container engine is not valid HTTP")]
    InvalidRequest(#[source] http::Error),
    /// A name that cannot be a container's or an image's, so the engine is not asked about it.
    #[error("{name:?} cannot be the name of {what}")]
    InvalidName {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
    },
}

impl EngineError {
    /// Whether the engine says that the thing does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the engine says that the thing's state forbids it (already so, in use, in progress).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(StatusCode::CONFLICT)
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the engine is down, restarting or stuck, so that asking again later makes sense.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Connection { .. }
        )
    }
}
