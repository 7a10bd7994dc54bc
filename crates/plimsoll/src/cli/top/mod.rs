//! `plimsoll top`: what is used, as it changes.
//!
//! It follows the server's events and asks for nothing itself, so that watching costs the server no more
//! than one line an entity and reading.

mod terminal;
mod view;

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Interval;

use super::answer::Answer;
use super::args::TopFlags;
use super::client::Client;
use super::error::{CliError, Exit};
use super::events::{Events, Told};
use terminal::Terminal;
use view::View;

/// How often a server that is away is looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the first reading may take.
const FIRST: Duration = Duration::from_secs(60);
/// Columns of a table that goes elsewhere.
const COLUMNS: usize = 80;

pub(super) async fn run(
    client: &Client,
    flags: &TopFlags,
    as_json: bool,
) -> Result<Answer, CliError> {
    let mut feed = Feed::of(client).await?;
    let mut view = View::new(flags);
    if !flags.once && !as_json {
        let taken = Terminal::take().map_err(screen)?;
        if let Some(terminal) = taken {
            return watch(&terminal, &mut view, &mut feed).await;
        }
    }
    let reading = tokio::time::timeout(FIRST, feed.reading()).await;
    view.take(reading.map_err(|_| unread(client))??);
    Ok(Answer::new(view.json(), view.table(COLUMNS)))
}

fn unread(client: &Client) -> CliError {
    CliError::Unreachable {
        address: client.address(),
        source: "nothing was measured within a minute".into(),
        next: "plimsoll doctor says whether containers can be measured here",
    }
}

fn screen(source: io::Error) -> CliError {
    CliError::Io {
        verb: "use",
        path: "the terminal".to_owned(),
        source,
    }
}

/// Draws until somebody has seen enough.
async fn watch(
    terminal: &Terminal,
    view: &mut View,
    feed: &mut Feed<'_>,
) -> Result<Answer, CliError> {
    let mut keys = terminal::keys();
    let caught = |kind| signal(kind).map_err(screen);
    let mut resized = caught(SignalKind::window_change())?;
    let mut ended = [
        caught(SignalKind::terminate())?,
        caught(SignalKind::hangup())?,
    ];
    loop {
        let draw = |width, height| view.screen(width, height);
        terminal.draw(draw).map_err(screen)?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) if view.press(key) => {}
                _ => break,
            },
            told = feed.next() => match told? {
                Some(told) if told.name == "usage" => {
                    view.remark = None;
                    view.take(told.data);
                }
                Some(_) => {}
                None => view.remark = Some("the server is away".to_owned()),
            },
            _ = resized.recv() => {}
            () = any(&mut ended) => break,
        }
    }
    Ok(Answer::new(Value::Null, String::new()))
}

async fn any([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The server's events, also after it was away.
struct Feed<'a> {
    client: &'a Client,
    events: Option<Events>,
    again: Interval,
}

impl<'a> Feed<'a> {
    async fn of(client: &'a Client) -> Result<Self, CliError> {
        Ok(Self {
            client,
            events: Some(client.follow().await?),
            again: tokio::time::interval(AGAIN),
        })
    }

    /// The next event; `None` while the server is away.
    async fn next(&mut self) -> Result<Option<Told>, CliError> {
        if let Some(events) = &mut self.events {
            let told = events.next().await;
            if told.is_none() {
                self.events = None;
            }
            return Ok(told);
        }
        self.again.tick().await;
        match self.client.follow().await {
            Ok(events) => self.events = Some(events),
            Err(error) if error.exit() == Exit::Unreachable => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// The next reading.
    async fn reading(&mut self) -> Result<Value, CliError> {
        loop {
            match self.next().await? {
                Some(told) if told.name == "usage" => return Ok(told.data),
                _ => {}
            }
        }
    }
}
