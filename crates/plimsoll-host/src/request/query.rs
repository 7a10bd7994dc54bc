//! Query strings, read strictly and written anew.
//!
//! As with bodies, each known parameter is taken once and the rest is refused by name; what goes to
//! the engine is a [`QueryBuilder`]'s output.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use super::json::{self, Json, short};
use super::refusal::BadRequest;

/// The most parameters a request may have.
const PARAMETERS_MAX: usize = 64;
/// The most values one filter may have.
const FILTER_VALUES_MAX: usize = 256;

/// Parameters that clients may give several times.
const REPEATED: [&str; 6] = ["changes", "dockerfile", "extrahosts", "names", "t", "type"];

/// A query string being taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    map: BTreeMap<String, String>,
    /// Further values of [`REPEATED`] ones.
    more: BTreeMap<String, Vec<String>>,
}

/// Filters as the engine knows them: for each key, any of these values.
pub type Filters = BTreeMap<String, Vec<String>>;

fn bad(name: &str, reason: impl Into<String>) -> BadRequest {
    BadRequest::new(format!("query {}", short(name)), reason)
}

impl Query {
    /// Parses what follows the question mark; empty when there is none.
    ///
    /// # Errors
    /// [`BadRequest`] on a parameter that is given twice, is not valid percent-encoded UTF-8, holds
    /// a NUL byte or a semicolon outside percent-encoding.
    pub fn parse(query: &str) -> Result<Self, BadRequest> {
        let mut map = BTreeMap::new();
        let mut more: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut count = 0;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = percent_decode(key).map_err(|reason| bad(key, reason))?;
            let value = percent_decode(value).map_err(|reason| bad(&key, reason))?;
            match map.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(value);
                }
                Entry::Occupied(taken) if REPEATED.contains(&taken.key().as_str()) => {
                    more.entry(taken.key().clone()).or_default().push(value);
                }
                Entry::Occupied(taken) => return Err(bad(taken.key(), "is given twice")),
            }
            count += 1;
            if count > PARAMETERS_MAX {
                return Err(BadRequest::new(
                    "query",
                    format!("has more than {PARAMETERS_MAX} parameters"),
                ));
            }
        }
        Ok(Self { map, more })
    }

    /// Takes a parameter that may be given several times; empty values are none.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let first = self.map.remove(name);
        let more = self.more.remove(name).unwrap_or_default();
        let values = first.into_iter().chain(more);
        values.filter(|text| !text.is_empty()).collect()
    }

    /// Takes a parameter as it is; `None` when absent.
    pub fn raw(&mut self, name: &str) -> Option<String> {
        self.map.remove(name)
    }

    /// Takes a parameter; `None` when absent or empty, as the engine sees it.
    pub fn str(&mut self, name: &str) -> Option<String> {
        self.map.remove(name).filter(|text| !text.is_empty())
    }

    /// Takes a boolean as the engine reads one: absent, empty, `0`, `no`, `false` and `none` in any
    /// case are false. Unlike the engine, what is neither these nor `1`, `true` or `yes` is refused.
    ///
    /// # Errors
    /// [`BadRequest`] for another text.
    pub fn bool(&mut self, name: &str) -> Result<bool, BadRequest> {
        Ok(self.opt_bool(name)?.unwrap_or(false))
    }

    /// As [`bool`](Self::bool), telling absent and empty apart from false.
    ///
    /// # Errors
    /// [`BadRequest`] for another text.
    pub fn opt_bool(&mut self, name: &str) -> Result<Option<bool>, BadRequest> {
        let Some(text) = self.str(name) else {
            return Ok(None);
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "0" | "no" | "false" | "none" => Ok(Some(false)),
            "1" | "true" | "yes" => Ok(Some(true)),
            _ => Err(bad(name, "must be true or false")),
        }
    }

    /// Takes an integer; `None` when absent or empty.
    ///
    /// # Errors
    /// [`BadRequest`] for what is not a decimal `i64`.
    pub fn i64(&mut self, name: &str) -> Result<Option<i64>, BadRequest> {
        let Some(text) = self.str(name) else {
            return Ok(None);
        };
        // `parse` alone would take a leading plus.
        Some(text.as_str())
            .filter(|t| !t.starts_with('+'))
            .and_then(|t| t.parse().ok())
            .map(Some)
            .ok_or_else(|| bad(name, "must be an integer"))
    }

    /// Takes `filters`: `{"label":["a=b"]}`, or `{"label":{"a=b":true}}` as older clients write it.
    ///
    /// # Errors
    /// [`BadRequest`] for malformed JSON, a key outside `allowed`, or values of another shape.
    pub fn filters(&mut self, allowed: &[&str]) -> Result<Filters, BadRequest> {
        match self.str("filters") {
            None => Ok(Filters::new()),
            Some(text) => parse_filters(&text, allowed),
        }
    }

    /// Ends the query: every parameter must have been taken, and each of those given several times as
    /// such.
    ///
    /// # Errors
    /// [`BadRequest`] naming one that was not.
    pub fn finish(self) -> Result<(), BadRequest> {
        if let Some(key) = self.more.keys().next() {
            return Err(bad(key, "is given twice"));
        }
        match self.map.into_keys().next() {
            None => Ok(()),
            Some(key) => Err(bad(&key, "is not a parameter Plimsoll knows here")),
        }
    }
}

fn parse_filters(text: &str, allowed: &[&str]) -> Result<Filters, BadRequest> {
    let wrong = |reason: String| bad("filters", reason);
    let json = json::decode(text.as_bytes()).map_err(|e| wrong(e.reason))?;
    let map = match json {
        Json::Object(map) => map,
        Json::Null => return Ok(Filters::new()),
        _ => return Err(wrong("must be a JSON object".to_owned())),
    };
    let mut filters = Filters::new();
    for (key, value) in map {
        if !allowed.contains(&key.as_str()) {
            return Err(wrong(format!("{} is not a filter here", short(&key))));
        }
        let mut values = match value {
            Json::Null => Vec::new(),
            Json::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Json::Str(text) => Ok(text),
                    _ => Err(wrong(format!("the values of {key} must be strings"))),
                })
                .collect::<Result<_, _>>()?,
            Json::Object(set) => set
                .into_iter()
                .map(|(text, on)| match on {
                    Json::Bool(true) => Ok(text),
                    // The engine keeps the key whatever the value; clients never send false.
                    _ => Err(wrong(format!("the values of {key} must be true"))),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(wrong(format!("the values of {key} must be an array"))),
        };
        if values.len() > FILTER_VALUES_MAX {
            return Err(wrong(format!("{key} has too many values")));
        }
        values.sort();
        values.dedup();
        if !values.is_empty() {
            filters.insert(key, values);
        }
    }
    Ok(filters)
}

/// A query string in the making.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryBuilder {
    text: String,
}

impl QueryBuilder {
    /// An empty query string.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn str(mut self, name: &str, value: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push('&');
        }
        percent_encode(&mut self.text, name);
        self.text.push('=');
        percent_encode(&mut self.text, value);
        self
    }

    /// Adds a text if there is one.
    #[must_use]
    pub fn opt_str(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.str(name, value),
            None => self,
        }
    }

    /// Adds a boolean as `1` or `0`.
    #[must_use]
    pub fn bool(self, name: &str, value: bool) -> Self {
        self.str(name, if value { "1" } else { "0" })
    }

    /// Adds an integer.
    #[must_use]
    pub fn i64(self, name: &str, value: i64) -> Self {
        self.str(name, &value.to_string())
    }

    /// Adds `filters` in the form every engine reads, unless they are empty.
    #[must_use]
    pub fn filters(self, filters: &Filters) -> Self {
        if filters.is_empty() {
            return self;
        }
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = filters
            .iter()
            .map(|(key, values)| {
                let set = values.iter().map(|v| (v.as_str(), true)).collect();
                (key.as_str(), set)
            })
            .collect();
        let text = serde_json::to_string(&map).expect("string keys always serialise");
        self.str("filters", &text)
    }

    /// The query string, with its question mark unless it is empty.
    #[must_use]
    pub fn finish(self) -> String {
        if self.text.is_empty() {
            self.text
        } else {
            format!("?{}", self.text)
        }
    }
}

fn percent_decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|b| char::from(b).to_digit(16))
                        .and_then(|d| u8::try_from(d).ok())
                };
                match (digit(), digit()) {
                    (Some(high), Some(low)) => bytes.push(high << 4 | low),
                    _ => return Err("has a malformed percent-encoding"),
                }
            }
            // Once a separator, now an error, depending on the reader's age.
            b';' => return Err("has a bare semicolon"),
            byte => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    if text.contains('\0') {
        return Err("holds a NUL byte");
    }
    Ok(text)
}

fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_once_and_the_rest_is_refused() {
        let mut query = Query::parse("all=1&limit=-1&name=a%20b+c&empty=&size").unwrap();
        assert_eq!(query.bool("all"), Ok(true));
        assert_eq!(query.i64("limit"), Ok(Some(-1)));
        assert_eq!(query.str("name").as_deref(), Some("a b c"));
        assert_eq!(query.str("empty"), None);
        assert_eq!(query.bool("size"), Ok(false));
        assert_eq!(query.bool("absent"), Ok(false));
        assert_eq!(query.clone().finish(), Ok(()));
        let refused = Query::parse("evil=1").unwrap().finish().unwrap_err();
        assert_eq!(refused.field, "query evil");
        for text in [
            "a=1&a=1",
            "a=1&%61=2",
            "a=%",
            "a=%4",
            "a=%zz",
            "a=%+1",
            "a=%ff",
            "a=%00",
            "a=1;b=2",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn some_parameters_may_be_given_several_times() {
        let mut query = Query::parse("t=a:1&names=x&t=b:2&t=").unwrap();
        assert_eq!(query.all("t"), ["a:1", "b:2"]);
        assert_eq!(query.all("names"), ["x"]);
        assert_eq!(query.finish(), Ok(()));
        // Where one is meant, one is taken.
        let mut query = Query::parse("t=1&t=2").unwrap();
        assert_eq!(query.i64("t"), Ok(Some(1)));
        assert!(query.finish().is_err());
    }

    #[test]
    fn booleans_are_read_as_the_engine_reads_them() {
        for (text, value) in [
            ("", Ok(false)),
            ("0", Ok(false)),
            ("no", Ok(false)),
            ("False", Ok(false)),
            ("none", Ok(false)),
            ("1", Ok(true)),
            ("true", Ok(true)),
            ("True", Ok(true)),
            ("2", Err(())),
            ("off", Err(())),
            ("t", Err(())),
        ] {
            let mut query = Query::parse(&format!("x={text}")).unwrap();
            assert_eq!(query.bool("x").map_err(|_| ()), value, "{text}");
        }
        for text in ["+1", "0x1", "1.0", "1e3", "9223372036854775808", " 1"] {
            let mut query = Query::default();
            query.map.insert("x".to_owned(), text.to_owned());
            assert!(query.i64("x").is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_read_in_both_forms_and_written_in_one() {
        let allowed = ["label", "status"];
        for text in [
            r#"{"label":["a=b","c"],"status":["running"]}"#,
            r#"{"label":{"c":true,"a=b":true},"status":{"running":true}}"#,
        ] {
            let filters = parse_filters(text, &allowed).unwrap();
            assert_eq!(filters["label"], ["a=b", "c"]);
            let written = QueryBuilder::new()
                .bool("all", true)
                .filters(&filters)
                .finish();
            assert_eq!(
                written,
                "?all=1&filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%2C%22c%22%3Atrue%7D%2C\
                 %22status%22%3A%7B%22running%22%3Atrue%7D%7D"
            );
            let mut again = Query::parse(&written[1..]).unwrap();
            assert_eq!(again.filters(&allowed), Ok(filters));
        }
        for text in [
            r#"{"name":["a"]}"#,
            r#"{"Label":["a"]}"#,
            r#"{"label":"a"}"#,
            r#"{"label":[1]}"#,
            r#"{"label":{"a":false}}"#,
            r#"{"label":["a"],"label":["b"]}"#,
            "[]",
            "x",
        ] {
            assert!(parse_filters(text, &allowed).is_err(), "{text}");
        }
        assert_eq!(QueryBuilder::new().filters(&Filters::new()).finish(), "");
    }
}
