//! Follows the engine's events. They only say where to look: each one settles its container.
//!
//! The stream is opened before the ledger is compared with the engine's list, so nothing falls between
//! the two; after every gap the comparison is made again, because the engine replays little.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::engine::EngineError;

use crate::engine_facts::engine_facts;
use crate::metering::found;
use crate::settle::settle;
use crate::state::App;
use crate::tasks::{Shutdown, ended, in_full};

/// How long to wait before the engine is asked again after it went away.
const RETRY: Duration = Duration::from_millis(500);

/// The name under which the task reports.
pub const NAME: &str = "engine events";

/// Follows events until the server ends.
pub async fn run(app: Arc<App>, shutdown: Shutdown) {
    loop {
        let followed = tokio::select! {
            () = ended(shutdown.clone()) => return,
            followed = follow(&app) => followed,
        };
        let outcome = match followed {
            Ok(()) => Err("the engine ended its event stream".to_owned()),
            Err(why) => Err(why),
        };
        app.tasks.report(NAME, app.clock.now_ms(), 0, outcome);
        tokio::select! {
            () = ended(shutdown.clone()) => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn follow(app: &Arc<App>) -> Result<(), String> {
    engine_facts(app).await.map_err(|e| in_full(&e))?;
    let open = app.engine.events(None, &["container"]).await;
    let mut events = open.map_err(|e: EngineError| in_full(&e))?;
    app.tasks
        .report(NAME, app.clock.now_ms(), 0, Ok("following".to_owned()));
    // Whatever happened before the stream was open is found by comparing lists.
    app.wake.reconcile.notify_one();
    while let Some(event) = events.next().await.map_err(|e| in_full(&e))? {
        let verb = event.verb();
        if !matches!(
            verb,
            "create"
                | "start"
                | "restart"
                | "die"
                | "stop"
                | "kill"
                | "oom"
                | "pause"
                | "unpause"
                | "update"
                | "destroy"
        ) {
            continue;
        }
        if matches!(verb, "create") {
            // Only what came past Plimsoll is news: a commit follows for everything else.
            continue;
        }
        let app = Arc::clone(app);
        tokio::spawn(async move {
            if matches!(event.verb(), "start" | "die" | "destroy") {
                look(&app, &event.id).await;
            }
            if let Err(error) = settle(&app, &event.id).await {
                tracing::debug!(
                    container = event.id,
                    error = in_full(&error),
                    "left to the reconciler"
                );
                app.wake.reconcile.notify_one();
            }
            if matches!(event.verb(), "start" | "die" | "destroy") {
                app.wake.collect.notify_one();
            }
        });
    }
    Ok(())
}

/// Meters the container, or no longer; what cannot be told now the next list will tell.
async fn look(app: &Arc<App>, id: &str) {
    if let Err(error) = found::look(app, id).await {
        tracing::debug!(container = id, error = in_full(&error), "not looked at");
    }
}
