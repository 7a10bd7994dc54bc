//! The one thread that writes. Waiting jobs are run in order inside one transaction and answered
//! after its commit, so a hundred admissions cost one fsync.
//!
//! A job that fails is rolled back to its own savepoint and takes nobody else with it. When the
//! commit itself fails, every job of the batch is told so and nothing of it happened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::books::Books;
use crate::error::{Result, StoreError};

/// At most this many jobs share one transaction.
const BATCH_MAX: usize = 1024;

/// At most this many jobs wait; beyond it callers are told to come back.
const QUEUE_MAX: usize = 16 * 1024;

type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;
type Run = Box<dyn FnOnce(&mut Books<'_>) -> (bool, Answer) + Send>;

struct Job {
    /// The job reads or writes balances by SQL, or changes what the books keep in memory: it gets
    /// books of its own, written out before and after.
    alone: bool,
    run: Run,
}

/// Handle to the writer thread. Dropping the last one ends it.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread over `connection`.
    pub(crate) fn start(connection: Connection) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write_loop(&connection, jobs))?;
        Ok((Self { queue }, thread))
    }

    /// Runs `job` in the next transaction and returns once it is durable.
    pub(crate) async fn write<T, F>(&self, alone: bool, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |books| {
            let outcome = catch_unwind(AssertUnwindSafe(|| job(books))).unwrap_or_else(|_| {
                Err(StoreError::Aborted(
                    "the write panicked; the log has the details".into(),
                ))
            });
            let keep = outcome.is_ok();
            let finish: Answer = Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Ok(_), Err(why)) if why == DISK_FULL => Err(StoreError::DiskFull),
                    (Ok(_), Err(why)) => Err(StoreError::Aborted(why)),
                    (outcome, _) => outcome,
                };
                // A caller that gave up is not an error; what it asked for is in the ledger.
                let _ = answer.send(outcome);
            });
            (keep, finish)
        });
        self.queue
            .try_send(Job { alone, run })
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
            })?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }
}

const DISK_FULL: &str = "disk full";

fn write_loop(connection: &Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut answers = Vec::new();
        let committed = write_batch(connection, first, &mut jobs, &mut answers);
        let committed = committed.map_err(|error| match StoreError::from(error) {
            StoreError::DiskFull => DISK_FULL.to_owned(),
            error => {
                tracing::error!(%error, "a ledger transaction failed");
                format!("the transaction failed: {error}")
            }
        });
        if committed.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

fn write_batch(
    connection: &Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
    answers: &mut Vec<Answer>,
) -> rusqlite::Result<()> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    let mut next = Some(first);
    let began = run("BEGIN IMMEDIATE");
    if let Err(error) = began {
        // Nothing can be written: answer the job at hand with the reason.
        let mut books = Books::new(connection);
        if let Some(job) = next {
            answers.push((job.run)(&mut books).1);
        }
        return Err(error);
    }
    let mut books = Books::new(connection);
    while let Some(job) = next {
        if job.alone {
            books.flush()?;
            books.forget();
        }
        run("SAVEPOINT job")?;
        let (mut keep, answer) = (job.run)(&mut books);
        let mut failed = None;
        if keep && job.alone {
            failed = books.flush().err();
            keep = failed.is_none();
        }
        answers.push(answer);
        if let Some(error) = failed {
            return Err(error);
        }
        if keep {
            books.keep();
        } else {
            run("ROLLBACK TO job")?;
            if job.alone {
                books.forget();
            } else {
                books.undo();
            }
        }
        if job.alone && keep {
            books.forget();
        }
        run("RELEASE job")?;
        next = if answers.len() < BATCH_MAX {
            jobs.try_recv().ok()
        } else {
            None
        };
    }
    books.flush()?;
    run("COMMIT")
}
