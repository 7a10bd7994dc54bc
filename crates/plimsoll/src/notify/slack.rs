//! To a chat that takes what Slack takes: what administrators are told.

use std::path::PathBuf;

use http::Method;
use plimsoll_store::Delivery;
use serde_json::json;

use super::text::Texts;
use super::webhook::taken;
use super::{Fault, SetupError, secret};
use crate::config::Notify;
use crate::http_client::{Client, Url};

/// The chat.
#[derive(Debug)]
pub struct Slack {
    client: Client,
    url_file: PathBuf,
    texts: Texts,
}

impl Slack {
    /// The chat that is configured.
    ///
    /// # Errors
    /// [`SetupError`] when its address is not in its file.
    pub fn of(config: &Notify) -> Result<Option<Self>, SetupError> {
        let Some(url_file) = config.slack_url_file.clone() else {
            return Ok(None);
        };
        let slack = Self {
            client: config.client(),
            url_file,
            texts: config.texts(),
        };
        slack.url().map(|_| Some(slack))
    }

    /// The address is the secret.
    fn url(&self) -> Result<Url, SetupError> {
        secret("notify.slack_url_file", &self.url_file, |text| {
            text.parse().ok()
        })
    }

    /// Posts one message.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn send(&self, delivery: &Delivery) -> Result<(), Fault> {
        let url = self.url().map_err(|e| Fault::Away(e.to_string()))?;
        let text = escaped(&self.texts.message(&delivery.event).body);
        let body = json!({"text": text}).to_string().into_bytes();
        let headers = [("content-type", "application/json")];
        let asked = self.client.ask(Method::POST, &url, None, &headers, body);
        taken(asked.await)
    }
}

/// Slack's own signs are those of HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_is_called_by_a_name() {
        assert_eq!(
            super::escaped("<!channel> & co"),
            "&lt;!channel&gt; &amp; co"
        );
    }
}
