//! Request bodies and queries, read strictly: unknown fields, duplicates and values out of range are
//! errors that name the field.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use plimsoll_core::{Dimension, Limit};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::problem::Problem;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body together with the bytes it was parsed from.
#[derive(Debug)]
pub(super) struct BodyAndBytes<T>(pub(super) T, pub(super) Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for BodyAndBytes<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        Ok(Self(parse(&bytes)?, bytes))
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let declared = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let essence = declared
        .and_then(|v| v.split(';').next())
        .unwrap_or_default()
        .trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "send JSON, with Content-Type: application/json",
        ));
    }
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) => {
            let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                "too_large"
            } else {
                "unreadable_body"
            };
            Err(Problem::new(
                rejection.status(),
                code,
                rejection.body_text(),
            ))
        }
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time; nothing was done",
        )),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let value = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            data_problem(&path, &inner)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "malformed_json", inner.to_string())
        }
    })?;
    deserializer.end().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", error.to_string())
    })?;
    Ok(value)
}

/// A well-formed body that says something else than it should.
fn data_problem(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    let mut quoted = text.split('`').skip(1).step_by(2);
    if text.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let near = nearest(unknown, quoted);
        let hint = near.map_or_else(String::new, |near| format!(", did you mean {near}?"));
        return Problem::field(unknown, format!("is not a field here{hint}"));
    }
    if text.starts_with("missing field") {
        let missing = quoted.next().unwrap_or_default();
        return Problem::field(missing, "must be given");
    }
    let field = if path == "." { "body" } else { path };
    Problem::field(field, text)
}

/// The known name that a misspelt one most resembles.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| {
            (
                strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1)
        .min()
        .map(|(_, name)| name)
}

/// A query string.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| {
                let text = rejection.body_text();
                let text = text.split(": ").skip(1).collect::<Vec<_>>().join(": ");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", text)
            })?;
        Ok(Self(value))
    }
}

/// A JSON object with its fields in order; duplicates are refused.
#[derive(Debug, Default)]
pub(super) struct Object(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom(format!("{name} is given twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// `max*` fields: each a number in people's units, or null for unlimited.
#[derive(Debug, Clone, Default)]
pub(super) struct MaxFields(pub(super) Vec<(Dimension, Limit)>);

impl MaxFields {
    /// The fields as amounts, where none may be unlimited.
    pub(super) fn bounded(&self, field: &str) -> Result<Vec<(Dimension, u64)>, Problem> {
        let amount = |(d, limit): &(Dimension, Limit)| match limit.at_most() {
            Some(amount) => Ok((*d, amount)),
            None => Err(Problem::field(
                format!("{field}.max{}", d.field()),
                "must be a number: an allotment is always bounded",
            )),
        };
        self.0.iter().map(amount).collect()
    }
}

/// The dimension a `max*` field names.
pub(super) fn max_field(name: &str) -> Option<Dimension> {
    let field = name.strip_prefix("max")?;
    Dimension::ALL.into_iter().find(|d| d.field() == field)
}

/// Every `max*` field.
pub(super) fn max_names() -> impl Iterator<Item = String> {
    Dimension::ALL
        .into_iter()
        .map(|d| format!("max{}", d.field()))
}

/// One `max*` field's value as a limit.
pub(super) fn max_value(name: &str, dimension: Dimension, value: &Value) -> Result<Limit, Problem> {
    if value.is_null() {
        return Ok(Limit::Unlimited);
    }
    let number = value
        .as_f64()
        .filter(|_| value.is_number())
        .ok_or_else(|| Problem::field(name, "must be a number, or null for unlimited"))?;
    let amount = dimension
        .from_human(number)
        .map_err(|e| Problem::field(name, e.to_string()))?;
    Ok(Limit::AtMost(amount))
}

/// The problem with a field that is none of the known ones.
pub(super) fn unknown_field(name: &str, also: &[&str]) -> Problem {
    let max: Vec<String> = max_names().collect();
    let known = max.iter().map(String::as_str).chain(also.iter().copied());
    let hint = nearest(name, known).map_or_else(String::new, |n| format!(", did you mean {n}?"));
    Problem::field(name, format!("is not a field here{hint}"))
}

/// An object of `max*` fields.
pub(super) fn max_fields(object: &Object, also: &[&str]) -> Result<MaxFields, Problem> {
    let mut fields = MaxFields::default();
    for (name, value) in &object.0 {
        let dimension = max_field(name).ok_or_else(|| unknown_field(name, also))?;
        fields
            .0
            .push((dimension, max_value(name, dimension, value)?));
    }
    Ok(fields)
}

/// A field that tells absent (`None`) from null (`Some(None)`).
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_neighbour() {
        for (unknown, near) in [
            ("maxMemoryGb", Some("maxMemoryGB")),
            ("maxCpuCore", Some("maxCpuCores")),
            ("colour", None),
        ] {
            let names: Vec<String> = max_names().collect();
            assert_eq!(
                nearest(unknown, names.iter().map(String::as_str)),
                near,
                "{unknown}"
            );
        }
    }
}
