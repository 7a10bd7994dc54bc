//! `GET /api/events`: what is used, and what changes, as server-sent events.
//!
//! Nothing waits for whoever follows. The ledger keeps its last changes and the meter its last reading;
//! a follower asks for what came after the last it was sent, and is told what it missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequestParts as _, State};
use axum::http::request::Parts;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use plimsoll_store::{Change, StoreError};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::auth::Caller;
use super::listen::Following;
use super::output;
use super::problem::Problem;
use super::view::View;
use crate::connections::{Ending, is_over};
use crate::state::App;

/// Changes that are looked at together.
const BATCH: usize = 64;

/// The header in which a client says what it was last sent.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn follow(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(ending): Extension<Ending>,
    Extension(following): Extension<Following>,
    parts: Parts,
) -> Result<Response, Problem> {
    let view = View::of(&app, &caller).await?;
    let newest = app.store.changes().newest();
    let readings = app.meter.readings();
    let seen = *newest.borrow();
    let mut follower = Follower {
        seen,
        read: 0,
        queue: VecDeque::new(),
        newest,
        readings,
        ending,
        parts,
        caller,
        view,
        app,
    };
    follower.greet();
    following.begin();
    let events = stream::unfold(follower, Follower::next);
    Ok(Sse::new(events).into_response())
}

/// Who follows, and what they were last sent.
struct Follower {
    app: Arc<App>,
    /// What they asked with: whether it still counts is asked again when something changes.
    parts: Parts,
    caller: Caller,
    view: View,
    ending: Ending,
    /// The last change they were told of, or that is none of theirs.
    seen: u64,
    newest: watch::Receiver<u64>,
    /// The last reading they were sent.
    read: u64,
    readings: watch::Receiver<u64>,
    queue: VecDeque<Event>,
}

impl Follower {
    /// Says where the events begin: after the last that an earlier connection was sent, if that is known.
    fn greet(&mut self) {
        let asked = self.parts.headers.get(LAST_EVENT_ID);
        let asked = asked.and_then(|id| id.to_str().ok());
        let run = self.app.run.simple().to_string();
        let known = asked.and_then(|id| id.strip_prefix(&run)?.strip_prefix('-')?.parse().ok());
        self.seen = known.map_or(self.seen, |number: u64| self.seen.min(number));
        let is_lost = asked.is_some() && known.is_none();
        self.tell("hello", &json!({"version": env!("CARGO_PKG_VERSION")}));
        if is_lost {
            self.tell("missed", &json!({"changes": null}));
        }
        self.newest.mark_changed();
        if *self.readings.borrow() > 0 {
            self.readings.mark_changed();
        }
    }

    fn tell(&mut self, name: &str, data: &Value) {
        let id = format!("{}-{}", self.app.run.simple(), self.seen);
        let event = Event::default().event(name).id(id).data(data.to_string());
        self.queue.push_back(event);
    }

    /// The next event; `None` when there will be none.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some((Ok(event), self));
            }
            let silence = Duration::from_secs_f64(self.app.config.heartbeat_s);
            tokio::select! {
                biased;
                () = is_over(&mut self.ending) => return None,
                _ = self.newest.changed() => self.take_changes().await.ok()?,
                _ = self.readings.changed() => self.take_reading().await.ok()?,
                () = tokio::time::sleep(silence) => {
                    self.queue.push_back(Event::default().comment("still here"));
                }
            }
            let now_ms = self.app.clock.now_ms();
            if self
                .caller
                .until_ms
                .is_some_and(|until_ms| until_ms <= now_ms)
            {
                return None;
            }
        }
    }

    /// Looks again who calls, and what they may see.
    async fn look_again(&mut self) -> Result<(), Problem> {
        let mut parts = self.parts.clone();
        self.caller = Caller::from_request_parts(&mut parts, &self.app).await?;
        self.view = View::of(&self.app, &self.caller).await?;
        Ok(())
    }

    async fn take_changes(&mut self) -> Result<(), Problem> {
        let after = self.app.store.changes().after(self.seen, BATCH);
        let audited = |(_, change): &(u64, Change)| matches!(change, Change::Audited { .. });
        if after.missed > 0 || after.changes.iter().any(audited) {
            self.look_again().await?;
        }
        if after.changes.len() == BATCH {
            self.newest.mark_changed();
        }
        if after.missed > 0 {
            self.seen += after.missed;
            self.tell("missed", &json!({"changes": after.missed}));
        }
        for (number, change) in after.changes {
            self.seen = number;
            if let Some((name, data)) = self.shown(&change)? {
                self.tell(name, &data);
            }
        }
        Ok(())
    }

    /// A change as it is told; `None` where it is none of theirs, or gone already.
    fn shown(&self, change: &Change) -> Result<Option<(&'static str, Value)>, StoreError> {
        let (store, view) = (&self.app.store, &self.view);
        let found = match change {
            Change::Reservation { id, user, team } if view.shows_charge(*user, *team) => store
                .reservation(*id)
                .map(|row| ("reservation", output::reservation_of_kind(&row))),
            Change::Decision { id, user, team } if view.shows_charge(*user, *team) => store
                .decision(*id)
                .map(|decision| ("decision", output::decision(&decision))),
            Change::Violation { id, entity } if view.shows_entity(*entity) => {
                store.violation(*id).and_then(|row| {
                    let steps = store.steps_of(&[*id])?;
                    Ok(("violation", output::violation_record(&row, &steps)))
                })
            }
            Change::Audited {
                action,
                kind,
                entity,
                at_ms,
            } if self.shows_named(kind, entity) => Ok((
                "change",
                json!({"action": action, "entityType": kind, "entity": entity,
                       "at": output::time(*at_ms)}),
            )),
            _ => return Ok(None),
        };
        match found {
            Err(StoreError::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether something of this name is theirs: `user`, `team`, `team/user` and the like.
    fn shows_named(&self, kind: &str, entity: &str) -> bool {
        let (store, view) = (&self.app.store, &self.view);
        let (first, second) = entity.split_once('/').unwrap_or((entity, ""));
        let user = |name: &str| store.user(name).is_ok_and(|user| view.shows_user(user.id));
        let team = |name: &str| {
            store
                .team(name)
                .is_ok_and(|team| view.shows_entity(team.id.0))
        };
        view.shows_all()
            || match kind {
                "user" | "request" | "container" => user(first),
                "team" => team(first),
                "member" => team(first) || user(second),
                "grant" | "project" => team(first) || user(first) || user(second),
                _ => false,
            }
    }

    async fn take_reading(&mut self) -> Result<(), Problem> {
        let picture = self.app.pictures.last(&self.app).await?;
        let missed = picture.number.saturating_sub(self.read + 1);
        if self.read > 0 && missed > 0 {
            self.tell("missed", &json!({"readings": missed}));
        }
        self.read = picture.number;
        let lines = picture.lines.iter();
        let lines = lines.filter(|line| self.view.shows(&line.key, &line.labels));
        let shown = lines.map(output::line).collect::<Vec<_>>();
        let body = json!({
            "reading": picture.number, "at": output::time(picture.at_ms), "items": shown,
        });
        self.tell("usage", &body);
        Ok(())
    }
}
