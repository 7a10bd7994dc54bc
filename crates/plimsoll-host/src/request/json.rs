//! JSON from strangers, read more strictly than the engine reads it.
//!
//! Go's `encoding/json` takes the last of two equal keys, matches a field's name under Unicode
//! simple case folding (`"hostconfig"`, `"HoſtConfig"`, `"\u{212A}ernelMemory"`), and lets `null`
//! clear. Here a duplicate key is refused at any depth, a key that folds to a known field without
//! being it is refused, `null` means absent, and what no getter took is refused by name. Keys of
//! free-form maps (labels, tmpfs paths) are case-sensitive on both sides and may differ in case.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::refusal::BadRequest;

/// How deep a body may nest.
pub const DEPTH_MAX: usize = 64;
/// How many values a body may hold. Keeps `[0,0,0,...]` from costing many times its own size.
pub const VALUES_MAX: usize = 131_072;

/// A JSON value. Integers are exact; what is not an `i64` or a `u64` is a float.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// Written with a fraction or exponent, or too large for an integer.
    Float(f64),
    /// A string.
    Str(String),
    /// An array.
    Array(Vec<Json>),
    /// An object without duplicate keys.
    Object(BTreeMap<String, Json>),
}

impl Json {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Uint(_) => "an integer",
            Self::Float(_) => "a number that is not an integer in range",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Whether it is the zero value of its kind: `null`, `false`, `0`, `""`, `[]`, `{}`.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(n) => *n == 0,
            Self::Uint(_) | Self::Float(_) => false,
            Self::Str(s) => s.is_empty(),
            Self::Array(a) => a.is_empty(),
            Self::Object(o) => o.is_empty(),
        }
    }
}

/// Decodes a body.
///
/// # Errors
/// [`BadRequest`] on `body` when it is not one JSON value in valid UTF-8, has a duplicate key, is
/// nested deeper than [`DEPTH_MAX`] or holds more than [`VALUES_MAX`] values.
pub fn decode(body: &[u8]) -> Result<Json, BadRequest> {
    let mut budget = VALUES_MAX;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Seed {
        depth: 0,
        budget: &mut budget,
    };
    let json = seed
        .deserialize(&mut deserializer)
        .map_err(|e| BadRequest::new("body", format!("not acceptable JSON: {e}")))?;
    deserializer
        .end()
        .map_err(|e| BadRequest::new("body", format!("not acceptable JSON: {e}")))?;
    Ok(json)
}

/// Decodes a body that must be an object.
///
/// # Errors
/// Those of [`decode`], and when the body is anything but an object.
pub fn decode_object(body: &[u8]) -> Result<Fields, BadRequest> {
    match decode(body)? {
        Json::Object(map) => Ok(Fields::new(String::new(), map)),
        other => Err(BadRequest::new(
            "body",
            format!("must be a JSON object, not {}", other.kind()),
        )),
    }
}

/// A key as Go's `encoding/json` compares it to an ASCII field name: ASCII case, and the two
/// non-ASCII characters that fold to ASCII letters.
#[must_use]
pub fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{017F}' => 's',
            '\u{212A}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

struct Seed<'b> {
    depth: usize,
    budget: &'b mut usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        *self.budget = self
            .budget
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom(format!("more than {VALUES_MAX} values")))?;
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Seed<'_>, E> {
        if self.depth + 1 > DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Seed {
            depth: self.depth + 1,
            budget: self.budget,
        })
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Uint(value), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Json, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.inner()?)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "key {:?} is given twice",
                    short(&key)
                )));
            }
            map.insert(key, value);
        }
        Ok(Json::Object(map))
    }
}

/// A text cut to a length that is safe to put in a message.
#[must_use]
pub fn short(text: &str) -> String {
    const MAX: usize = 80;
    let mut cut: String = text
        .chars()
        .take(MAX)
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    if text.chars().nth(MAX).is_some() {
        cut.push('…');
    }
    cut
}

/// An object being taken apart: each known field is taken once, and [`finish`](Self::finish)
/// refuses what is left. `null` is absent everywhere.
#[derive(Debug)]
pub struct Fields {
    path: String,
    map: BTreeMap<String, Json>,
    known: Vec<&'static str>,
}

impl Fields {
    /// The object found at `path`, which is empty for the body itself.
    #[must_use]
    pub fn new(path: String, map: BTreeMap<String, Json>) -> Self {
        Self {
            path,
            map,
            known: Vec::new(),
        }
    }

    /// The full name of a field here: `HostConfig.Memory`.
    #[must_use]
    pub fn name(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// Takes a field as it is.
    pub fn take(&mut self, field: &'static str) -> Option<Json> {
        self.known.push(field);
        match self.map.remove(field) {
            None | Some(Json::Null) => None,
            some => some,
        }
    }

    fn wrong(&self, field: &str, wanted: &str, got: &Json) -> BadRequest {
        BadRequest::new(
            self.name(field),
            format!("must be {wanted}, not {}", got.kind()),
        )
    }

    /// Takes a boolean.
    ///
    /// # Errors
    /// When the field is there and not a boolean.
    pub fn bool(&mut self, field: &'static str) -> Result<Option<bool>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Bool(b)) => Ok(Some(b)),
            Some(other) => Err(self.wrong(field, "a boolean", &other)),
        }
    }

    /// Takes an integer that fits an `i64`, as every integer of the engine's API does.
    ///
    /// # Errors
    /// When the field is there and not such an integer.
    pub fn i64(&mut self, field: &'static str) -> Result<Option<i64>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Int(n)) => Ok(Some(n)),
            Some(Json::Uint(_)) => Err(BadRequest::new(self.name(field), "is too large")),
            Some(other) => Err(self.wrong(field, "an integer", &other)),
        }
    }

    /// Takes a string without NUL bytes.
    ///
    /// # Errors
    /// When the field is there and not such a string.
    pub fn str(&mut self, field: &'static str) -> Result<Option<String>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(json) => string(&self.name(field), json).map(Some),
        }
    }

    /// Takes an array of strings without NUL bytes.
    ///
    /// # Errors
    /// When the field is there and not such an array.
    pub fn strings(&mut self, field: &'static str) -> Result<Option<Vec<String>>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Array(items)) => strings(&self.name(field), items).map(Some),
            Some(other) => Err(self.wrong(field, "an array of strings", &other)),
        }
    }

    /// Takes what the engine calls a `StrSlice`: an array of strings, or one string alone.
    ///
    /// # Errors
    /// When the field is there and neither.
    pub fn strings_or_one(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Vec<String>>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Array(items)) => strings(&self.name(field), items).map(Some),
            Some(one @ Json::Str(_)) => string(&self.name(field), one).map(|s| Some(vec![s])),
            Some(other) => Err(self.wrong(field, "an array of strings", &other)),
        }
    }

    /// Takes an array.
    ///
    /// # Errors
    /// When the field is there and not an array.
    pub fn array(&mut self, field: &'static str) -> Result<Option<Vec<Json>>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(field, "an array", &other)),
        }
    }

    /// Takes an array of objects, each to be taken apart and finished in turn.
    ///
    /// # Errors
    /// When the field is there and not such an array.
    pub fn objects(&mut self, field: &'static str) -> Result<Vec<Fields>, BadRequest> {
        let name = self.name(field);
        self.array(field)?
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(i, item)| object(format!("{name}[{i}]"), item))
            .collect()
    }

    /// Takes an object of known fields, to be taken apart and finished in turn.
    ///
    /// # Errors
    /// When the field is there and not an object.
    pub fn object(&mut self, field: &'static str) -> Result<Option<Fields>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(json) => object(self.name(field), json).map(Some),
        }
    }

    /// Takes a free-form map.
    ///
    /// # Errors
    /// When the field is there and not an object.
    pub fn map(
        &mut self,
        field: &'static str,
    ) -> Result<Option<BTreeMap<String, Json>>, BadRequest> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(field, "an object", &other)),
        }
    }

    /// Takes a map from strings to strings, neither with NUL bytes.
    ///
    /// # Errors
    /// When the field is there and not such a map.
    pub fn string_map(
        &mut self,
        field: &'static str,
    ) -> Result<Option<BTreeMap<String, String>>, BadRequest> {
        let name = self.name(field);
        let Some(map) = self.map(field)? else {
            return Ok(None);
        };
        map.into_iter()
            .map(|(key, value)| {
                no_nul(&name, &key)?;
                let value = string(&join(&name, &short(&key)), value)?;
                Ok((key, value))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Takes a set written as a map to empty objects, as `ExposedPorts` and `Volumes` are.
    ///
    /// # Errors
    /// When the field is there and anything else.
    pub fn set(&mut self, field: &'static str) -> Result<Option<Vec<String>>, BadRequest> {
        let name = self.name(field);
        let Some(map) = self.map(field)? else {
            return Ok(None);
        };
        map.into_iter()
            .map(|(key, value)| match value {
                Json::Null => Ok(key),
                Json::Object(inner) if inner.is_empty() => Ok(key),
                other => Err(BadRequest::new(
                    join(&name, &short(&key)),
                    format!("must be an empty object, not {}", other.kind()),
                )),
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Ends the object: every key must have been taken, be `null`, or be in `harmless`, in which
    /// case it is dropped and told in `warnings`.
    ///
    /// # Errors
    /// [`BadRequest`] naming a key that differs from a known one only in case, or is unknown.
    pub fn finish(self, harmless: &[&str], warnings: &mut Vec<String>) -> Result<(), BadRequest> {
        for (key, value) in &self.map {
            let name = join(&self.path, &short(key));
            let folded = fold(key);
            if let Some(known) = self.known.iter().find(|k| fold(k) == folded) {
                return Err(BadRequest::new(
                    name,
                    format!("differs from {known} only in letter case; write {known}"),
                ));
            }
            if *value == Json::Null {
                continue;
            }
            if harmless.contains(&key.as_str()) {
                if !value.is_zero() {
                    warnings.push(format!("plimsoll: {name} has no effect and was left out"));
                }
                continue;
            }
            return Err(BadRequest::new(name, "is not a field Plimsoll knows here"));
        }
        Ok(())
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn object(name: String, json: Json) -> Result<Fields, BadRequest> {
    match json {
        Json::Object(map) => Ok(Fields::new(name, map)),
        other => Err(BadRequest::new(
            name,
            format!("must be an object, not {}", other.kind()),
        )),
    }
}

fn strings(name: &str, items: Vec<Json>) -> Result<Vec<String>, BadRequest> {
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| string(&format!("{name}[{i}]"), item))
        .collect()
}

fn string(name: &str, json: Json) -> Result<String, BadRequest> {
    match json {
        Json::Str(text) => {
            no_nul(name, &text)?;
            Ok(text)
        }
        other => Err(BadRequest::new(
            name,
            format!("must be a string, not {}", other.kind()),
        )),
    }
}

fn no_nul(name: &str, text: &str) -> Result<(), BadRequest> {
    if text.contains('\0') {
        return Err(BadRequest::new(name, "must not contain a NUL byte"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        for (text, json) in [
            ("0", Json::Int(0)),
            ("-9223372036854775808", Json::Int(i64::MIN)),
            ("9223372036854775807", Json::Int(i64::MAX)),
            ("9223372036854775808", Json::Uint(1 << 63)),
            ("18446744073709551615", Json::Uint(u64::MAX)),
            ("1.0", Json::Float(1.0)),
            ("1e2", Json::Float(100.0)),
        ] {
            assert_eq!(decode(text.as_bytes()), Ok(json), "{text}");
        }
        assert!(matches!(
            decode(b"18446744073709551616"),
            Ok(Json::Float(_))
        ));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[{"x":{"a":1,"b":2,"a":null}}]"#,
            r#""\ud800""#,
            "{'a':1}",
            "{a:1}",
            "[1,]",
            "01",
            "+1",
            "NaN",
            "1 2",
            "\u{FEFF}1",
            "// c\n1",
            "",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(decode(b"\"\xff\"").is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(decode(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(decode(nested(DEPTH_MAX + 2).as_bytes()).is_err());
    }

    #[test]
    fn keys_fold_as_the_engine_folds_them() {
        for (key, folded) in [
            ("HostConfig", "hostconfig"),
            ("HO\u{017F}TCONFIG", "hostconfig"),
            ("\u{212A}ernelMemory", "kernelmemory"),
            // Not simple foldings: the engine does not match them either.
            ("HostConf\u{0131}g", "hostconf\u{0131}g"),
            ("HostCon\u{FB01}g", "hostcon\u{FB01}g"),
        ] {
            assert_eq!(fold(key), folded);
        }
    }

    #[test]
    fn what_no_getter_took_is_refused_unless_null_or_harmless() {
        let read = |text: &str| {
            let mut warnings = Vec::new();
            let mut fields = decode_object(text.as_bytes()).unwrap();
            fields.i64("Memory").unwrap();
            let end = fields.finish(&["Spare"], &mut warnings);
            (end.map_err(|bad| bad.field), warnings.len())
        };
        for (text, expected) in [
            (r#"{"Memory":1}"#, (Ok(()), 0)),
            (r#"{"Memory":null,"Other":null}"#, (Ok(()), 0)),
            (r#"{"Spare":1}"#, (Ok(()), 1)),
            (r#"{"Spare":0}"#, (Ok(()), 0)),
            (r#"{"spare":1}"#, (Err("spare".to_owned()), 0)),
            (r#"{"Other":0}"#, (Err("Other".to_owned()), 0)),
            (r#"{"memory":null}"#, (Err("memory".to_owned()), 0)),
            (r#"{"MEMORY":1,"Memory":1}"#, (Err("MEMORY".to_owned()), 0)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
