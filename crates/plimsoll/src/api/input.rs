//! Request bodies and queries, read strictly: unknown fields, duplicates and values out of range are
//! errors that name the field.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use plimsoll_core::{Dimension, Limit};
use plimsoll_store::StoreError;
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Bounds;
use super::problem::Problem;
use super::strict;
use crate::notify::mail::{NOT_AN_ADDRESS, is_address};

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse(&read(request).await?).map(Self)
    }
}

async fn read(request: Request) -> Result<Bytes, Problem> {
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
    let bounds = request.extensions().get::<Bounds>().copied();
    let bounds = bounds.unwrap_or_default();
    let body = Limited::new(request.into_body(), bounds.body_bytes_max).collect();
    match tokio::time::timeout(bounds.body_timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("a body may have {} bytes at most", bounds.body_bytes_max),
        )),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "unreadable_body",
            "the body ended before it was complete; nothing was done",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time; nothing was done",
        )),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value: strict::Value = serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", error.to_string())
    })?;
    Ok(strict::read(value)?)
}

/// A query string.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(strict::read_query(parts.uri.query().unwrap_or(""))?))
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
                format!("{field}.{}", d.limit_field()),
                "must be a number: an allotment is always bounded",
            )),
        };
        self.0.iter().map(amount).collect()
    }
}

/// The name of every `max*` field.
pub(super) static MAX_FIELDS: LazyLock<[&'static str; Dimension::ALL.len()]> =
    LazyLock::new(|| Dimension::ALL.map(Dimension::limit_field));

/// The dimension a `max*` field names.
pub(super) fn max_field(name: &str) -> Option<Dimension> {
    Dimension::ALL.into_iter().find(|d| d.limit_field() == name)
}

/// Reads the value of a `max*` field.
pub(super) struct MaxValue(pub(super) Dimension);

impl<'de> DeserializeSeed<'de> for MaxValue {
    type Value = Limit;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Limit, D::Error> {
        match Option::<f64>::deserialize(deserializer)? {
            None => Ok(Limit::Unlimited),
            Some(number) => self
                .0
                .from_human(number)
                .map(Limit::AtMost)
                .map_err(de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for MaxFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = MaxFields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of max* fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaxFields, A::Error> {
                let mut fields = MaxFields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let dimension = max_field(&name)
                        .ok_or_else(|| de::Error::unknown_field(&name, MAX_FIELDS.as_slice()))?;
                    fields
                        .0
                        .push((dimension, map.next_value_seed(MaxValue(dimension))?));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The longest free text: a reason, a label.
const TEXT_LEN_MAX: usize = 500;

/// Free text of one line, short enough to be shown anywhere.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > TEXT_LEN_MAX || text.chars().any(char::is_control) {
            let what = format!("must be one line of {TEXT_LEN_MAX} bytes at most");
            return Err(de::Error::custom(what));
        }
        Ok(Self(text))
    }
}

/// A mail address.
#[derive(Debug, Clone)]
pub(super) struct Email(pub(super) String);

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_address(&text) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom(NOT_AN_ADDRESS))
        }
    }
}

/// The most items in one answer.
const PAGE_MAX: u32 = 1000;

/// How many items an answer may hold.
pub(super) fn page_size(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(100) {
        size @ 1..=PAGE_MAX => Ok(size),
        _ => Err(Problem::field(
            "limit",
            format!("must be from 1 to {PAGE_MAX}"),
        )),
    }
}

/// A user's or team's name or id, as the ledger writes ids.
pub(super) fn id_or_name(text: &str) -> String {
    uuid::Uuid::try_parse(text).map_or_else(|_| text.to_owned(), |id| id.to_string())
}

/// Where the page after this one begins, by its last row; none after one that is not full.
pub(super) fn next_page<T, C>(rows: &[T], most: u32, cursor: impl FnOnce(&T) -> C) -> Option<C> {
    let full = rows.len() == most as usize;
    rows.last().filter(|_| full).map(cursor)
}

/// What the ledger has under an id. One that is no id is the same as absent.
pub(super) fn found<I: FromStr, T>(
    what: &str,
    id: &str,
    look: impl FnOnce(I) -> Result<T, StoreError>,
) -> Result<T, Problem> {
    let absent = || Problem::not_found(what, id);
    match look(id.parse().map_err(|_| absent())?) {
        Err(StoreError::NotFound { .. }) => Err(absent()),
        found => Ok(found?),
    }
}

/// A field that tells absent (`None`) from null (`Some(None)`).
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
