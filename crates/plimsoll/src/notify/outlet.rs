//! One channel: what waits for it goes out over a few lines at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_store::{Channel, Channels, Delivery, StoreError, Tried};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::mail::{self, Mail};
use super::slack::Slack;
use super::webhook::Webhook;
use super::{Fault, SetupError, backoff};
use crate::clock::Clock;
use crate::config::{Config, Notify};
use crate::state::App;

/// Lines of one channel.
const LINES: usize = 8;
/// Messages taken out of the ledger at a time.
const BATCH: u32 = 500;
/// The longest wait for a channel that is away: what waits then goes out soon after it is back.
const AWAY_MS_MAX: u64 = 60_000;

/// The way out.
#[derive(Debug, Clone)]
enum Way {
    Mail(Arc<Mail>),
    Webhook(Arc<Webhook>),
    Slack(Arc<Slack>),
}

/// A channel that is configured.
#[derive(Debug)]
pub struct Outlet {
    channel: Channel,
    way: Way,
    /// All that are.
    all: Channels,
    /// Runs in a row in which it was away.
    away: AtomicU32,
    /// Messages taken since the start.
    sent: AtomicU64,
}

impl Outlet {
    /// Every channel that is configured.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn all(config: &Config) -> Result<Vec<Arc<Self>>, SetupError> {
        let notify = &config.notify;
        let mail = Mail::of(notify)?;
        let webhook = Webhook::of(notify)?;
        let slack = Slack::of(notify)?;
        let all = Channels {
            mail: mail.is_some(),
            admin_mail: mail.as_ref().is_some_and(Mail::has_admins),
            webhook: webhook.is_some(),
            slack: slack.is_some(),
        };
        let ways = [
            mail.map(|m| (Channel::Mail, Way::Mail(Arc::new(m)))),
            webhook.map(|w| (Channel::Webhook, Way::Webhook(Arc::new(w)))),
            slack.map(|s| (Channel::Slack, Way::Slack(Arc::new(s)))),
        ];
        let outlet = |(channel, way)| {
            Arc::new(Self {
                channel,
                way,
                all,
                away: AtomicU32::new(0),
                sent: AtomicU64::new(0),
            })
        };
        Ok(ways.into_iter().flatten().map(outlet).collect())
    }

    /// The name under which it reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.channel.name()
    }

    /// The time to the next run.
    #[must_use]
    pub fn pause(&self, config: &Notify) -> Duration {
        let every = millis(config.interval_s);
        match self.away.load(Ordering::Relaxed) {
            0 => Duration::from_millis(every),
            runs => Duration::from_millis(wait(runs, every, AWAY_MS_MAX.max(every))),
        }
    }
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

fn wait(failures: u32, first_ms: u64, max_ms: u64) -> u64 {
    // Without randomness it waits longest.
    backoff::wait_ms(
        failures,
        first_ms,
        max_ms,
        getrandom::u32().unwrap_or(u32::MAX),
    )
}

/// One try.
type Outcome = (Delivery, Result<(), Fault>);
type Queue = Arc<Mutex<VecDeque<Delivery>>>;

/// Sends everything that is due. Returns how much was sent since the start.
///
/// # Errors
/// In words: the ledger's, or why the channel is away; what was not sent waits.
pub async fn drain(app: &App, outlet: &Outlet) -> Result<u64, DrainError> {
    let store = &app.store;
    store.spread(outlet.all, app.clock.now_ms()).await?;
    loop {
        let due = store.due(outlet.channel, app.clock.now_ms(), BATCH).await?;
        if due.is_empty() {
            outlet.away.store(0, Ordering::Relaxed);
            return Ok(outlet.sent.load(Ordering::Relaxed));
        }
        let before = outlet.sent.load(Ordering::Relaxed);
        if let Some(why) = send(app, outlet, due).await? {
            if outlet.sent.load(Ordering::Relaxed) > before {
                outlet.away.store(0, Ordering::Relaxed);
            }
            outlet.away.fetch_add(1, Ordering::Relaxed);
            return Err(DrainError::Away(why));
        }
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The ledger.
    #[error("the outbox cannot be used")]
    Store(#[from] StoreError),
    /// The other side.
    #[error("nothing gets through, and waits: {0}")]
    Away(String),
}

/// Sends these. What came of each is written as it comes. Returns why the channel is away, if it is.
async fn send(
    app: &App,
    outlet: &Outlet,
    due: Vec<Delivery>,
) -> Result<Option<String>, StoreError> {
    let lines = LINES.min(due.len());
    let queue: Queue = Arc::new(Mutex::new(due.into()));
    let (told, mut outcomes) = mpsc::channel(2 * LINES);
    let mut working = JoinSet::new();
    for _ in 0..lines {
        let line = Line::of(&outlet.way, &app.clock);
        working.spawn(work(line, Arc::clone(&queue), told.clone()));
    }
    drop(told);
    let (mut away, mut some) = (None, Vec::new());
    while outcomes.recv_many(&mut some, LINES).await > 0 {
        let now_ms = app.clock.now_ms();
        let mut tries = Vec::with_capacity(some.len());
        for (delivery, outcome) in some.drain(..) {
            match &outcome {
                Ok(()) => {
                    outlet.sent.fetch_add(1, Ordering::Relaxed);
                }
                Err(Fault::Away(why)) => away = Some(why.clone()),
                Err(Fault::Refused(_) | Fault::Hopeless(_)) => {}
            }
            let tried = tried(&app.config.notify, &delivery, outcome, now_ms);
            tries.push((delivery.id, tried));
        }
        app.store.tried(tries, now_ms).await?;
    }
    Ok(away)
}

/// What is written of a try.
fn tried(config: &Notify, delivery: &Delivery, outcome: Result<(), Fault>, now_ms: i64) -> Tried {
    let give_up_ms = i64::try_from(config.give_up_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    let is_old = now_ms.saturating_sub(delivery.at_ms) > give_up_ms;
    let (first, most) = (millis(config.retry_s), millis(config.retry_max_s));
    let later = |wait_ms: u64, error| Tried::Later {
        next_ms: now_ms.saturating_add(i64::try_from(wait_ms).unwrap_or(i64::MAX)),
        error,
    };
    match outcome {
        Ok(()) => Tried::Sent,
        Err(Fault::Hopeless(error)) => Tried::Failed { error },
        Err(Fault::Away(error) | Fault::Refused(error)) if is_old => Tried::Failed { error },
        Err(Fault::Away(error)) => later(
            wait(delivery.tries + 1, first, most.min(AWAY_MS_MAX)),
            error,
        ),
        Err(Fault::Refused(error)) => later(wait(delivery.tries + 1, first, most), error),
    }
}

/// What one message after the other goes over.
enum Line {
    Mail(Box<mail::Line>),
    Webhook(Arc<Webhook>, Clock),
    Slack(Arc<Slack>),
}

impl Line {
    fn of(way: &Way, clock: &Clock) -> Self {
        match way {
            Way::Mail(mail) => Self::Mail(Box::new(mail::Line::new(Arc::clone(mail)))),
            Way::Webhook(hook) => Self::Webhook(Arc::clone(hook), clock.clone()),
            Way::Slack(slack) => Self::Slack(Arc::clone(slack)),
        }
    }

    async fn send(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        match self {
            Self::Mail(line) => line.send(delivery).await,
            Self::Webhook(hook, clock) => hook.send(delivery, clock.now_ms()).await,
            Self::Slack(slack) => slack.send(delivery).await,
        }
    }
}

/// Sends until nothing is left, or nothing gets through.
async fn work(mut line: Line, queue: Queue, told: mpsc::Sender<Outcome>) {
    while let Some(delivery) = next(&queue) {
        let outcome = line.send(&delivery).await;
        if matches!(outcome, Err(Fault::Away(_))) {
            lock(&queue).clear();
        }
        if told.send((delivery, outcome)).await.is_err() {
            break;
        }
    }
    if let Line::Mail(line) = &mut line {
        line.end().await;
    }
}

fn next(queue: &Queue) -> Option<Delivery> {
    lock(queue).pop_front()
}

fn lock(queue: &Queue) -> MutexGuard<'_, VecDeque<Delivery>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
