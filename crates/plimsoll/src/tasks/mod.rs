//! Background tasks. Each takes no input, may run any number of times, runs on a timer and on a
//! signal, and reports what it did.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
