//! Reading what a client wrote: nothing is guessed, nothing is ignored, and every complaint names
//! the field it is about.
//!
//! A body is read twice. First as JSON, into [`Value`], where a key may stand only once. Then into
//! the type the route expects, with an error that keeps the path to the field and, for an unknown
//! one, the nearest that is known. Query strings take the second step alone.

use std::fmt;

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

/// A field of a request that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError {
    /// Where: `resourceRequest.memoryGB`; empty for the body itself.
    pub(super) path: String,
    /// What is wrong with it, to be read after the field's name: `must be a number, not a string`.
    pub(super) what: String,
    /// For an unknown field: the nearest known one.
    pub(super) nearest: Option<&'static str>,
}

impl FieldError {
    /// A complaint about one field.
    pub(super) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            what: what.into(),
            nearest: None,
        }
    }

    /// The same complaint about a field inside `parent`.
    #[must_use]
    pub(super) fn within(mut self, parent: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => parent.to_owned(),
            path if path.starts_with('[') => format!("{parent}{path}"),
            path => format!("{parent}.{path}"),
        };
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() {
            "the request"
        } else {
            &self.path
        };
        write!(f, "{path} {}", self.what)?;
        match self.nearest {
            Some(nearest) => write!(f, ": did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("", message.to_string())
    }

    fn invalid_type(seen: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let what = format!(
            "must be {}, not {}",
            in_words(expected),
            seen_in_words(seen)
        );
        Self::new("", what)
    }

    fn invalid_value(seen: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(seen, expected)
    }

    fn unknown_variant(seen: &str, known: &'static [&'static str]) -> Self {
        Self::new(
            "",
            format!("must be one of {}, not {seen:?}", known.join(", ")),
        )
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self {
            path: field.to_owned(),
            what: "is not a known field".to_owned(),
            nearest: nearest(field, known),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(field, "is given twice")
    }
}

/// The known name that `name` was meant to be, if one is near enough: few letters apart, or sharing
/// a long beginning.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_lowercase();
    let near = |known: &'static str| {
        let lower = known.to_lowercase();
        let likeness = strsim::jaro_winkler(&name, &lower);
        let apart = strsim::damerau_levenshtein(&name, &lower);
        (likeness > 0.85 || apart <= known.len() / 3 + 1).then_some((likeness, known))
    };
    known
        .iter()
        .filter_map(|known| near(known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

fn in_words(expected: &dyn de::Expected) -> String {
    match expected.to_string().as_str() {
        "u8" | "u16" | "u32" | "u64" => "a whole number that is not negative".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

fn seen_in_words(seen: Unexpected<'_>) -> String {
    match seen {
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(_) => "text".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// JSON, or a parameter of a query string.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Unsigned(u64),
    /// A negative whole number.
    Signed(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Text of a query string, which has no types: it is read as whatever the field wants.
    Plain(String),
    /// A list.
    List(Vec<Value>),
    /// An object, each key once.
    Object(Vec<(String, Value)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Json;
        impl<'de> Visitor<'de> for Json {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Unsigned(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Signed(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut object: Vec<(String, Value)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if object.len() >= KEYS_MAX {
                        return Err(de::Error::custom("an object has too many keys"));
                    }
                    if object.iter().any(|(known, _)| *known == key) {
                        return Err(de::Error::custom(format!("the key {key:?} is given twice")));
                    }
                    let value = map.next_value()?;
                    object.push((key, value));
                }
                Ok(Value::Object(object))
            }
        }
        deserializer.deserialize_any(Json)
    }
}

/// More keys than any object of this API has; bounds the search for a key given twice.
const KEYS_MAX: usize = 256;

/// Reads `value` as the type a route expects.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    T::deserialize(value)
}

/// Reads a query string as the type a route expects.
pub(super) fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, FieldError> {
    let mut object: Vec<(String, Value)> = Vec::new();
    for (key, value) in form(query) {
        if object.iter().any(|(known, _)| *known == key) {
            return Err(FieldError::new(key, "is given twice"));
        }
        object.push((key, Value::Plain(value)));
    }
    T::deserialize(Value::Object(object))
}

/// The pairs of an `application/x-www-form-urlencoded` string.
fn form(query: &str) -> impl Iterator<Item = (String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(key), percent_decoded(value))
        })
}

/// Undoes percent encoding; what is not valid UTF-8 becomes U+FFFD, which no name holds.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |c: u8| char::from(c).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let byte = hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0);
                bytes.push(byte as u8);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

macro_rules! read_plain {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            match self {
                Value::Plain(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(FieldError::new("", concat!("must be ", $what))),
                },
                value => value.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(value) => visitor.visit_u64(value),
            Self::Signed(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(text) | Self::Plain(text) => visitor.visit_string(text),
            Self::List(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter())),
            Self::Object(object) => visitor.visit_map(Fields {
                rest: object.into_iter(),
                current: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    /// Only an object: derived readers would take a list for one, too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let seen = match &self {
            Self::Object(_) => return self.deserialize_any(visitor),
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Signed(value) => Unexpected::Signed(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Text(text) | Self::Plain(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
        };
        Err(de::Error::invalid_type(seen, &"an object"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match self {
            Self::Text(text) | Self::Plain(text) => {
                let text: StringDeserializer<FieldError> = text.into_deserializer();
                visitor.visit_enum(text)
            }
            value => value.deserialize_any(visitor),
        }
    }

    read_plain! {
        deserialize_u8 visit_u8 u8, "a whole number that is not negative";
        deserialize_u16 visit_u16 u16, "a whole number that is not negative";
        deserialize_u32 visit_u32 u32, "a whole number that is not negative";
        deserialize_u64 visit_u64 u64, "a whole number that is not negative";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_bool visit_bool bool, "true or false";
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, FieldError> for Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// Hands out an object's fields and puts their names in front of what is wrong with their values.
struct Fields {
    rest: std::vec::IntoIter<(String, Value)>,
    current: Option<(String, Value)>,
}

impl<'de> de::MapAccess<'de> for Fields {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.current = self.rest.next();
        match &self.current {
            Some((key, _)) => seed.deserialize(key.as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, FieldError> {
        let (key, value) = self.current.take().expect("a value is asked after its key");
        seed.deserialize(value).map_err(|error| error.within(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Outer {
        name: String,
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Inner {
        os_uid: u32,
    }

    fn complaint(json: &str) -> String {
        let value: Value = serde_json::from_str(json).unwrap();
        read::<Outer>(value).unwrap_err().to_string()
    }

    #[test]
    fn every_complaint_names_its_field() {
        for (json, words) in [
            (r#"{}"#, "name is missing"),
            (r#"[]"#, "the request must be an object, not a list"),
            (r#"{"name": 7}"#, "name must be a string, not 7"),
            (
                r#"{"nmae": "a"}"#,
                "nmae is not a known field: did you mean name?",
            ),
            (r#"{"name": "a", "zzz": 1}"#, "zzz is not a known field"),
            (
                r#"{"name": "a", "inner": {"osUid": -1}}"#,
                "inner.osUid must be a whole number that is not negative, not -1",
            ),
            (
                r#"{"name": "a", "inner": {"osUid": "NaN"}}"#,
                "inner.osUid must be a whole number that is not negative, not text",
            ),
            (
                r#"{"name": "a", "inner": {"osuid": 1}}"#,
                "inner.osuid is not a known field: did you mean osUid?",
            ),
        ] {
            assert_eq!(complaint(json), words, "{json}");
        }
    }

    #[test]
    fn a_key_stands_once() {
        let error = serde_json::from_str::<Value>(r#"{"a": 1, "a": 2}"#).unwrap_err();
        assert!(error.to_string().contains("given twice"), "{error}");
    }

    #[test]
    fn query_strings_are_read_as_what_the_fields_want() {
        assert_eq!(read_query::<Inner>("osUid=7"), Ok(Inner { os_uid: 7 }));
        for (query, words) in [
            (
                "osUid=x",
                "osUid must be a whole number that is not negative",
            ),
            ("osUid=1&osUid=2", "osUid is given twice"),
            ("uid=1", "uid is not a known field: did you mean osUid?"),
        ] {
            assert_eq!(read_query::<Inner>(query).unwrap_err().to_string(), words);
        }
        assert_eq!(percent_decoded("a%2Fb+c%zz"), "a/b c%zz");
    }
}
