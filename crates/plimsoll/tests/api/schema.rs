//! Answers against `/api/openapi.json`: the status is a documented one, every field is documented,
//! none that is promised is missing, and each has its type.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use crate::site::Answer;

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(plimsoll::api::openapi_document);

/// Holds an answer against the description. Routes that do not exist have none.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else {
        return;
    };
    let responses = &operation["responses"];
    let documented = &responses[answer.status.to_string()];
    let response = if documented.is_null() {
        assert!(
            answer.status >= 400,
            "{method} {path} answers {}",
            answer.status
        );
        &responses["default"]
    } else {
        documented
    };
    let header = answer.header("content-type");
    let said = header.split(';').next().unwrap_or_default();
    let Some((kind, content)) = response["content"]
        .as_object()
        .and_then(|c| c.get_key_value(said).or_else(|| c.iter().next()))
    else {
        assert_eq!(answer.body, "", "{method} {path} promises no body");
        return;
    };
    match (kind.as_str(), said) {
        // Pages and styles are described as what they are: text.
        ("text/plain", said) => assert!(said.starts_with("text/"), "{path}: {said}"),
        (kind, said) => assert_eq!(kind, said, "{method} {path}"),
    }
    let mut found = Vec::new();
    compare(&content["schema"], &answer.body, "", &mut found);
    assert!(
        found.is_empty(),
        "{method} {path}: {found:#?}\n{:#}",
        answer.body
    );
}

/// The description of a method on a path with its variable parts filled in.
pub(crate) fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let asked: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == asked.len()
            && parts
                .iter()
                .zip(&asked)
                .all(|(part, asked)| part == asked || part.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let mut found: Vec<(&String, &Value)> = paths.iter().filter(|(t, _)| fits(t)).collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    let (_, operations) = found.first()?;
    operations.get(method.to_lowercase())
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(name) => resolved(DOCUMENT.pointer(&name[1..]).unwrap()),
        None => schema,
    }
}

fn compare(schema: &'static Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolved(schema);
    if schema.as_object().is_some_and(serde_json::Map::is_empty) {
        return;
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let wrong = |option: &'static Value| {
            let mut found = Vec::new();
            compare(option, value, at, &mut found);
            found
        };
        let all: Vec<Vec<String>> = options.iter().map(wrong).collect();
        if all.iter().all(|wrong| !wrong.is_empty()) {
            found.extend(all.into_iter().min_by_key(Vec::len).unwrap());
        }
        return;
    }
    if let Some(options) = schema["enum"].as_array()
        && !options.contains(value)
    {
        found.push(format!("{at}: {value} is none of {options:?}"));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind, value)) {
        found.push(format!("{at}: {value} is not {kinds:?}"));
    }
    if let (Some("date-time"), Some(text)) = (schema["format"].as_str(), value.as_str())
        && (text.parse::<jiff::Timestamp>().is_err() || !text.ends_with('Z'))
    {
        found.push(format!("{at}: {text} is not an RFC 3339 time in UTC"));
    }
    match value {
        Value::Array(items) => {
            for item in items {
                compare(&schema["items"], item, &format!("{at}[]"), found);
            }
        }
        Value::Object(fields) => {
            let mut known = BTreeSet::new();
            declared(schema, fields, at, &mut known, found);
            let further = &schema["additionalProperties"];
            for (name, value) in fields
                .iter()
                .filter(|(name, _)| !known.contains(name.as_str()))
            {
                if further.is_null() {
                    found.push(format!("{at}.{name} is not described"));
                } else {
                    compare(further, value, &format!("{at}.{name}"), found);
                }
            }
        }
        _ => {}
    }
}

/// Compares the fields that a schema and those it is made of declare, and collects their names.
fn declared(
    schema: &'static Value,
    fields: &serde_json::Map<String, Value>,
    at: &str,
    known: &mut BTreeSet<&'static str>,
    found: &mut Vec<String>,
) {
    let schema = resolved(schema);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        declared(part, fields, at, known, found);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        if !fields.contains_key(name) {
            found.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        known.insert(name);
        if let Some(value) = fields.get(name) {
            compare(property, value, &format!("{at}.{name}"), found);
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
