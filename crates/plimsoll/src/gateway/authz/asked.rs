//! What the engine says about a request, in the words of its plugin protocol.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Deserializer};

use crate::ca::{self, Named};
use crate::gateway::refused::Refused;

/// A question of the engine's. Newer engines may say more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The common name of the client's certificate; empty on a unix socket.
    #[serde(rename = "User")]
    pub(super) user: String,
    #[serde(rename = "UserAuthNMethod")]
    pub(super) authenticated_by: String,
    #[serde(rename = "RequestMethod")]
    pub(super) method: String,
    /// Path and query, as the client wrote them.
    #[serde(rename = "RequestUri")]
    pub(super) uri: String,
    #[serde(rename = "RequestBody", deserialize_with = "bytes")]
    body: Vec<u8>,
    #[serde(rename = "RequestHeaders")]
    headers: HashMap<String, String>,
    /// PEM, the client's own first.
    #[serde(rename = "RequestPeerCertificates", deserialize_with = "all_bytes")]
    certificates: Vec<Vec<u8>>,
    #[serde(rename = "ResponseStatusCode")]
    pub(super) status: u16,
    #[serde(rename = "ResponseBody", deserialize_with = "bytes")]
    pub(super) answer: Vec<u8>,
}

impl Asked {
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body)
            .map_err(|error| format!("the engine's question is not understood: {error}"))
    }

    /// Whom a certificate of Plimsoll's own names, where the client has one.
    pub(super) fn certificate(&self) -> Option<Named> {
        let der = CertificateDer::from_pem_slice(self.certificates.first()?).ok()?;
        ca::said(&der)?.user
    }

    /// The JSON body. The engine shows no other kind, and none over 1 MiB or of unknown length; it reads
    /// forms, too, as if they were part of the query.
    pub(super) fn json(&self) -> Result<&[u8], Refused> {
        let kind = self.header("content-type").split(';').next();
        let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
        // Clients declare that they send no body, too.
        if !matches!(kind.as_str(), "" | "application/json" | "text/plain") {
            return Err(Refused::bad(
                "Content-Type",
                format!("must be application/json, not {kind}"),
            ));
        }
        let announced = !matches!(self.header("content-length"), "" | "0");
        if self.body.is_empty() && announced {
            return Err(Refused::bad(
                "body",
                "the engine did not show it, because it is too long or not JSON".to_owned(),
            ));
        }
        Ok(&self.body)
    }

    /// Checks that there is no body; `{}` counts as none.
    pub(super) fn nothing(&self) -> Result<(), Refused> {
        match self.json()?.trim_ascii() {
            b"" | b"{}" | b"null" => Ok(()),
            _ => Err(Refused::bad(
                "body",
                "must be empty on this route".to_owned(),
            )),
        }
    }

    fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }
}

fn decoded<E: serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    STANDARD.decode(text).map_err(E::custom)
}

/// Bytes as Go writes them: base64, or null for none.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map_or(Ok(Vec::new()), |text| decoded(&text))
}

fn all_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(deserializer)?;
    let texts = texts.unwrap_or_default();
    texts.iter().map(|text| decoded(text)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(kind: Option<&str>, length: &str, body: &str) -> Asked {
        let mut question = json!({
            "User": "ada", "RequestMethod": "POST", "RequestUri": "/v1.41/x",
            "RequestHeaders": {"Content-Length": length},
            "RequestBody": STANDARD.encode(body), "SomethingNew": 1,
        });
        if let Some(kind) = kind {
            question["RequestHeaders"]["Content-Type"] = json!(kind);
        }
        Asked::parse(question.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_body_is_json_that_was_shown_or_there_is_none() {
        let json = Some("application/json");
        for (kind, length, body, fine) in [
            (json, "2", "{}", true),
            (Some("application/json; charset=utf-8"), "2", "{}", true),
            (Some("text/plain"), "0", "", true),
            (None, "", "", true),
            // Too long, of another kind, or a form: the engine would read what was not judged.
            (json, "2000000", "", false),
            (Some("text/plain"), "5", "", false),
            (Some("application/x-www-form-urlencoded"), "", "", false),
            (Some("application/octet-stream"), "9", "", false),
        ] {
            let asked = asked(kind, length, body);
            assert_eq!(asked.json().is_ok(), fine, "{kind:?} {length} {body}");
            assert_eq!(asked.nothing().is_ok(), fine, "{kind:?} {length} {body}");
        }
        let full = asked(json, "9", r#"{"a": 1}"#);
        assert!(full.json().is_ok() && full.nothing().is_err());
    }

    #[test]
    fn what_is_no_question_is_not_guessed_at() {
        for wrong in ["", "1", r#"{"User": 1}"#, r#"{"RequestBody": "?"}"#] {
            assert!(Asked::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let empty = Asked::parse(br#"{"RequestBody": null}"#).unwrap();
        assert!(empty.user.is_empty() && empty.certificate().is_none());
    }
}
