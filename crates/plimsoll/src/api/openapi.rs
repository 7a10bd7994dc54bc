//! The OpenAPI 3.1 document, made from the list of routes and the schemas beside this file.

use plimsoll_core::metric::Metric;
use plimsoll_core::violation::ViolationKind;
use serde_json::{Map, Value, json};

use super::input::MAX_FIELDS;
use super::routes;

/// Shapes of bodies; the `max*` fields are filled in from the dimensions.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document.
///
/// # Panics
/// When the schemas beside this file are not JSON, which a test would have found.
#[must_use]
pub fn document() -> Value {
    let mut schemas: Map<String, Value> =
        serde_json::from_str(SCHEMAS).expect("the schemas are checked in as JSON");
    let limits: Map<String, Value> = MAX_FIELDS
        .into_iter()
        .map(|name| {
            (
                name.to_owned(),
                json!({"type": ["number", "null"], "minimum": 0}),
            )
        })
        .collect();
    schemas.insert(
        "MaxFields".to_owned(),
        json!({
            "type": "object",
            "description": "Limits by dimension: cores, GB of 1024³ bytes, hours, counts; null is unlimited.",
            "properties": limits,
        }),
    );
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let (status, schema) = route.answer;
        let mut operation = json!({
            "tags": [route.tag],
            "summary": route.summary,
            "operationId": operation_id(route.method, route.path),
            "responses": {
                status.to_string(): answer(schema),
                "default": {
                    "description": "A problem document (RFC 9457).",
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                },
            },
        });
        let mut parameters: Vec<Value> = route
            .path
            .split(['{', '}'])
            .skip(1)
            .step_by(2)
            .map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            })
            .collect();
        parameters.extend(
            route
                .query
                .iter()
                .map(|name| json!({"name": name, "in": "query", "schema": query_schema(name)})),
        );
        for status in route.also {
            operation["responses"][status.to_string()] = answer(schema);
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(body) = route.body {
            operation["requestBody"] = json!({
                "required": true, "content": {"application/json": {"schema": reference(body)}},
            });
        }
        if route.open {
            operation["security"] = json!([]);
        }
        paths.entry(route.path).or_insert_with(|| json!({}))[route.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Plimsoll",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Quotas and usage monitoring for shared Docker hosts. Wherever a user or a team is named, the name and the id both work.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn answer(schema: &str) -> Value {
    match schema {
        "" => json!({"description": "Done."}),
        "Text" => {
            json!({"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}})
        }
        "Table" => json!({"description": "A line of headings, then the rows.", "content": {
            "text/csv": {"schema": {"type": "string"}},
        }}),
        "Events" => json!({"description": "Events until the connection ends.", "content": {
            "text/event-stream": {"schema": {"type": "string"}},
        }}),
        "History" | "Breakdown" => json!({"description": "As asked.", "content": {
            "application/json": {"schema": reference(schema)},
            "text/csv": {"schema": {"type": "string"}},
        }}),
        schema => {
            let schema = match schema.strip_suffix("[]") {
                None => reference(schema),
                Some(item) => json!({
                    "type": "object",
                    "required": ["items"],
                    "properties": {
                        "items": {"type": "array", "items": reference(item)},
                        "nextCursor": {
                            "type": ["string", "integer", "null"],
                            "description": "Where the list goes on; null at its end.",
                        },
                    },
                }),
            };
            json!({"description": "As asked.", "content": {"application/json": {"schema": schema}}})
        }
    }
}

/// What a query parameter holds.
fn query_schema(name: &str) -> Value {
    match name {
        "drain" | "all" | "unread" => json!({"type": "boolean", "default": false}),
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        "since" | "from" | "to" => json!({"type": "string", "format": "date-time"}),
        "metric" => json!({"enum": Metric::ALL.map(Metric::name)}),
        "step" | "interval" => json!({"type": "string", "examples": ["30s", "5m", "1h", "7d"]}),
        "groupBy" => json!({"enum": ["user", "team", "project", "container", "image", "host"]}),
        "compare" => json!({"enum": ["previous"]}),
        "percentile" => json!({"type": "number", "minimum": 0.1, "maximum": 100}),
        "format" => json!({"enum": ["json", "csv"], "description": "Else as Accept says."}),
        "status" => json!({"enum": ["open", "closed", "all"]}),
        "kind" => json!({"enum": ViolationKind::ALL.map(ViolationKind::name)}),
        "outcome" => json!({"enum": ["allowed", "refused"]}),
        "state" => json!({"enum": ["pending", "active", "stopped", "released", "void"]}),
        _ => json!({"type": "string"}),
    }
}

/// `get /api/quotas/user/{user}` is `getApiQuotasUserByUser`.
fn operation_id(method: &str, path: &str) -> String {
    let mut id = method.to_owned();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let (by, word) = match part.strip_prefix('{') {
            Some(name) => ("By", name.trim_end_matches('}')),
            None => ("", part),
        };
        id.push_str(by);
        for piece in word.split(['.', '-']) {
            id.extend(piece.chars().take(1).flat_map(char::to_uppercase));
            id.extend(piece.chars().skip(1));
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The document that clients are generated from is checked in. `UPDATE_OPENAPI=1` writes it anew.
    #[test]
    fn the_document_is_the_one_checked_in() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(
            kept == now,
            "docs/openapi.json is out of date: run UPDATE_OPENAPI=1 cargo test openapi"
        );
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_every_id_is_unique() {
        let document = document();
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
        let mut ids = HashSet::new();
        for operations in document["paths"].as_object().unwrap().values() {
            for operation in operations.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} is there twice");
            }
        }
    }
}
