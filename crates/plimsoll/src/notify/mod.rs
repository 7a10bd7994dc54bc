//! Getting what people are told to them, over every channel there is.
//!
//! The ledger is the outbox. An [`Outlet`] takes what waits for one channel to it, [`drain`] over a few
//! lines at once. A message keeps its key through every try, and waits in the ledger until it was taken, so
//! a crash loses nothing and the other side can tell what it already has.

pub mod alertmanager;
pub mod backoff;
pub mod mail;
pub mod outlet;
pub mod slack;
pub mod text;
pub mod webhook;

use std::path::Path;

use plimsoll_core::notice::Event;
use serde_json::{Value, json};

pub use outlet::{Outlet, drain};

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets through now; the next message would fare the same.
    Away(String),
    /// This one was not taken; another may be.
    Refused(String),
    /// This one never will be.
    Hopeless(String),
}

/// A channel that cannot work as configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// One key asks for another.
    #[error("{key} asks for {needs}, which is not set")]
    Needs {
        /// What is set.
        key: &'static str,
        /// What is not.
        needs: &'static str,
    },
    /// A secret is not in its file.
    #[error("{key}: {problem} ({})", path.display())]
    Secret {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it; never what it holds.
        problem: String,
    },
}

/// What a file holds, read each time: whoever renews a secret need not restart the server.
fn secret<T>(
    key: &'static str,
    path: &Path,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, SetupError> {
    let wrong = |problem: String| SetupError::Secret {
        key,
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    read(text.trim()).ok_or_else(|| wrong("it does not hold what it should".to_owned()))
}

/// An event as programs read it: in the API and in webhooks.
#[must_use]
pub fn json(event: &Event) -> Value {
    json!({
        "kind": event.kind, "about": event.about, "dimension": event.dimension,
        "percent": event.percent, "severity": event.severity, "resolved": event.resolved,
        "title": event.title, "figures": event.figures, "since": time(event.since_ms),
        "by": event.by, "advice": event.advice, "link": event.link,
    })
}

/// Unix milliseconds as RFC 3339.
fn time(ms: i64) -> Value {
    json!(crate::clock::rfc3339(ms))
}
