//! Alerts: the rules, where each subject stands, and silences.
//!
//! Where a subject stands and what its people are told of it are written in one transaction: a crash
//! neither repeats nor loses anything.

use plimsoll_core::alert::{Matcher, Rule, Standing};
use plimsoll_core::notice::{About, Event};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::notices::{next_id, notify};
use crate::records::Actor;
use crate::rows;

/// The most rules.
const RULES_MAX: i64 = 1000;

/// What was last seen of a subject, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The value; `None` when there is none any more.
    pub value: Option<u64>,
    /// What is the matter, as a clause.
    pub title: String,
    /// How much, in words.
    pub amount: String,
    /// Who is behind it.
    pub by: Vec<String>,
}

/// Where one subject of a rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The rule's name.
    pub rule: String,
    /// Whom it is about.
    pub about: About,
    /// A dimension, a task, a violation.
    pub part: String,
    /// Where it stands.
    pub standing: Standing,
    /// What was last seen.
    pub seen: Seen,
    /// Nobody is told: of this, or because something worse says it.
    pub silenced: bool,
    /// When its group was told of last, Unix milliseconds.
    pub told_ms: Option<i64>,
}

impl Alert {
    /// Whom it is about, as the ledger keys it.
    #[must_use]
    pub fn subject(&self) -> String {
        subject(&self.about)
    }
}

/// Whom it is about, as a key; the system by its name, which hosts share it by.
#[must_use]
pub fn subject(about: &About) -> String {
    match (about.kind, about.team) {
        (plimsoll_core::entity::EntityKind::System, _) => format!("system:{}", about.name),
        (kind, Some(team)) => format!("{}:{}:{team}", kind.name(), about.id),
        (kind, None) => format!("{}:{}", kind.name(), about.id),
    }
}

/// Whom nobody is told of for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Id.
    pub id: Uuid,
    /// Whom it means.
    pub matcher: Matcher,
    /// Until when, Unix milliseconds.
    pub until_ms: i64,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// The rules of a new ledger, or of one that had none.
pub(crate) fn seed(connection: &Connection) -> Result<()> {
    for rule in plimsoll_core::alert::default_rules() {
        put(connection, &rule)?;
    }
    Ok(())
}

fn put(connection: &Connection, rule: &Rule) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO alert_rule (name, rule) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET rule = ?2",
        )?
        .execute(params![rule.name, rows::json(rule)])?;
    Ok(())
}

fn rule(row: &Row<'_>) -> rusqlite::Result<Rule> {
    rows::parse(row, 0)
}

fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    Ok(Alert {
        rule: row.get(0)?,
        about: rows::parse(row, 1)?,
        part: row.get(2)?,
        standing: rows::parse(row, 3)?,
        seen: rows::parse(row, 4)?,
        silenced: row.get(5)?,
        told_ms: row.get(6)?,
    })
}

fn silence(row: &Row<'_>) -> rusqlite::Result<Silence> {
    Ok(Silence {
        id: rows::uuid(row, 0)?,
        matcher: rows::parse(row, 1)?,
        until_ms: row.get(2)?,
        by: row.get(3)?,
        reason: row.get(4)?,
    })
}

impl Store {
    /// Every rule, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn alert_rules(&self) -> Result<Vec<Rule>> {
        self.read_list(|books| {
            let sql = "SELECT rule FROM alert_rule ORDER BY name";
            rows::all(books.connection, sql, [], rule)
        })
        .await
    }

    /// Adds a rule or replaces the one of its name. Returns whether it is new.
    ///
    /// # Errors
    /// `Invalid` when there are too many.
    pub async fn put_alert_rule(&self, rule: Rule, actor: Actor) -> Result<bool> {
        self.write(move |books| {
            let db = books.connection;
            let sql = "SELECT rule FROM alert_rule WHERE name = ?1";
            let before: Option<Rule> = rows::all(db, sql, [&rule.name], self::rule)?.pop();
            let count: i64 = db.query_row("SELECT count(*) FROM alert_rule", [], |r| r.get(0))?;
            if before.is_none() && count >= RULES_MAX {
                let most = format!("there are {RULES_MAX} rules, the most there can be");
                return Err(StoreError::Invalid(most));
            }
            put(db, &rule)?;
            let change = Change {
                action: "alert_rule.put",
                kind: "alert rule",
                entity: &rule.name,
                before: before.as_ref().map(rows::json),
                after: Some(rows::json(&rule)),
            };
            audit::record(books, &actor, &change)?;
            Ok(before.is_none())
        })
        .await
    }

    /// Removes a rule; what it had found is forgotten.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_alert_rule(&self, name: String, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let sql = "DELETE FROM alert_rule WHERE name = ?1 RETURNING rule";
            let gone: Option<Rule> = rows::all(books.connection, sql, [&name], rule)?.pop();
            let Some(gone) = gone else {
                let what = "alert rule";
                return Err(StoreError::NotFound { what, name });
            };
            let change = Change {
                action: "alert_rule.remove",
                kind: "alert rule",
                entity: &name,
                before: Some(rows::json(&gone)),
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }

    /// Everything that is pending, fires, or whose end nobody was told yet.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        self.read_list(|books| {
            let sql = "SELECT rule, about, part, standing, seen, silenced, told_at FROM alert
                       ORDER BY rule, subject, part";
            rows::all(books.connection, sql, [], alert)
        })
        .await
    }

    /// Writes where subjects stand now, and tells their people. What is over is forgotten.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_alerts(
        &self,
        changed: Vec<Alert>,
        told: Vec<(String, Event)>,
        now_ms: i64,
    ) -> Result<()> {
        if changed.is_empty() && told.is_empty() {
            return Ok(());
        }
        self.charge(move |books| {
            let db = books.connection;
            let mut write = db.prepare_cached(
                "INSERT INTO alert (rule, subject, part, about, standing, seen, silenced, told_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (rule, subject, part) DO UPDATE
                 SET about = ?4, standing = ?5, seen = ?6, silenced = ?7, told_at = ?8",
            )?;
            let sql = "DELETE FROM alert WHERE rule = ?1 AND subject = ?2 AND part = ?3";
            let mut forget = db.prepare_cached(sql)?;
            for alert in &changed {
                if alert.standing.is_over() {
                    forget.execute([&alert.rule, &alert.subject(), &alert.part])?;
                    continue;
                }
                write.execute(params![
                    alert.rule,
                    alert.subject(),
                    alert.part,
                    rows::json(&alert.about),
                    rows::json(&alert.standing),
                    rows::json(&alert.seen),
                    alert.silenced,
                    alert.told_ms
                ])?;
            }
            let actor = Actor {
                name: "plimsoll".to_owned(),
                at_ms: now_ms,
                reason: None,
            };
            for (key, event) in &told {
                notify(books, key, event, &actor)?;
            }
            Ok(())
        })
        .await
    }

    /// Silences that last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn silences(&self, now_ms: i64) -> Result<Vec<Silence>> {
        self.read_list(move |books| {
            let sql = "SELECT id, matcher, until_at, by, reason FROM silence
                       WHERE until_at > ?1 ORDER BY id";
            rows::all(books.connection, sql, [now_ms], silence)
        })
        .await
    }

    /// Makes a silence.
    ///
    /// # Errors
    /// `Invalid` when its end is not ahead.
    pub async fn add_silence(
        &self,
        matcher: Matcher,
        until_ms: i64,
        actor: Actor,
    ) -> Result<Silence> {
        self.write(move |books| {
            if until_ms <= actor.at_ms {
                return Err(StoreError::Invalid(
                    "a silence must end later than now".into(),
                ));
            }
            let db = books.connection;
            db.execute("DELETE FROM silence WHERE until_at <= ?1", [actor.at_ms])?;
            let silence = Silence {
                id: next_id(db, "silence", actor.at_ms)?,
                matcher,
                until_ms,
                by: actor.name.clone(),
                reason: actor.reason.clone(),
            };
            let id = silence.id.to_string();
            db.execute(
                "INSERT INTO silence (id, matcher, until_at, by, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    id,
                    rows::json(&silence.matcher),
                    silence.until_ms,
                    silence.by,
                    silence.reason
                ],
            )?;
            let change = Change {
                action: "silence.add",
                kind: "silence",
                entity: &id,
                before: None,
                after: Some(rows::json(&silence.matcher)),
            };
            audit::record(books, &actor, &change)?;
            Ok(silence)
        })
        .await
    }

    /// Ends a silence.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn end_silence(&self, id: Uuid, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let id = id.to_string();
            let ended = books.connection.execute(
                "DELETE FROM silence WHERE id = ?1 AND until_at > ?2",
                params![id, actor.at_ms],
            )?;
            if ended == 0 {
                let what = "silence";
                return Err(StoreError::NotFound { what, name: id });
            }
            let change = Change {
                action: "silence.end",
                kind: "silence",
                entity: &id,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }
}
