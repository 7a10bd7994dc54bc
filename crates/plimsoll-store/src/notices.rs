//! What people are told: an outbox, written in the transaction that made it so.
//!
//! [`notify`] writes what happened and whose inboxes it is in. Which channels there are is configured, so
//! the deliveries over them are written a moment later, in a transaction of their own. Each has an id that
//! goes with every try.

use std::collections::BTreeSet;

use plimsoll_core::entity::{EntityKind, TeamId, UserId};
use plimsoll_core::notice::{About, Event, EventKind};
use plimsoll_core::{Dimension, Limit, Limits};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::Store;
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::Actor;
use crate::shares::states;
use crate::{people, rows};

states! {
    /// A way out of the house.
    Channel {
        /// To the person's address.
        Mail = "mail",
        /// To a program.
        Webhook = "webhook",
        /// To a chat that takes what Slack takes.
        Slack = "slack",
    }
}

states! {
    /// Where a delivery stands.
    DeliveryState {
        /// It is tried until it arrives or is given up.
        Waiting = "waiting",
        /// The other side has taken it.
        Sent = "sent",
        /// Nobody tries any more.
        Failed = "failed",
    }
}

/// Whose inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// A user's.
    User(UserId),
    /// Of the administrators who are no users: root and the first token.
    Administrators,
}

impl Inbox {
    /// As the indexes have it.
    fn text(self) -> String {
        match self {
            Self::User(user) => user.to_string(),
            Self::Administrators => String::new(),
        }
    }
}

/// Something somebody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Id; later ones sort later.
    pub id: Uuid,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// What.
    pub event: Event,
    /// When they read it.
    pub read_ms: Option<i64>,
}

/// The channels that are configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Mail to users who have an address and want it.
    pub mail: bool,
    /// Mail to the address that administrators share.
    pub admin_mail: bool,
    /// Everything that anybody is told.
    pub webhook: bool,
    /// What administrators are told.
    pub slack: bool,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its idempotency key.
    pub id: String,
    /// Over which channel.
    pub channel: Channel,
    /// To whom; `None` for what is not one user's.
    pub user_name: Option<String>,
    /// Their address now, if they have one and want mail.
    pub address: Option<String>,
    /// What it says.
    pub event: Event,
    /// When it happened, Unix milliseconds.
    pub at_ms: i64,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next, Unix milliseconds.
    pub next_ms: i64,
    /// When it was taken or given up.
    pub settled_ms: Option<i64>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// Taken.
    Sent,
    /// To be tried again.
    Later {
        /// When, Unix milliseconds.
        next_ms: i64,
        /// What went wrong.
        error: String,
    },
    /// Given up.
    Failed {
        /// Why.
        error: String,
    },
}

/// An id for the next row of `table`: the time first, so that ids sort by it, then its place in the table,
/// so that no two of a millisecond are one.
pub(crate) fn next_id(connection: &Connection, table: &str, now_ms: i64) -> Result<Uuid> {
    let sql = format!("SELECT coalesce(max(rowid), 0) + 1 FROM {table}");
    let place: i64 = connection
        .prepare_cached(&sql)?
        .query_row([], |row| row.get(0))?;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&place.to_be_bytes());
    Ok(Uuid::new_v8(bytes))
}

/// Tells everybody whom `event` concerns but the one who did it, once for each `key`.
pub(crate) fn notify(books: &Books<'_>, key: &str, event: &Event, actor: &Actor) -> Result<()> {
    let db = books.connection;
    let (told, admins) = recipients(db, event)?;
    let id = next_id(db, "notice", actor.at_ms)?.to_string();
    let new = db
        .prepare_cached(
            "INSERT INTO notice (id, key, at, event, admins) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![id, key, actor.at_ms, rows::json(event), admins])?;
    if new == 0 {
        return Ok(());
    }
    let mut write = db.prepare_cached(
        "INSERT INTO inbox (id, notice_id, user_id)
         SELECT ?1, ?2, u.id FROM user u WHERE u.id = ?3 AND 'user:' || u.name <> ?4",
    )?;
    for user in told {
        let row = next_id(db, "inbox", actor.at_ms)?.to_string();
        write.execute(params![row, id, user.to_string(), actor.name])?;
    }
    if admins {
        let row = next_id(db, "inbox", actor.at_ms)?.to_string();
        db.prepare_cached("INSERT INTO inbox (id, notice_id) VALUES (?1, ?2)")?
            .execute([row, id])?;
    }
    Ok(())
}

/// [`notify`], of the change that was just written into the audit log.
pub(crate) fn tell(books: &Books<'_>, event: &Event, actor: &Actor) -> Result<()> {
    let key = format!("audit:{}", books.connection.last_insert_rowid());
    notify(books, &key, event, actor)
}

/// Who is told, and whether administrators are.
fn recipients(db: &Connection, event: &Event) -> Result<(BTreeSet<UserId>, bool)> {
    let mut audience = event.audience();
    let mut told = BTreeSet::new();
    if audience.own {
        told.extend(&event.own);
        if event.about.kind == EntityKind::User {
            told.insert(UserId(event.about.id));
        }
    }
    if let Some(team) = event.about.led_by() {
        if audience.borrowers {
            told.extend(borrowers(db, team, event.dimension)?);
        }
        if audience.leads {
            let leads = users(db, LEADS, [team.to_string()])?;
            // Somebody must be there to answer.
            audience.admins |= event.kind == EventKind::RequestAsked && leads.is_empty();
            told.extend(leads);
        }
    }
    if audience.admins {
        told.extend(users(db, "SELECT id FROM user WHERE role = 'admin'", [])?);
    }
    Ok((told, audience.admins))
}

const LEADS: &str = "SELECT user_id FROM member WHERE team_id = ?1 AND role = 'lead'";

fn users(db: &Connection, sql: &str, by: impl rusqlite::Params) -> Result<Vec<UserId>> {
    rows::all(db, sql, by, |row| Ok(UserId(rows::uuid(row, 0)?)))
}

/// Members who hold more than their allotment.
fn borrowers(db: &Connection, team: TeamId, in_one: Option<Dimension>) -> Result<Vec<UserId>> {
    let borrows = |member: &crate::Member| {
        let above = member.reserved.above(&member.effective());
        in_one.map_or(!above.is_zero(), |d| above.get(d) > 0)
    };
    let members = people::members(db, Some(team), None)?;
    Ok(members
        .iter()
        .filter(|m| borrows(m))
        .map(|m| m.user)
        .collect())
}

/// The event with every limit that is another one now as a figure.
pub(crate) fn with_changes(mut event: Event, before: &Limits, after: &Limits) -> Event {
    let shown = |d: Dimension, limit: Limit| match limit {
        Limit::Unlimited => "unlimited".to_owned(),
        Limit::AtMost(most) => d.show(most),
    };
    for d in Dimension::ALL {
        if before[d] != after[d] {
            let value = format!("{}, was {}", shown(d, after[d]), shown(d, before[d]));
            event = event.figure(d.to_string(), value);
        }
    }
    event
}

/// A change that people are told of: by whom, and why if they said so.
pub(crate) fn change(
    kind: EventKind,
    about: About,
    title: String,
    link: String,
    actor: &Actor,
) -> Event {
    let event = Event::new(kind, about, title, link, actor.at_ms);
    let by = actor.name.strip_prefix("user:").unwrap_or(&actor.name);
    match &actor.reason {
        Some(reason) => event.by(by).figure("reason", reason),
        None => event.by(by),
    }
}

fn notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    Ok(Notification {
        id: rows::uuid(row, 0)?,
        at_ms: row.get(1)?,
        event: rows::parse(row, 2)?,
        read_ms: row.get(3)?,
    })
}

const DELIVERY: &str = "SELECT d.id, d.channel, u.name, CASE WHEN u.mail THEN u.email END, n.event, n.at, \
     d.state, d.tries, d.next_at, d.settled_at, d.error FROM delivery d \
     JOIN notice n ON n.id = d.notice_id LEFT JOIN user u ON u.id = d.user_id";

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        channel: rows::named(row, 1, Channel::from_name)?,
        user_name: row.get(2)?,
        address: row.get(3)?,
        event: rows::parse(row, 4)?,
        at_ms: row.get(5)?,
        state: rows::named(row, 6, DeliveryState::from_name)?,
        tries: row.get(7)?,
        next_ms: row.get(8)?,
        settled_ms: row.get(9)?,
        error: row.get(10)?,
    })
}

impl Store {
    /// Tells everybody whom `event` concerns, once for each `key`.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn notify(&self, key: String, event: Event, actor: Actor) -> Result<()> {
        self.charge(move |books| notify(books, &key, &event, &actor))
            .await
    }

    /// An inbox, newest first, from before `before`; what is unread only, if asked.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn inbox(
        &self,
        whose: Inbox,
        unread: bool,
        before: Option<Uuid>,
        most: u32,
    ) -> Result<Vec<Notification>> {
        let before = before.unwrap_or(Uuid::max()).to_string();
        self.read_list(move |books| {
            let sql = "SELECT i.id, n.at, n.event, i.read_at FROM inbox i
                       JOIN notice n ON n.id = i.notice_id
                       WHERE coalesce(i.user_id, '') = ?1 AND i.id < ?2
                         AND (NOT ?3 OR i.read_at IS NULL)
                       ORDER BY i.id DESC LIMIT ?4";
            let by = params![whose.text(), before, unread, most];
            rows::all(books.connection, sql, by, notification)
        })
        .await
    }

    /// How much of an inbox is unread.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn unread(&self, whose: Inbox) -> Result<u64> {
        self.read(|books| {
            let sql = "SELECT count(*) FROM inbox
                       WHERE coalesce(user_id, '') = ?1 AND read_at IS NULL";
            let mut statement = books.connection.prepare_cached(sql)?;
            let count: i64 = statement.query_row([whose.text()], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Marks one notification of an inbox as read, or all of them. Returns how many were unread.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn mark_read(&self, whose: Inbox, id: Option<Uuid>, now_ms: i64) -> Result<usize> {
        self.charge(move |books| {
            let id = id.map(|id| id.to_string());
            let whose = whose.text();
            let found: bool = books
                .connection
                .prepare_cached(
                    "SELECT ?2 IS NULL OR EXISTS (SELECT 1 FROM inbox
                     WHERE id = ?2 AND coalesce(user_id, '') = ?1)",
                )?
                .query_row(params![whose, id], |row| row.get(0))?;
            if !found {
                return Err(StoreError::NotFound {
                    what: "notification",
                    name: id.unwrap_or_default(),
                });
            }
            let read = books
                .connection
                .prepare_cached(
                    "UPDATE inbox SET read_at = ?3 WHERE coalesce(user_id, '') = ?1
                     AND (?2 IS NULL OR id = ?2) AND read_at IS NULL",
                )?
                .execute(params![whose, id, now_ms])?;
            Ok(read)
        })
        .await
    }

    /// Writes the deliveries of what is new. Returns of how much.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn spread(&self, channels: Channels, now_ms: i64) -> Result<usize> {
        let any_new = |books: &mut Books<'_>| {
            let sql = "SELECT EXISTS (SELECT 1 FROM notice WHERE spread = 0)";
            let mut statement = books.connection.prepare_cached(sql)?;
            Ok(statement.query_row([], |row| row.get(0))?)
        };
        if !self.read(any_new)? {
            return Ok(0);
        }
        self.charge(move |books| {
            let Channels {
                mail,
                admin_mail,
                webhook,
                slack,
            } = channels;
            let db = books.connection;
            db.prepare_cached(
                "INSERT INTO delivery (id, notice_id, user_id, channel, state, next_at)
                 SELECT i.id || '.mail', n.id, i.user_id, 'mail', 'waiting', ?1
                 FROM notice n JOIN inbox i ON i.notice_id = n.id
                 LEFT JOIN user u ON u.id = i.user_id
                 WHERE n.spread = 0 AND CASE WHEN i.user_id IS NULL THEN ?3
                                             ELSE ?2 AND u.mail AND u.email IS NOT NULL END",
            )?
            .execute(params![now_ms, mail, admin_mail])?;
            let mut whole = db.prepare_cached(
                "INSERT INTO delivery (id, notice_id, channel, state, next_at)
                 SELECT id || '.' || ?2, id, ?2, 'waiting', ?1 FROM notice
                 WHERE spread = 0 AND (admins OR NOT ?3)",
            )?;
            if webhook {
                whole.execute(params![now_ms, Channel::Webhook.name(), false])?;
            }
            if slack {
                whole.execute(params![now_ms, Channel::Slack.name(), true])?;
            }
            let new = "UPDATE notice SET spread = 1 WHERE spread = 0";
            Ok(db.prepare_cached(new)?.execute([])?)
        })
        .await
    }

    /// Deliveries over a channel that are to be tried now, the longest waiting first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn due(&self, channel: Channel, now_ms: i64, most: u32) -> Result<Vec<Delivery>> {
        self.read_list(move |books| {
            let sql = format!(
                "{DELIVERY} WHERE d.state = 'waiting' AND d.next_at <= ?1 AND d.channel = ?3
                 ORDER BY d.next_at, d.id LIMIT ?2"
            );
            let by = params![now_ms, most, channel.name()];
            rows::all(books.connection, &sql, by, delivery)
        })
        .await
    }

    /// Deliveries, newest first, in one state if one is named.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn deliveries(
        &self,
        state: Option<DeliveryState>,
        most: u32,
    ) -> Result<Vec<Delivery>> {
        self.read_list(move |books| {
            let sql =
                format!("{DELIVERY} WHERE ?1 IS NULL OR d.state = ?1 ORDER BY d.id DESC LIMIT ?2");
            let state = state.map(DeliveryState::name);
            rows::all(books.connection, &sql, params![state, most], delivery)
        })
        .await
    }

    /// Notes what came of tries, by delivery.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn tried(&self, tries: Vec<(String, Tried)>, now_ms: i64) -> Result<()> {
        self.charge(move |books| {
            let mut write = books.connection.prepare_cached(
                "UPDATE delivery SET state = ?2, tries = tries + 1, next_at = ?3, settled_at = ?4,
                                     error = ?5 WHERE id = ?1 AND state = 'waiting'",
            )?;
            for (id, tried) in &tries {
                let (state, next, settled, error) = match tried {
                    Tried::Sent => (DeliveryState::Sent, now_ms, Some(now_ms), None),
                    Tried::Later { next_ms, error } => {
                        (DeliveryState::Waiting, *next_ms, None, Some(error))
                    }
                    Tried::Failed { error } => {
                        (DeliveryState::Failed, now_ms, Some(now_ms), Some(error))
                    }
                };
                write.execute(params![id, state.name(), next, settled, error])?;
            }
            Ok(())
        })
        .await
    }
}
