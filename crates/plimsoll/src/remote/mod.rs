//! Another store of what is measured: Prometheus remote write out, PromQL back.
//!
//! The log of the history is the queue: readings are sent in order, one a request, and wait in it while
//! nobody answers, hours that are cut too, up to `metrics.unsent_hours`. What leaves the log before it was
//! sent is counted. A store that crashes may have lost what
//! it had acknowledged, so the last minutes are sent again after it was away.

mod http;
pub mod proto;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use plimsoll_core::metric::{Kind, Metric};
use plimsoll_store::StoreError;
use plimsoll_store::history::{Ask, Bucket, History, Logged};
use prost::Message as _;
use serde_json::Value;

use crate::http_client::{HttpError, Url};
use proto::{Label, WriteRequest};

/// Readings that are sent at a time; then the task reports.
const BATCH: usize = 500;
/// What is sent again after the store was away, milliseconds.
const AGAIN_MS: i64 = 300_000;

/// Where, and as whom.
#[derive(Debug, Clone)]
pub struct Place {
    /// The whole address of the remote write, or what comes before `/api/v1`.
    pub url: Url,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
}

/// Why the other store did not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It cannot be asked.
    #[error("the remote store does not answer")]
    Http(#[from] HttpError),
    /// It says no.
    #[error("the remote store answers {status}: {said}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its first words.
        said: String,
    },
    /// Its answer is none of PromQL's.
    #[error("the remote store's answer cannot be read: {0}")]
    Malformed(String),
    /// The embedded history cannot be read.
    #[error("the history cannot be read")]
    Store(#[from] StoreError),
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Readings that were acknowledged.
    pub readings: u64,
    /// Readings that were refused for good.
    pub refused: u64,
    /// Readings that left the log before they could be sent.
    pub dropped: u64,
    /// Readings that wait.
    pub waiting: u64,
}

/// Sends the log.
#[derive(Debug)]
pub struct Sender {
    history: Arc<History>,
    place: Place,
    instance: String,
    /// The last reading that needs not be sent again.
    done_ms: i64,
    /// Readings up to here may be there already: a refusal is no loss.
    known_ms: i64,
    /// Of those added since the start, how many are accounted for.
    handled: u64,
    /// Of those from before it, how many were given up.
    given_up: u64,
    /// What was acknowledged in the last minutes, and when.
    lately: VecDeque<(i64, i64)>,
    labels: HashMap<u32, Vec<Label>>,
    /// In sum.
    pub sent: Sent,
}

impl Sender {
    /// A sender of everything that is in the log; what an earlier process sent, too, as nobody knows.
    #[must_use]
    pub fn new(history: Arc<History>, place: Place, instance: String, now_ms: i64) -> Self {
        Self {
            history,
            place,
            instance,
            done_ms: i64::MIN,
            known_ms: now_ms,
            handled: 0,
            given_up: 0,
            lately: VecDeque::new(),
            labels: HashMap::new(),
            sent: Sent::default(),
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// [`RemoteError`]; what was not sent waits.
    pub async fn send(&mut self, now_ms: i64) -> Result<Sent, RemoteError> {
        loop {
            let (readings, waiting) = self.next()?;
            self.sent.waiting = waiting;
            if readings.is_empty() {
                self.forget_old(now_ms);
                self.let_go();
                self.labels.clear();
                return Ok(self.sent);
            }
            for reading in readings {
                if let Err(error) = self.send_one(&reading, now_ms).await {
                    self.go_back(now_ms);
                    return Err(error);
                }
                if reading.at_ms > self.known_ms {
                    self.sent.waiting = self.sent.waiting.saturating_sub(1);
                }
            }
        }
    }

    /// The next readings. Counts those that are not in the log any more.
    fn next(&mut self) -> Result<(Vec<Logged>, u64), StoreError> {
        // Before the log is read: one that is added in between is counted next time.
        let added = self.history.added();
        let (readings, _) = self.history.log_after(self.done_ms, BATCH)?;
        let new_from_ms = self.done_ms.max(self.known_ms);
        let (_, waiting) = self.history.log_after(new_from_ms, 0)?;
        let new = added.saturating_sub(self.handled);
        let dropped = new.saturating_sub(waiting);
        let given_up = self.history.given_up();
        self.sent.dropped += dropped + given_up - self.given_up;
        self.given_up = given_up;
        self.handled += dropped;
        Ok((readings, waiting))
    }

    async fn send_one(&mut self, reading: &Logged, now_ms: i64) -> Result<(), RemoteError> {
        let new = reading.at_ms > self.known_ms;
        match self.post(reading).await {
            Ok(()) => self.sent.readings += u64::from(new),
            // As the protocol says: no use in trying again.
            Err(RemoteError::Status { status, ref said })
                if (400..500).contains(&status) && status != 429 =>
            {
                if new {
                    tracing::warn!(status, said, "the remote store refuses a reading");
                    self.sent.refused += 1;
                }
            }
            Err(error) => return Err(error),
        }
        self.done_ms = reading.at_ms;
        self.handled += u64::from(new);
        self.lately.push_back((now_ms, reading.at_ms));
        Ok(())
    }

    fn forget_old(&mut self, now_ms: i64) {
        let old = |(at_ms, _): &(i64, i64)| *at_ms < now_ms - AGAIN_MS;
        while self.lately.front().is_some_and(old) {
            self.lately.pop_front();
        }
    }

    /// What is not sent again need not wait in the log.
    fn let_go(&self) {
        let again_ms = self.lately.front().map(|(_, first_ms)| first_ms - 1);
        self.history.sent(again_ms.unwrap_or(self.done_ms));
    }

    /// Goes back to what was acknowledged lately: a store that is away may have lost it.
    fn go_back(&mut self, now_ms: i64) {
        self.forget_old(now_ms);
        self.known_ms = self.known_ms.max(self.done_ms);
        if let Some((_, first_ms)) = self.lately.drain(..).next() {
            self.done_ms = first_ms - 1;
        }
    }

    async fn post(&mut self, reading: &Logged) -> Result<(), RemoteError> {
        let mut request = WriteRequest::default();
        for (id, values) in &reading.rows {
            let labels = self.labels_of(*id)?;
            let series = values.iter();
            let series = series.map(|(m, value)| proto::series(*m, labels, *value, reading.at_ms));
            request.timeseries.extend(series);
        }
        let mut snappy = snap::raw::Encoder::new();
        let body = snappy
            .compress_vec(&request.encode_to_vec())
            .map_err(|e| RemoteError::Malformed(e.to_string()))?;
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let place = &self.place;
        http::post(&place.url, place.token_file.as_deref(), &headers, body).await?;
        Ok(())
    }

    fn labels_of(&mut self, id: u32) -> Result<&[Label], StoreError> {
        if !self.labels.contains_key(&id) {
            let known = self.history.named(id)?;
            let labels = known.map(|(key, known)| proto::labels(&key, &known, &self.instance));
            self.labels.insert(id, labels.unwrap_or_default());
        }
        Ok(&self.labels[&id])
    }
}

/// Reads the other store.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Where.
    pub place: Place,
    /// The instance whose series are meant.
    pub instance: String,
    /// The time between two readings, milliseconds.
    pub interval_ms: u32,
}

impl Reader {
    /// An entity over time, a point each `step_ms`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn series(&self, ask: &Ask<'_>, step_ms: i64) -> Result<Vec<Bucket>, RemoteError> {
        let kind = ask.metric.kind();
        let average = match kind {
            Kind::Gauge => "avg_over_time",
            Kind::Events => "sum_over_time",
        };
        let values = self.range(average, ask, step_ms).await?;
        let maxima = self.range("max_over_time", ask, step_ms).await?;
        let counts = self.range("count_over_time", ask, step_ms).await?;
        let scale = ask.metric.scale() as f64;
        let points = values.iter().map(|(at_ms, value)| {
            let samples = counts.get(at_ms).copied().unwrap_or(0.0);
            let watched_ms = samples * f64::from(self.interval_ms);
            let total = match kind {
                Kind::Gauge => value * scale * watched_ms / 1000.0,
                Kind::Events => *value,
            };
            Bucket {
                at_ms: *at_ms,
                value: value * scale,
                max: (maxima.get(at_ms).copied().unwrap_or(0.0) * scale).round() as u64,
                total,
                watched_ms: watched_ms as u64,
                samples: samples as u32,
            }
        });
        Ok(points.collect())
    }

    /// A function over the readings of each step, by its start.
    async fn range(
        &self,
        function: &str,
        ask: &Ask<'_>,
        step_ms: i64,
    ) -> Result<BTreeMap<i64, f64>, RemoteError> {
        let selector = selector(ask.metric, ask.entity, &self.instance);
        // A step's readings are those up to its last millisecond.
        let first = ask.from_ms.div_euclid(step_ms) * step_ms;
        let ends_after = step_ms - 1;
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let parameters = [
            ("query", format!("{function}({selector}[{step_ms}ms])")),
            ("start", seconds(first + ends_after)),
            ("end", seconds(ask.to_ms.max(first) + ends_after)),
            ("step", seconds(step_ms)),
        ];
        let place = &self.place;
        let url = place.url.with("/api/v1/query_range", &parameters);
        let answer = http::get(&url, place.token_file.as_deref()).await?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| RemoteError::Malformed(error.to_string()))?;
        let points = answer["data"]["result"][0]["values"].as_array();
        let read = |point: &Value| {
            let at_ms = (point[0].as_f64()? * 1000.0).round() as i64 - ends_after;
            Some((at_ms, point[1].as_str()?.parse().ok()?))
        };
        let points = points.into_iter().flatten().filter_map(read);
        Ok(points.filter(|(at_ms, _)| *at_ms < ask.to_ms).collect())
    }
}

/// The one series of an entity.
fn selector(metric: Metric, entity: &str, instance: &str) -> String {
    let (kind, id) = proto::parts(entity);
    let text = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        r#"{}{{entity_type="{}",entity_id="{}",instance="{}"}}"#,
        metric.series(),
        text(kind),
        text(id),
        text(instance)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_selector() {
        assert_eq!(
            selector(Metric::Cpu, "host:a\"} or {b=\"", "x\\"),
            r#"plimsoll_cpu_usage_cores{entity_type="host",entity_id="a\"} or {b=\"",instance="x\\"}"#
        );
    }
}
