//! Request paths and container names.
//!
//! The engine's router decodes and cleans paths before it matches them. Here anything that would
//! decode or clean to something else is refused, so there is one reading.

use super::refusal::BadRequest;

/// The lowest API version a client may name.
pub const API_MIN: (u16, u16) = (1, 24);

/// A path, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath {
    /// The version prefix, `(1, 41)` for `/v1.41/...`.
    pub version: Option<(u16, u16)>,
    /// What follows, split at slashes; never empty, no segment empty.
    pub segments: Vec<String>,
}

impl RequestPath {
    /// Parses a path without its query string.
    ///
    /// # Errors
    /// [`BadRequest`] on `path` when it holds a percent sign, an empty, `.` or `..` segment, a
    /// control or non-ASCII byte, or names a version below [`API_MIN`].
    pub fn parse(path: &str) -> Result<Self, BadRequest> {
        let bad = |reason: &str| BadRequest::new("path", reason);
        let rest = path
            .strip_prefix('/')
            .ok_or_else(|| bad("must begin with a slash"))?;
        // Of graphic ASCII, these would be read differently by one party or another.
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("must be printable ASCII"));
        }
        if let Some(c) = rest.chars().find(|c| "%?#\\;".contains(*c)) {
            return Err(bad(&format!("must not contain {c}")));
        }
        let mut segments: Vec<&str> = rest.split('/').collect();
        if segments.iter().any(|s| matches!(*s, "" | "." | "..")) {
            return Err(bad("must not contain empty, . or .. segments"));
        }
        let version = version(segments[0])?;
        if version.is_some() {
            segments.remove(0);
        }
        if segments.is_empty() {
            return Err(bad("names no route"));
        }
        Ok(Self {
            version,
            segments: segments.into_iter().map(str::to_owned).collect(),
        })
    }

    /// The segments as slices, for matching on a pattern.
    #[must_use]
    pub fn parts(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }
}

/// A first segment that begins like a version must be one: no route does.
fn version(segment: &str) -> Result<Option<(u16, u16)>, BadRequest> {
    let Some(text) = segment.strip_prefix('v') else {
        return Ok(None);
    };
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let number = |s: &str, digits: usize| {
        Some(s)
            .filter(|s| (1..=digits).contains(&s.len()))
            .filter(|s| s.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|s| s.parse::<u16>().ok())
    };
    let version = text
        .split_once('.')
        .and_then(|(major, minor)| Some((number(major, 2)?, number(minor, 3)?)))
        .ok_or_else(|| BadRequest::new("path", "the API version is not one"))?;
    if version < API_MIN {
        return Err(BadRequest::new(
            "path",
            format!(
                "client version {}.{} is too old. Minimum supported API version is {}.{}",
                version.0, version.1, API_MIN.0, API_MIN.1
            ),
        ));
    }
    Ok(Some(version))
}

/// Checks a name for a new container, and gives it without the leading slash some clients send.
///
/// # Errors
/// [`BadRequest`] on `name` when it breaks the engine's rule (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`), is
/// longer than 128 bytes, or could be taken for an id.
pub fn container_name(name: &str) -> Result<&str, BadRequest> {
    let bad = |reason: &str| BadRequest::new("name", reason);
    let name = name.strip_prefix('/').unwrap_or(name);
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !first || !rest || name.len() < 2 {
        return Err(bad(
            "must be two or more of [a-zA-Z0-9_.-] and begin with a letter or digit",
        ));
    }
    if name.len() > 128 {
        return Err(bad("must be at most 128 characters"));
    }
    if looks_like_id(name) {
        return Err(bad("looks like an id: 12 to 64 hex digits are not a name"));
    }
    Ok(name)
}

/// Whether a text is 12 to 64 hexadecimal digits.
#[must_use]
pub fn looks_like_id(text: &str) -> bool {
    (12..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_reading() {
        for (path, version, segments) in [
            ("/_ping", None, vec!["_ping"]),
            (
                "/v1.41/containers/json",
                Some((1, 41)),
                vec!["containers", "json"],
            ),
            ("/v1.24/info", Some((1, 24)), vec!["info"]),
            ("/v2.0/info", Some((2, 0)), vec!["info"]),
            ("/volumes/v1.41", None, vec!["volumes", "v1.41"]),
            (
                "/images/a:5000/b@sha256:0/json",
                None,
                vec!["images", "a:5000", "b@sha256:0", "json"],
            ),
        ] {
            let parsed = RequestPath::parse(path).unwrap();
            assert_eq!(parsed.version, version, "{path}");
            assert_eq!(parsed.parts(), segments, "{path}");
        }
        for path in [
            "",
            "/",
            "//",
            "x",
            "/v1.41",
            "/v1.41/",
            "/v1.23/info",
            "/v1/info",
            "/v1.x/info",
            "/v1.41.0/info",
            "/v1.0041/info",
            "/v001.41/info",
            "/v1.41//info",
            "/info/",
            "/containers/../info",
            "/./info",
            "/containers/%2e%2e/info",
            "/a%2Fb",
            "/a b",
            "/a\tb",
            "/a\r\nb",
            "/a\0",
            "/é",
            "/a\\b",
            "/a;b",
            "/a?b",
            "/a#b",
            "http://h/info",
        ] {
            assert!(RequestPath::parse(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn names_follow_the_engine_and_never_look_like_ids() {
        for name in [
            "ab",
            "/web",
            "a.b_c-1",
            "0x",
            "deadbeef",
            "deadbeefcafg",
            &"a".repeat(65),
        ] {
            assert!(container_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "/",
            "a",
            "-a",
            ".a",
            "_a",
            "a/b",
            "//a",
            "a b",
            "é1",
            "deadbeefcafe",
            "/DEADBEEFCAFE",
            &"0".repeat(64),
            &"z".repeat(129),
            "a\n",
            "a:b",
        ] {
            assert!(container_name(name).is_err(), "{name:?}");
        }
    }
}
