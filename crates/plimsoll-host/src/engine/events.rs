//! The engine's event stream: one JSON object a line.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::types::null_default;
use super::{EngineBody, EngineError};

/// The longest event accepted, in bytes. Events carry all labels of their container.
const EVENT_MAX: usize = 1 << 20;

/// Something happened in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it happened to: `container`, `image`, `volume`, `network`, ...
    pub kind: String,
    /// What happened: `start`, `die`, `destroy`, ... Some carry detail behind a colon, such as
    /// `exec_create: sh -c true`; see [`Event::verb`].
    pub action: String,
    /// Whom it happened to. For containers and images the full id; for volumes the name.
    pub id: String,
    /// The thing's labels and a few of the engine's own keys, mixed: never proof of ownership.
    pub attributes: BTreeMap<String, String>,
    /// When, in nanoseconds since 1970 by the engine's clock.
    pub time_nano: i64,
}

impl Event {
    /// The action without its detail: `exec_create`, `health_status`, `start`.
    #[must_use]
    pub fn verb(&self) -> &str {
        self.action
            .split_once(':')
            .map_or(self.action.as_str(), |(verb, _)| verb)
    }
}

/// The wire form.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    actor: Actor,
    #[serde(default, rename = "timeNano")]
    time_nano: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default, deserialize_with = "null_default")]
    attributes: BTreeMap<String, String>,
}

/// Events as they come. Dropping it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    body: EngineBody,
    lines: Lines,
}

impl EventStream {
    pub(super) fn new(body: EngineBody) -> Self {
        Self {
            body,
            lines: Lines::default(),
        }
    }

    /// The next event; `None` when the engine ends the stream, as it does when it stops. Safe to
    /// drop while it waits: no event is lost.
    ///
    /// # Errors
    /// [`EngineError::Connection`], or [`EngineError::Malformed`] and [`EngineError::TooLarge`] for
    /// a line that is no event. After an error the stream is to be opened anew.
    pub async fn next(&mut self) -> Result<Option<Event>, EngineError> {
        loop {
            if let Some(event) = self.lines.take_event()? {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(bytes) = frame?.into_data() {
                        self.lines.push(&bytes)?;
                    }
                }
                // What is left without a newline was cut off in the middle.
                None => return Ok(None),
            }
        }
    }
}

/// Cuts bytes into lines, holding at most one unfinished line of [`EVENT_MAX`].
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// Bytes at the front known to hold no newline.
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        if self.buffer.len() + bytes.len() > EVENT_MAX {
            return Err(EngineError::TooLarge {
                what: "an event",
                limit: EVENT_MAX,
            });
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn take_event(&mut self) -> Result<Option<Event>, EngineError> {
        while let Some(at) = self.buffer[self.searched..]
            .iter()
            .position(|&b| b == b'\n')
        {
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let wire: Wire =
                serde_json::from_slice(&line).map_err(|source| EngineError::Malformed {
                    what: "an event",
                    source,
                })?;
            return Ok(Some(Event {
                kind: wire.r#type,
                action: wire.action,
                id: wire.actor.id,
                attributes: wire.actor.attributes,
                time_nano: wire.time_nano,
            }));
        }
        self.searched = self.buffer.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIE: &str = r#"{"status":"die","id":"ab","from":"bb:1","Type":"container","Action":"die","Actor":{"ID":"ab","Attributes":{"exitCode":"0","image":"bb:1"}},"scope":"local","time":1795493340,"timeNano":1795493340071705967}"#;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = format!(
            "{DIE}\n\r\n{}\n",
            DIE.replace("\"die\"", "\"exec_create: sh -c x\"")
        );
        for size in [1, 7, 100, text.len()] {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk).unwrap();
                while let Some(event) = lines.take_event().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events.len(), 2, "chunks of {size}");
            assert_eq!(events[0].action, "die");
            assert_eq!(events[0].id, "ab");
            assert_eq!(events[0].attributes["exitCode"], "0");
            assert_eq!(events[0].time_nano, 1_795_493_340_071_705_967);
            assert_eq!(events[1].verb(), "exec_create");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; EVENT_MAX / 2];
        lines.push(&chunk).unwrap();
        lines.push(&chunk).unwrap();
        assert!(matches!(
            lines.push(b"x"),
            Err(EngineError::TooLarge { .. })
        ));
    }

    #[test]
    fn what_is_no_event_is_said_to_be_none() {
        let mut lines = Lines::default();
        lines.push(b"{\"Type\":\n").unwrap();
        assert!(matches!(
            lines.take_event(),
            Err(EngineError::Malformed { .. })
        ));
    }

    #[test]
    fn null_attributes_are_no_attributes() {
        let mut lines = Lines::default();
        lines.push(b"{\"Type\":\"daemon\",\"Action\":\"reload\",\"Actor\":{\"ID\":\"x\",\"Attributes\":null}}\n").unwrap();
        assert_eq!(lines.take_event().unwrap().unwrap().attributes.len(), 0);
    }
}
