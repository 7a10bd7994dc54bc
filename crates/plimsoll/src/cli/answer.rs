//! What a command has to say, for people and for programs.

use serde_json::Value;

use super::error::{CliError, Exit};
use super::text;

/// The outcome of a command that was done.
#[derive(Debug)]
pub(super) struct Answer {
    /// For programs: the API's JSON.
    pub(super) json: Value,
    /// For people; empty says nothing.
    pub(super) text: String,
    /// For people, on stderr: remarks that are no part of the answer.
    pub(super) remark: Option<String>,
    /// How the process ends.
    pub(super) exit: Exit,
}

impl Answer {
    /// An answer of which all is well.
    #[must_use]
    pub(super) fn new(json: Value, text: String) -> Self {
        Self {
            json,
            text,
            remark: None,
            exit: Exit::Done,
        }
    }

    /// Nothing more to say: it has been said already.
    #[must_use]
    pub(super) fn silent() -> Self {
        Self::new(Value::Null, String::new())
    }

    /// The same with a remark on stderr.
    #[must_use]
    pub(super) fn remarking(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// Prints it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn print(&self, as_json: bool) -> Result<Exit, CliError> {
        let shown = if as_json && self.json.is_null() && self.text.is_empty() {
            String::new()
        } else if as_json {
            format!("{:#}\n", self.json)
        } else {
            if let Some(remark) = &self.remark {
                eprintln!("{}", text::printable_lines(remark));
            }
            self.text.clone()
        };
        put(&shown)?;
        Ok(self.exit)
    }
}

/// Writes to stdout.
///
/// # Errors
/// When that fails.
pub(super) fn put(text: &str) -> Result<(), CliError> {
    text::print(text).map_err(|source| CliError::Io {
        verb: "write to",
        path: "stdout".to_owned(),
        source,
    })
}
