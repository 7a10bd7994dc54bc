//! Background tasks. Each takes no input, may run any number of times, runs on a timer and on a
//! signal, and reports what it did.

pub mod alertmanager;
pub mod alerts;
pub mod caps;
pub mod collect;
pub mod deliver;
pub mod events;
pub mod history;
pub mod images;
pub mod ladder;
pub mod networks;
pub mod reconcile;
pub mod remote;
pub mod retain;
pub mod storage;
pub mod turns;
pub mod volumes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::state::App;

/// How a task's last run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// When it ended, Unix milliseconds.
    pub at_ms: i64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Runs since the server started.
    pub runs: u64,
    /// What it did, or why it failed, in words.
    pub outcome: Result<String, String>,
}

/// The last status of every task, by name.
#[derive(Debug, Default)]
pub struct TaskBoard {
    tasks: Mutex<BTreeMap<&'static str, TaskStatus>>,
}

impl TaskBoard {
    /// Notes how a run went.
    pub fn report(
        &self,
        name: &'static str,
        at_ms: i64,
        took_us: u64,
        outcome: Result<String, String>,
    ) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = tasks.get(name).map_or(1, |last| last.runs + 1);
        tasks.insert(
            name,
            TaskStatus {
                at_ms,
                took_us,
                runs,
                outcome,
            },
        );
    }

    /// Every task's last status.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, TaskStatus)> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .iter()
            .map(|(name, status)| (*name, status.clone()))
            .collect()
    }
}

/// True once the server is to end.
pub type Shutdown = watch::Receiver<bool>;

/// Resolves when the server is to end.
pub async fn ended(mut shutdown: Shutdown) {
    // A sender that is gone has ended the server, too.
    let _ = shutdown.wait_for(|over| *over).await;
}

/// Runs `task` at once, then on every bell and at least every `every`, until the server ends, which no
/// run holds up: what it leaves the next one does. Each run is reported under `name`; failures are logged
/// where they change.
pub async fn drive<F, R>(
    app: Arc<App>,
    name: &'static str,
    every: Duration,
    bell: fn(&App) -> &Notify,
    shutdown: Shutdown,
    task: F,
) where
    F: FnMut(Arc<App>) -> R,
    R: Future<Output = Result<String, String>>,
{
    drive_at(app, name, |_| every, bell, shutdown, task).await;
}

/// [`drive`] with a time to the next run that is asked for after each.
pub async fn drive_at<F, R>(
    app: Arc<App>,
    name: &'static str,
    every: impl Fn(&App) -> Duration,
    bell: fn(&App) -> &Notify,
    shutdown: Shutdown,
    mut task: F,
) where
    F: FnMut(Arc<App>) -> R,
    R: Future<Output = Result<String, String>>,
{
    let mut last_failure: Option<String> = None;
    loop {
        let began = app.clock.monotonic();
        let outcome = tokio::select! {
            () = ended(shutdown.clone()) => return,
            outcome = task(Arc::clone(&app)) => outcome,
        };
        let took = app.clock.monotonic().saturating_sub(began);
        match &outcome {
            Err(why) if last_failure.as_ref() != Some(why) => {
                tracing::warn!(
                    task = name,
                    why,
                    "a background task failed; it will be tried again"
                );
                last_failure = Some(why.clone());
            }
            Ok(_) if last_failure.take().is_some() => tracing::info!(task = name, "works again"),
            _ => {}
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        app.tasks.report(name, app.clock.now_ms(), took_us, outcome);
        tokio::select! {
            () = ended(shutdown.clone()) => return,
            () = bell(&app).notified() => {}
            () = tokio::time::sleep(every(&app)) => {}
        }
    }
}

/// An error with everything behind it, on one line.
#[must_use]
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
