//! What can go wrong in a command, how it is said, and the exit code it ends with.

use std::fmt::Write as _;
use std::io;

use plimsoll_store::StoreError;
use serde_json::Value;

use crate::ca::CaError;
use crate::config::ConfigError;
use crate::install::InstallError;
use crate::serve::ServeError;

/// The exit codes, documented in `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// Something failed.
    Failure = 1,
    /// The command line or a value on it, or the configuration, is wrong.
    Usage = 2,
    /// Refused by a quota, or not allowed.
    Refused = 3,
    /// No such thing.
    NotFound = 4,
    /// The server cannot be reached, or cannot answer now.
    Unreachable = 5,
}

/// A command that was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server said no.
    #[error("{detail}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// The problem's stable code.
        code: String,
        /// For people.
        detail: String,
        /// The whole problem document.
        problem: Value,
    },
    /// No server answers.
    #[error("no server answers at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do about it.
        next: &'static str,
    },
    /// Something answers that is not a Plimsoll this program understands.
    #[error("{address} answered in a form that this version of plimsoll does not know: {what}")]
    Malformed {
        /// Where.
        address: String,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}")]
    Io {
        /// `read`, `write`.
        verb: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The server did not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The host was left as it was, or what is left is said.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// There is no certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The databases stay as they were.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kernel caps could not be restored.
    #[error("kernel caps were not restored: {0}")]
    Caps(String),
}

impl CliError {
    /// The code the process ends with.
    #[must_use]
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Ca(CaError::Host { .. }) => Exit::Usage,
            Self::Api { status, .. } => match status {
                400 | 422 => Exit::Usage,
                401 | 403 => Exit::Refused,
                404 => Exit::NotFound,
                429 | 503 => Exit::Unreachable,
                _ => Exit::Failure,
            },
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Malformed { .. }
            | Self::Io { .. }
            | Self::Serve(_)
            | Self::Install(_)
            | Self::Ca(_)
            | Self::Store(_)
            | Self::Caps(_) => Exit::Failure,
        }
    }

    /// What to do about it.
    fn next(&self) -> Option<String> {
        let next = match self {
            Self::Usage(_) => "plimsoll --help, or --help after the command, lists what there is",
            Self::Unreachable { next, .. } => next,
            Self::Api { code, detail, .. } => match code.as_str() {
                "unauthenticated" if detail.contains("needed") => {
                    "give it with --token-file FILE or PLIMSOLL_TOKEN"
                }
                "unauthenticated" if detail.contains("token") => {
                    "root on the host makes a new one: plimsoll token add --admin"
                }
                "forbidden" => "ask an administrator, or use a token that may: --token-file FILE",
                "not_found" => {
                    let what = ["user", "team", "project", "token"];
                    let named = what
                        .iter()
                        .find(|w| detail.starts_with(&format!("no {w} ")));
                    return named.map(|what| format!("plimsoll {what} list shows what there is"));
                }
                "no_route" => "is the server older than this program? plimsoll version shows both",
                "stale" => "run it again: somebody else changed it at the same time",
                "too_many" => "wait a second; limits.requests_per_s in the server's configuration",
                "unavailable" => "try again in a moment; plimsoll doctor says what is wrong",
                _ => return None,
            },
            Self::Serve(ServeError::Store(plimsoll_store::StoreError::Locked { .. })) => {
                "one server per data directory: stop the other one, or choose another --data-dir"
            }
            Self::Serve(ServeError::Listen { .. }) => {
                "choose another one (--listen, --gateway, --api-socket), or run as root"
            }
            _ => return None,
        };
        Some(next.to_owned())
    }

    /// The error as it goes to stderr: what, why, and the next step.
    #[must_use]
    pub(super) fn message(&self) -> String {
        // The configuration's errors carry their place first, and need no name of ours in between.
        let mut text = format!("plimsoll: {}", crate::tasks::in_full(self));
        if let Some(next) = self.next() {
            let _ = write!(text, "\n  next: {next}");
        }
        super::text::printable_lines(&text)
    }

    /// The problem document, where the server gave one.
    #[must_use]
    pub(super) fn problem(&self) -> Option<&Value> {
        match self {
            Self::Api { problem, .. } if problem.is_object() => Some(problem),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_documented_exit_codes_and_a_next_step() {
        for (status, code, detail, exit, next) in [
            (422, "invalid_field", "name: must be", Exit::Usage, ""),
            (
                401,
                "unauthenticated",
                "a token is needed: x",
                Exit::Refused,
                "--token-file",
            ),
            (
                401,
                "unauthenticated",
                "the token is unknown",
                Exit::Refused,
                "token add --admin",
            ),
            (
                403,
                "forbidden",
                "only administrators",
                Exit::Refused,
                "ask an administrator",
            ),
            (
                404,
                "not_found",
                "no team named x",
                Exit::NotFound,
                "plimsoll team list",
            ),
            (404, "not_found", "no decision named x", Exit::NotFound, ""),
            (409, "conflict", "taken", Exit::Failure, ""),
            (429, "too_many", "too many", Exit::Unreachable, "wait"),
            (503, "unavailable", "busy", Exit::Unreachable, "try again"),
        ] {
            let error = CliError::Api {
                status,
                code: code.into(),
                detail: detail.into(),
                problem: Value::Null,
            };
            assert_eq!(error.exit(), exit, "{status}");
            let message = error.message();
            assert!(
                message.starts_with(&format!("plimsoll: {detail}")),
                "{message}"
            );
            assert_eq!(message.contains("next: "), !next.is_empty(), "{message}");
            assert!(message.contains(next), "{message}");
        }
    }
}
