//! What must hold of every body that goes to the engine, whatever was asked.

use serde_json::Value;

/// The body holds no field but these.
#[track_caller]
pub fn only(body: &Value, fields: &[&str]) {
    for (name, _) in object(body) {
        assert!(fields.contains(&name.as_str()), "{name} in {body}");
    }
}

/// Of the labels under `plimsoll.`, in any letters that the engine reads so, it holds `ours` alone.
#[track_caller]
pub fn no_reserved_labels(labels: &Value, ours: &[&str]) {
    for (name, _) in object(labels) {
        let folded = plimsoll_host::request::json::fold(name);
        let reserved = folded.starts_with("plimsoll.");
        assert!(
            !reserved || ours.contains(&name.as_str()),
            "{name} in {labels}"
        );
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
