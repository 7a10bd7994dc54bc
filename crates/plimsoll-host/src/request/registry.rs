//! Which registries tenants may reach, and what they say to them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::general_purpose::URL_SAFE};
use serde_json::{Map, Value};

use super::image_reference::Reference;
use super::json::{Fields, Json, decode_object};
use super::refusal::{BadRequest, Refusal};

/// The longest credential header.
pub const AUTH_MAX: usize = 16 << 10;

/// Every spelling clients use: with padding or without, either alphabet.
const FORGIVING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);

/// Whether an entry can be in `registries.allow`: a host, or a host and the beginning of a path.
#[must_use]
pub fn is_entry(entry: &str) -> bool {
    let (host, path) = entry.split_once('/').unwrap_or((entry, "x"));
    let host_ok = host.contains(['.', ':']) || host == "localhost";
    host_ok && Reference::parse(&format!("{host}/{path}")).is_ok_and(|r| r.tag() == Some("latest"))
}

/// Whether a repository is within one of the allowed hosts or paths; a path ends at a slash.
#[must_use]
pub fn allows(allowed: &[String], reference: &Reference) -> bool {
    let wanted = reference.repository();
    allowed.iter().any(|entry| {
        let rest = wanted.strip_prefix(entry.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether anything of a registry's is allowed; clients name the hub in several ways.
#[must_use]
pub fn allows_host(allowed: &[String], server: &str) -> bool {
    let host = host_of(server);
    allowed
        .iter()
        .any(|entry| entry.split('/').next() == Some(host.as_str()))
}

fn host_of(server: &str) -> String {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// Credentials, written anew. They are passed on and kept nowhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Map<String, Value>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// The fields of the engine's credentials.
const FIELDS: [&str; 7] = [
    "username",
    "password",
    "auth",
    "email",
    "serveraddress",
    "identitytoken",
    "registrytoken",
];

impl Credentials {
    /// Reads the header `X-Registry-Auth`; empty means none.
    ///
    /// # Errors
    /// [`Refusal`] for what is no base64 of a JSON object of known texts. It never repeats any of it.
    pub fn from_header(text: &str) -> Result<Self, Refusal> {
        let bad = |reason: &str| Refusal::BadRequest(BadRequest::new("X-Registry-Auth", reason));
        if text.len() > AUTH_MAX {
            return Err(bad("is too long"));
        }
        let bytes = URL
            .decode(text)
            .or_else(|_| PLAIN.decode(text))
            .map_err(|_| bad("must be base64"))?;
        if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"null" {
            return Ok(Self(Map::new()));
        }
        let fields = decode_object(&bytes).map_err(|_| bad("must be base64 of a JSON object"))?;
        Self::take(fields).map_err(|_| bad("must hold only the texts of a docker login"))
    }

    /// Reads the body of `POST /auth`.
    ///
    /// # Errors
    /// As [`Credentials::from_header`].
    pub fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        let bad = || {
            Refusal::BadRequest(BadRequest::new(
                "body",
                "must be a JSON object of a docker login",
            ))
        };
        if body.len() > AUTH_MAX {
            return Err(bad());
        }
        let fields = decode_object(body).map_err(|_| bad())?;
        Self::take(fields).map_err(|_| bad())
    }

    /// Reads the header `X-Registry-Config`: credentials by the host they are for.
    ///
    /// # Errors
    /// As [`Credentials::from_header`].
    pub fn by_host(text: &str) -> Result<BTreeMap<String, Self>, Refusal> {
        let bad = || {
            Refusal::BadRequest(BadRequest::new(
                "X-Registry-Config",
                "must be base64 of a JSON object of docker logins",
            ))
        };
        if text.len() > 4 * AUTH_MAX {
            return Err(bad());
        }
        let bytes = URL
            .decode(text)
            .or_else(|_| PLAIN.decode(text))
            .map_err(|_| bad())?;
        if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"null" {
            return Ok(BTreeMap::new());
        }
        let Json::Object(map) = super::json::decode(&bytes).map_err(|_| bad())? else {
            return Err(bad());
        };
        map.into_iter()
            .map(|(server, one)| match one {
                Json::Object(fields) => {
                    let one = Self::take(Fields::new(String::new(), fields)).map_err(|_| bad())?;
                    Ok((host_of(&server), one))
                }
                _ => Err(bad()),
            })
            .collect()
    }

    fn take(mut fields: Fields) -> Result<Self, BadRequest> {
        let mut map = Map::new();
        for name in FIELDS {
            if let Some(text) = fields.str(name)?.filter(|text| !text.is_empty()) {
                map.insert(name.to_owned(), Value::String(text));
            }
        }
        fields.finish(&[], &mut Vec::new())?;
        Ok(Self(map))
    }

    /// The registry they are for, as the client named it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.0
            .get("serveraddress")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The header for the engine.
    #[must_use]
    pub fn header(&self) -> String {
        URL_SAFE.encode(self.body())
    }

    /// The body for the engine.
    #[must_use]
    pub fn body(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<String> {
        ["docker.io/library", "registry.lab:5000"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn registries_are_allowed_by_host_or_path() {
        for (name, open) in [
            ("python:3", true),
            ("docker.io/library/python", true),
            ("someone/python", false),
            ("docker.io/library-evil/python", false),
            ("registry.lab:5000/a/b", true),
            ("registry.lab/a/b", false),
            ("registry.lab:5000.evil.org/a", false),
            ("evil.org/docker.io/library/x", false),
        ] {
            let Ok(reference) = Reference::parse(name) else {
                assert!(!open, "{name}");
                continue;
            };
            assert_eq!(allows(&allowed(), &reference), open, "{name}");
        }
        for (server, open) in [
            ("https://index.docker.io/v1/", true),
            ("", true),
            ("registry.lab:5000", true),
            ("http://registry.lab:5000/v2/", true),
            ("evil.org", false),
            ("https://evil.org/registry.lab:5000", false),
        ] {
            assert_eq!(allows_host(&allowed(), server), open, "{server}");
        }
        for (entry, good) in [
            ("docker.io/library", true),
            ("registry.lab:5000", true),
            ("localhost", true),
            ("library", false),
            ("a b", false),
            ("https://x.y", false),
            ("docker.io/x:1", false),
            ("", false),
        ] {
            assert_eq!(is_entry(entry), good, "{entry}");
        }
    }

    #[test]
    fn credentials_are_written_anew_and_never_shown() {
        for text in [
            "eyJ1c2VybmFtZSI6ImFkYSIsInBhc3N3b3JkIjoicyJ9",
            "eyJ1c2VybmFtZSI6ImFkYSIsInBhc3N3b3JkIjoicyIsImVtYWlsIjoiIn0=",
        ] {
            let credentials = Credentials::from_header(text).unwrap();
            assert_eq!(credentials.body(), r#"{"password":"s","username":"ada"}"#);
            assert_eq!(format!("{credentials:?}"), "Credentials(..)");
        }
        assert_eq!(Credentials::from_header("").unwrap().body(), "{}");
        assert_eq!(Credentials::from_header("e30").unwrap().body(), "{}");
        for text in ["?", "W10", "eyJ4IjoxfQ", "eyJ1c2VybmFtZSI6MX0"] {
            let said = Credentials::from_header(text).unwrap_err().message();
            assert!(said.contains("X-Registry-Auth"), "{said}");
        }
    }
}
