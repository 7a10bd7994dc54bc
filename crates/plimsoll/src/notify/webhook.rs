//! To a program: everything that anybody is told, signed as Standard Webhooks are
//! (<https://www.standardwebhooks.com>).

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, StatusCode};
use plimsoll_store::Delivery;
use serde_json::json;
use sha2::Sha256;

use super::{Fault, SetupError, secret, time};
use crate::config::Notify;
use crate::http_client::{Answer, Client, HttpError, Url};
use crate::tasks::in_full;

/// What secrets begin with.
const PREFIX: &str = "whsec_";
/// The shortest secret, bytes.
const SECRET_LEN_MIN: usize = 24;

/// The other side.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Url,
    secret_file: PathBuf,
}

impl Webhook {
    /// The webhook that is configured.
    ///
    /// # Errors
    /// [`SetupError`] when there is no secret to sign with.
    pub fn of(config: &Notify) -> Result<Option<Self>, SetupError> {
        // Checked with the configuration.
        let Some(url) = config.webhook_url.as_deref().and_then(|u| u.parse().ok()) else {
            return Ok(None);
        };
        let Some(secret_file) = config.webhook_secret_file.clone() else {
            return Err(SetupError::Needs {
                key: "notify.webhook_url",
                needs: "notify.webhook_secret_file",
            });
        };
        let webhook = Self {
            client: config.client(),
            url,
            secret_file,
        };
        webhook.secret().map(|_| Some(webhook))
    }

    fn secret(&self) -> Result<Vec<u8>, SetupError> {
        secret("notify.webhook_secret_file", &self.secret_file, |text| {
            let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
            (bytes.len() >= SECRET_LEN_MIN).then_some(bytes)
        })
    }

    /// Posts one message at `now_ms`.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn send(&self, delivery: &Delivery, now_ms: i64) -> Result<(), Fault> {
        let secret = self.secret().map_err(|e| Fault::Away(e.to_string()))?;
        let body = json!({
            "type": delivery.event.kind, "timestamp": time(delivery.at_ms),
            "data": super::json(&delivery.event),
        });
        let body = body.to_string();
        let at = now_ms.div_euclid(1000).to_string();
        let signature = signature(&secret, &delivery.id, &at, &body);
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", &delivery.id),
            ("webhook-timestamp", &at),
            ("webhook-signature", &signature),
        ];
        let body = body.into_bytes();
        let asked = self
            .client
            .ask(Method::POST, &self.url, None, &headers, body);
        taken(asked.await)
    }
}

/// What an answer means: a server in trouble is away, one that does not want a message says so, one that is
/// gone wants none.
pub(super) fn taken(answer: Result<Answer, HttpError>) -> Result<(), Fault> {
    let answer = answer.map_err(|error| Fault::Away(in_full(&error)))?;
    let said = || format!("{}: {}", answer.status, answer.said());
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => Err(Fault::Hopeless(said())),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Fault::Away(said())),
        status if status.is_server_error() => Err(Fault::Away(said())),
        _ => Err(Fault::Refused(said())),
    }
}

/// The signature of a message, version 1: HMAC-SHA256 over id, time and body.
fn signature(secret: &[u8], id: &str, at: &str, body: &str) -> String {
    // Any length is a key; none would sign with nothing, which no receiver takes.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    for part in [id, ".", at, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn it_signs_as_the_specification_does() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_answer_says_whether_to_go_on() {
        for (status, away, hopeless) in [
            (200, false, false),
            (204, false, false),
            (302, false, false),
            (400, false, false),
            (404, false, false),
            (410, false, true),
            (429, true, false),
            (503, true, false),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                body: bytes::Bytes::new(),
            };
            let taken = taken(Ok(answer));
            assert_eq!(taken.is_ok(), status < 300, "{status}");
            assert_eq!(matches!(taken, Err(Fault::Away(_))), away, "{status}");
            assert_eq!(
                matches!(taken, Err(Fault::Hopeless(_))),
                hopeless,
                "{status}"
            );
        }
    }
}
