//! The one thread that writes. Waiting jobs are run in order inside one transaction and answered
//! after its commit, so a hundred admissions cost one fsync.
//!
//! What the engine shows again, should it be lost, need not wait for the disk: such a job, alone in the
//! queue, is answered once it is visible, and the next fsync covers it. A batch is in the file in order,
//! so nothing that was decided on it is ever there without it.
//!
//! A job that fails is rolled back to its own savepoint and takes nobody else with it. When the
//! transaction itself fails, every job of the batch is told so and nothing of it happened; a job that
//! was never begun is told the same, and is not run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::books::{Books, Cache};
use crate::changes::Changes;
use crate::error::{Result, StoreError};

/// At most this many jobs share one transaction.
const BATCH_MAX: usize = 1024;

/// At most this many jobs wait; beyond it callers are told to come back.
const QUEUE_MAX: usize = 16 * 1024;

/// Why a transaction failed as a whole. [`StoreError`] cannot be cloned for a whole batch.
#[derive(Clone)]
enum Failure {
    DiskFull,
    Busy,
    Other(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match StoreError::from(error) {
            StoreError::DiskFull => Self::DiskFull,
            StoreError::Busy => Self::Busy,
            StoreError::Sqlite(error) => Self::Other(format!("the transaction failed: {error}")),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull => Self::DiskFull,
            Failure::Busy => Self::Busy,
            Failure::Other(why) => Self::Aborted(why),
        }
    }
}

/// How a job went, as far as its transaction is concerned.
enum Ran {
    Kept,
    Undone,
    DiskFull,
}

type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;
/// Run with books, or without them when there is no transaction to run it in.
type Run = Box<dyn FnOnce(Option<&mut Books<'_>>) -> (Ran, Answer) + Send>;

/// How a job is run, and when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// On balances shared with the rest of its batch; answered once it is on disk.
    Shared,
    /// As [`Shared`](Self::Shared), answered once it is visible where nobody else waits for the disk.
    Seen,
    /// It reads or writes balances by SQL, or changes what the books keep in memory: it gets books of
    /// its own, written out before and after. Answered once it is on disk.
    Alone,
}

struct Job {
    manner: Manner,
    run: Run,
}

/// Handle to the writer thread. Dropping it ends the thread, after the jobs that wait already.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        // Whoever opens the directory next must not meet this connection.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Starts the thread over `connection`. What is committed is told to `changes`.
    pub(crate) fn start(connection: Connection, changes: Arc<Changes>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write_loop(&connection, jobs, &changes))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Runs `job` in the next transaction and returns once it is answered.
    pub(crate) async fn write<T, F>(&self, manner: Manner, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.post(manner, job)?
            .await
            .map_err(|_| StoreError::Stopped)?
    }

    /// Queues `job` behind everything queued before and returns where its answer will be.
    pub(crate) fn post<T, F>(&self, manner: Manner, job: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |books| {
            let outcome = books.map(|books| {
                catch_unwind(AssertUnwindSafe(|| job(books))).unwrap_or_else(|_| {
                    Err(StoreError::Aborted(
                        "the write panicked; the log has the details".into(),
                    ))
                })
            });
            let ran = match &outcome {
                Some(Ok(_)) => Ran::Kept,
                Some(Err(StoreError::DiskFull)) => Ran::DiskFull,
                Some(Err(_)) | None => Ran::Undone,
            };
            let finish: Answer = Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Some(Ok(_)) | None, Err(why)) => Err(why.into()),
                    (Some(outcome), _) => outcome,
                    (None, Ok(())) => Err(StoreError::Stopped),
                };
                // A caller that gave up is not an error; what it asked for is in the ledger.
                let _ = answer.send(outcome);
            });
            (ran, finish)
        });
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.try_send(Job { manner, run }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        Ok(answered)
    }
}

fn write_loop(connection: &Connection, mut jobs: mpsc::Receiver<Job>, changes: &Changes) {
    let mut cache = Cache::default();
    let mut sync = Sync::Full;
    while let Some(first) = jobs.blocking_recv() {
        let mut answers = Vec::new();
        let mut next = Some(first);
        let mut books = Books::with(connection, std::mem::take(&mut cache));
        let committed = write_batch(&mut books, &mut next, &mut jobs, &mut answers, &mut sync);
        if let Err(failure) = &committed {
            // What the books hold is of a transaction that never was.
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            if let Some(job) = next {
                answers.push((job.run)(None).1);
            }
            if let Failure::Other(why) = failure {
                tracing::error!(why, "a ledger transaction failed");
            }
        } else {
            changes.publish(books.take_noted());
            cache = books.into_cache();
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

/// Runs `next` and what waits behind it in one transaction. A job stays in `next` until it is run.
fn write_batch(
    books: &mut Books<'_>,
    next: &mut Option<Job>,
    jobs: &mut mpsc::Receiver<Job>,
    answers: &mut Vec<Answer>,
    sync: &mut Sync,
) -> Result<(), Failure> {
    let connection = books.connection;
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    let seen = next.as_ref().is_some_and(|job| job.manner == Manner::Seen) && jobs.is_empty();
    sync.set(connection, if seen { Sync::Normal } else { Sync::Full })?;
    run("BEGIN IMMEDIATE")?;
    books.refresh()?;
    while let Some(manner) = next.as_ref().map(|job| job.manner) {
        let alone = manner == Manner::Alone;
        if alone {
            books.flush()?;
            books.forget();
        }
        run("SAVEPOINT job")?;
        let Some(job) = next.take() else { break };
        let (ran, answer) = (job.run)(Some(&mut *books));
        answers.push(answer);
        books.settle_noted(matches!(ran, Ran::Kept));
        match ran {
            Ran::Kept if alone => {
                books.flush()?;
                books.forget();
            }
            Ran::Kept => books.keep(),
            // SQLite ends the whole transaction where it cannot undo one statement alone.
            Ran::DiskFull if connection.is_autocommit() => return Err(Failure::DiskFull),
            Ran::Undone | Ran::DiskFull => {
                run("ROLLBACK TO job")?;
                if alone {
                    books.forget();
                } else {
                    books.undo();
                }
            }
        }
        run("RELEASE job")?;
        if answers.len() < BATCH_MAX && !seen {
            *next = jobs.try_recv().ok();
        }
    }
    books.flush()?;
    run("COMMIT")?;
    Ok(())
}

/// How a transaction meets the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// It is there when the transaction ends.
    Full,
    /// With the next one that is.
    Normal,
}

impl Sync {
    fn set(&mut self, connection: &Connection, wanted: Self) -> rusqlite::Result<()> {
        if *self != wanted {
            let name = match wanted {
                Self::Full => "FULL",
                Self::Normal => "NORMAL",
            };
            connection.pragma_update(None, "synchronous", name)?;
            *self = wanted;
        }
        Ok(())
    }
}
