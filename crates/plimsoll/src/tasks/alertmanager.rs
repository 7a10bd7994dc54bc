//! Tells Alertmanager what fires, where one is configured.

use std::sync::Arc;

use plimsoll_core::notice::Event;
use plimsoll_store::StoreError;
use tokio::sync::Mutex;

use crate::alerts::event;
use crate::notify::Fault;
use crate::notify::alertmanager::{Alert, Alertmanager, Firing, Labels};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "alertmanager";

/// What several runs share.
pub type Shared = Arc<Mutex<Alertmanager>>;

/// The one that is configured.
#[must_use]
pub fn firing(app: &App) -> Option<Shared> {
    let alertmanager = Alertmanager::of(&app.config.notify)?;
    Some(Arc::new(Mutex::new(alertmanager)))
}

/// Posts what fires.
///
/// # Errors
/// In words, when it is not taken.
pub async fn run(app: Arc<App>, alertmanager: Shared) -> Result<String, String> {
    let firing = all(&app).await.map_err(|e| in_full(&e))?;
    let mut alertmanager = alertmanager.lock().await;
    match alertmanager.post(firing, app.clock.now_ms()).await {
        Ok(firing) => Ok(format!("{firing} firing")),
        Err(Fault::Away(why) | Fault::Refused(why) | Fault::Hopeless(why)) => Err(why),
    }
}

/// What fires and is not silenced.
async fn all(app: &App) -> Result<Firing, StoreError> {
    let rules = app.store.alert_rules().await?;
    let alerts = app.store.alerts().await?;
    let fires =
        |alert: &&plimsoll_store::Alert| alert.standing.firing().is_some() && !alert.silenced;
    let shown = alerts.iter().filter(fires).filter_map(|alert| {
        let rule = rules.iter().find(|rule| rule.name == alert.rule)?;
        let event = event(rule, alert, app.clock.now_ms())?;
        Some(shown(app, alert, &event))
    });
    Ok(shown.collect())
}

fn shown(app: &App, of: &plimsoll_store::Alert, event: &Event) -> (Labels, Alert) {
    let labels = Labels::from([
        ("alertname", format!("plimsoll {}", of.rule)),
        ("severity", event.severity.name().to_owned()),
        ("instance", app.instance.as_str().to_owned()),
        ("host", app.lease.host.clone()),
        ("level", of.about.kind.name().to_owned()),
        ("name", of.about.name.clone()),
        (
            "team",
            of.about.team.map(|t| t.to_string()).unwrap_or_default(),
        ),
        ("part", of.part.clone()),
    ]);
    let texts = app.config.notify.texts();
    let alert = Alert {
        summary: event.title.clone(),
        description: texts.message(event).body,
        since_ms: event.since_ms,
        link: texts.link(event),
    };
    (labels, alert)
}
