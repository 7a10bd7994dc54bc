//! The server's events, read as they come.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

/// What one event may hold, bytes.
const EVENT_MAX: usize = 64 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    /// `usage`, `violation`, ...
    pub(super) name: String,
    /// What of it.
    pub(super) data: Value,
}

/// Events that follow each other until the connection ends.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    /// Those in the body of an answer.
    #[must_use]
    pub(super) fn of(body: Incoming) -> Self {
        let rest = Vec::new();
        Self { body, rest }
    }

    /// The next event; `None` at the end. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(event) = taken(&mut self.rest) {
                if let Some(told) = told(&event) {
                    return Some(told);
                }
                continue;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(bytes) = frame.into_data() {
                self.rest.extend_from_slice(&bytes);
            }
            if self.rest.len() > EVENT_MAX {
                return None;
            }
        }
    }
}

/// Takes the first whole event.
fn taken(rest: &mut Vec<u8>) -> Option<String> {
    let end = rest.windows(2).position(|two| two == b"\n\n")?;
    let event: Vec<u8> = rest.drain(..end + 2).collect();
    Some(String::from_utf8_lossy(&event).into_owned())
}

/// An event; `None` for a comment.
fn told(event: &str) -> Option<Told> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    Some(Told {
        name: field("event:")?.trim().to_owned(),
        data: serde_json::from_str(field("data:")?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_whole_and_comments_are_none() {
        let mut rest = b"event: usage\nid: 7\ndata: {\"a\":1}\n\n: still here\n\nevent: x".to_vec();
        let first = told(&taken(&mut rest).unwrap()).unwrap();
        assert_eq!(
            (first.name.as_str(), first.data),
            ("usage", json!({"a": 1}))
        );
        assert_eq!(told(&taken(&mut rest).unwrap()), None);
        assert_eq!(taken(&mut rest), None);
        assert_eq!(rest, b"event: x");
    }
}
