//! Sends every reading to another store, where one is configured.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::http_client::Url;
use crate::remote::{Place, Reader, Sender};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "remote write";

/// A sender that several runs share.
pub type SharedSender = Arc<Mutex<Sender>>;

/// The sender that is configured.
#[must_use]
pub fn sender(app: &App) -> Option<SharedSender> {
    let place = place(app, app.config.metrics.remote_write_url.as_deref()?)?;
    let (history, instance) = (Arc::clone(&app.history), app.instance.as_str().to_owned());
    let sender = Sender::new(history, place, instance, app.clock.now_ms());
    Some(Arc::new(Mutex::new(sender)))
}

/// The reader that is configured.
#[must_use]
pub fn reader(app: &App) -> Option<Reader> {
    Some(Reader {
        place: place(app, app.config.metrics.remote_query_url.as_deref()?)?,
        instance: app.instance.as_str().to_owned(),
        interval_ms: (app.config.metering.interval_s * 1000.0) as u32,
    })
}

fn place(app: &App, url: &str) -> Option<Place> {
    Some(Place {
        // Checked with the configuration.
        url: url.parse::<Url>().ok()?,
        token_file: app.config.metrics.remote_token_file.clone(),
    })
}

/// Sends what waits.
///
/// # Errors
/// In words, when the store does not take it; what was not sent waits.
pub async fn run(app: Arc<App>, sender: SharedSender) -> Result<String, String> {
    let mut sender = sender.lock().await;
    let outcome = sender.send(app.clock.now_ms()).await;
    let sent = sender.sent;
    let said = format!(
        "{} readings sent, {} refused, {} dropped, {} waiting",
        sent.readings, sent.refused, sent.dropped, sent.waiting
    );
    match outcome {
        Ok(_) => Ok(said),
        Err(error) => Err(format!("{}; {said}", in_full(&error))),
    }
}
