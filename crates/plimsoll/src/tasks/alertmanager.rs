//! Tells Alertmanager what fires, where one is configured.

use std::sync::Arc;

use plimsoll_store::{StoreError, ViolationRecord};
use tokio::sync::Mutex;

use crate::notify::Fault;
use crate::notify::alertmanager::{Alert, Alertmanager, Firing, Labels};
use crate::state::App;
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "alertmanager";

/// The most that is told at once.
const MOST: u32 = 10_000;

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

async fn all(app: &App) -> Result<Firing, StoreError> {
    let open = app.store.violations(None, MOST).await?;
    Ok(open.iter().map(|v| violation(app, v)).collect())
}

fn violation(app: &App, of: &ViolationRecord) -> (Labels, Alert) {
    let labels = Labels::from([
        ("alertname", "PlimsollViolation".to_owned()),
        ("severity", "warning".to_owned()),
        ("instance", app.instance.as_str().to_owned()),
        ("kind", of.kind.name().to_owned()),
        ("level", of.level.clone()),
        ("name", of.name.clone()),
        ("dimension", of.dimension.name().to_owned()),
    ]);
    let shown = |amount| of.dimension.show(amount);
    let (level, name, dimension) = (&of.level, &of.name, of.dimension);
    let behind: Vec<&str> = of.behind.iter().map(|b| b.container.as_str()).collect();
    let server = app.config.notify.server_url.as_deref();
    let alert = Alert {
        summary: format!("The {dimension} of {level} {name} is over its limit"),
        description: format!(
            "{} of {}: {}. Behind it: {}",
            shown(of.current),
            shown(of.limit),
            of.cause,
            behind.join(", ")
        ),
        since_ms: of.opened_ms,
        link: server.map(|url| format!("{}/violations", url.trim_end_matches('/'))),
    };
    (labels, alert)
}
