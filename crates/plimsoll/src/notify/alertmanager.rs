//! To Alertmanager: what fires, again and again while it does.
//!
//! Each posting says until when it holds: so long that a posting or two may be lost. What fires no more is
//! posted once with its end; should that be lost, too, Alertmanager ends it by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::webhook::taken;
use super::{Fault, time};
use crate::config::Notify;
use crate::http_client::{Client, Url};

/// A posting holds for so many intervals.
const HOLDS: i64 = 3;
/// Alerts in one posting.
const BATCH: usize = 500;

/// What makes an alert that alert.
pub type Labels = BTreeMap<&'static str, String>;

/// Something that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// In one sentence.
    pub summary: String,
    /// How much, who is behind it, what to do.
    pub description: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// Where to look.
    pub link: Option<String>,
}

/// Everything that fires.
pub type Firing = BTreeMap<Labels, Alert>;

/// Alertmanager, and what it was told.
#[derive(Debug)]
pub struct Alertmanager {
    client: Client,
    url: Url,
    interval: Duration,
    told: Firing,
}

impl Alertmanager {
    /// The one that is configured.
    #[must_use]
    pub fn of(config: &Notify) -> Option<Self> {
        // Checked with the configuration.
        let url: Url = config.alertmanager_url.as_deref()?.parse().ok()?;
        Some(Self {
            client: config.client(),
            url: url.with("/api/v2/alerts", &[]),
            interval: Duration::from_secs_f64(config.alertmanager_interval_s),
            told: Firing::new(),
        })
    }

    /// Posts everything that fires, and the end of what did.
    ///
    /// # Errors
    /// [`Fault`]; what it was told last stays known, so that an end is posted again.
    pub async fn post(&mut self, firing: Firing, now_ms: i64) -> Result<usize, Fault> {
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        let holds_ms = now_ms.saturating_add(interval_ms.saturating_mul(HOLDS));
        let over = self.told.iter();
        let over = over.filter(|(labels, _)| !firing.contains_key(*labels));
        let over = over.map(|(labels, alert)| shown(labels, alert, now_ms));
        let on = firing.iter();
        let on = on.map(|(labels, alert)| shown(labels, alert, holds_ms));
        let all: Vec<Value> = over.chain(on).collect();
        for some in all.chunks(BATCH) {
            let body = json!(some).to_string().into_bytes();
            let headers = [("content-type", "application/json")];
            let asked = self
                .client
                .ask(Method::POST, &self.url, None, &headers, body);
            taken(asked.await)?;
        }
        self.told = firing;
        Ok(self.told.len())
    }
}

fn shown(labels: &Labels, alert: &Alert, ends_ms: i64) -> Value {
    let mut shown = json!({
        "labels": labels, "startsAt": time(alert.since_ms), "endsAt": time(ends_ms),
        "annotations": {"summary": alert.summary, "description": alert.description},
    });
    if let Some(link) = &alert.link {
        shown["generatorURL"] = json!(link);
    }
    shown
}
