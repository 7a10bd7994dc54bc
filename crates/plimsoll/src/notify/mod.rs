//! Getting what people are told to them, over every channel there is.

use jiff::Timestamp;
use plimsoll_core::notice::Event;
use serde_json::{Value, json};

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
    Timestamp::from_millisecond(ms).map_or(Value::Null, |t| json!(t.to_string()))
}
