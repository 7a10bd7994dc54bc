//! Steps of the ladder: announced, done, and taken back.

use std::collections::BTreeMap;

use plimsoll_core::Dimension;
use plimsoll_core::entity::ReservationId;
use plimsoll_core::ladder::Step;
use plimsoll_core::notice::Event;
use plimsoll_core::units::MilliCpu;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::json;
use uuid::Uuid;

use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::notices::{next_id, notify};
use crate::records::{Actor, NewStep, Reservation, StepRecord, ViolationRecord};
use crate::rows;

const STEP: &str = "SELECT s.id, s.violation_id, s.reservation_id, \
     coalesce(r.container_name, r.container_id, ''), coalesce(u.name, r.user_id, ''), s.step, s.frees, \
     s.cpu_to, s.announced_at, s.due_at, s.done_at, s.ended_at \
     FROM step s LEFT JOIN reservation r ON r.id = s.reservation_id LEFT JOIN user u ON u.id = r.user_id";

fn step(row: &Row<'_>) -> rusqlite::Result<StepRecord> {
    Ok(StepRecord {
        id: rows::uuid(row, 0)?,
        violation: rows::uuid(row, 1)?,
        reservation: ReservationId(rows::uuid(row, 2)?),
        container: row.get(3)?,
        user: row.get(4)?,
        step: rows::named(row, 5, Step::from_name)?,
        frees: rows::unsigned(row, 6)?,
        to: row.get::<_, Option<i64>>(7)?.map(rows::millicores),
        announced_ms: row.get(8)?,
        due_ms: row.get(9)?,
        done_ms: row.get(10)?,
        ended_ms: row.get(11)?,
    })
}

fn find(books: &Books<'_>, id: Uuid) -> Result<StepRecord> {
    let sql = format!("{STEP} WHERE s.id = ?1");
    rows::one(books.connection, &sql, [id.to_string()], step, "step", id)
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It was done.
    Done,
    /// It was taken back, or did not come to it.
    Ended,
}

impl Store {
    /// Announces a step, to everybody whom `event` concerns.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where the same step is open for the container, or `Fenced`.
    pub async fn announce(&self, new: NewStep, event: Event, actor: Actor) -> Result<StepRecord> {
        let job = self.step(new.reservation, move |books, _| {
            let id = next_id(books.connection, "step", actor.at_ms)?;
            let written = books
                .connection
                .prepare_cached(
                    "INSERT INTO step (id, violation_id, reservation_id, step, frees, cpu_to,
                                       announced_at, due_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    id.to_string(),
                    new.violation.to_string(),
                    new.reservation.to_string(),
                    new.step.name(),
                    i64::try_from(new.frees).unwrap_or(i64::MAX),
                    new.to.map(|cpu| cpu.0.cast_signed()),
                    actor.at_ms,
                    new.due_ms
                ])?;
            if written == 0 {
                let what = format!("a {} is open for it", new.step.name());
                return Err(StoreError::Conflict(what));
            }
            notify(books, &format!("step:{id}"), &event, &actor)?;
            find(books, id)
        });
        self.charge(job).await
    }

    /// Notes that an open step was done or has ended, in the audit log where the container was touched.
    /// Does nothing twice.
    ///
    /// # Errors
    /// `NotFound` or `Fenced`.
    pub async fn turn_step(
        &self,
        of: &StepRecord,
        turned: Turned,
        event: Option<Event>,
        actor: Actor,
    ) -> Result<()> {
        let id = of.id;
        let job = self.step(of.reservation, move |books, r| {
            let sql = match turned {
                Turned::Done => {
                    "UPDATE step SET done_at = ?2
                     WHERE id = ?1 AND done_at IS NULL AND ended_at IS NULL"
                }
                Turned::Ended => "UPDATE step SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL",
            };
            let changed = books
                .connection
                .prepare_cached(sql)?
                .execute(params![id.to_string(), actor.at_ms])?;
            if changed == 0 {
                return Ok(());
            }
            let now = find(books, id)?;
            if now.done_ms.is_some() {
                log(books, &now, &r, turned, &actor)?;
            }
            let key = match turned {
                Turned::Done => format!("step:{id}:done"),
                Turned::Ended => format!("step:{id}:ended"),
            };
            event.map_or(Ok(()), |event| notify(books, &key, &event, &actor))
        });
        self.charge(job).await
    }

    /// Steps that are announced, or done and not taken back, the oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_steps(&self) -> Result<Vec<StepRecord>> {
        self.read_list(|books| {
            let sql = format!("{STEP} WHERE s.ended_at IS NULL ORDER BY s.id");
            rows::all(books.connection, &sql, [], step)
        })
        .await
    }

    /// Every step for one of these violations, the oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn steps_of(&self, violations: &[Uuid]) -> Result<Vec<StepRecord>> {
        let ids: Vec<String> = violations.iter().map(Uuid::to_string).collect();
        self.read(|books| {
            let sql = format!(
                "{STEP} WHERE s.violation_id IN (SELECT value FROM json_each(?1)) ORDER BY s.id"
            );
            rows::all(books.connection, &sql, [rows::json(&ids)], step)
        })
    }

    /// The CPU that throttled containers are left with.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn throttles(&self) -> Result<BTreeMap<ReservationId, MilliCpu>> {
        self.read(|books| {
            let sql = "SELECT reservation_id, cpu_to FROM step
                       WHERE step = 'throttle' AND done_at IS NOT NULL AND ended_at IS NULL";
            let read = |row: &Row<'_>| {
                let id = ReservationId(rows::uuid(row, 0)?);
                Ok((id, rows::millicores(row.get(1)?)))
            };
            let all = rows::all(books.connection, sql, [], read)?;
            Ok(all.into_iter().collect())
        })
    }

    /// The step that keeps a container paused or stopped, and why.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn kept_down(&self, id: ReservationId) -> Result<Option<(StepRecord, ViolationRecord)>> {
        self.read(|books| {
            let sql = format!(
                "{STEP} JOIN violation v ON v.id = s.violation_id
                 WHERE s.reservation_id = ?1 AND s.step <> 'throttle' AND s.done_at IS NOT NULL
                   AND s.ended_at IS NULL AND v.closed_at IS NULL AND v.dimension <> ?2
                 ORDER BY s.id DESC LIMIT 1"
            );
            let kept = books
                .connection
                .prepare_cached(&sql)?
                // Whoever starts what was idle needs it.
                .query_row([id.to_string(), Dimension::Idle.name().to_owned()], step)
                .optional()?;
            let Some(kept) = kept else { return Ok(None) };
            let sql = format!("{} WHERE id = ?1", rows::VIOLATION);
            let by = [kept.violation.to_string()];
            let of = kept.violation;
            let violation =
                rows::one(books.connection, &sql, by, rows::violation, "violation", of)?;
            Ok(Some((kept, violation)))
        })
    }

    /// Keeps the restart policy a container has again when its owner starts it; with `None` forgets it.
    /// One that is kept already stays.
    ///
    /// # Errors
    /// `NotFound` or `Fenced`.
    pub async fn keep_restart(&self, id: ReservationId, policy: Option<String>) -> Result<()> {
        let job = self.step(id, move |books, _| {
            let sql = "UPDATE reservation SET restart_kept = CASE WHEN ?2 IS NULL THEN NULL
                       ELSE coalesce(restart_kept, ?2) END WHERE id = ?1";
            let mut write = books.connection.prepare_cached(sql)?;
            write.execute(params![id.to_string(), policy])?;
            Ok(())
        });
        self.charge(job).await
    }

    /// The restart policy that was kept.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn kept_restart(&self, id: ReservationId) -> Result<Option<String>> {
        self.read(|books| {
            let sql = "SELECT restart_kept FROM reservation WHERE id = ?1";
            let by = [id.to_string()];
            rows::one(
                books.connection,
                sql,
                by,
                |row| row.get(0),
                "reservation",
                id,
            )
        })
    }
}

fn log(
    books: &Books<'_>,
    step: &StepRecord,
    r: &Reservation,
    turned: Turned,
    actor: &Actor,
) -> Result<()> {
    let action = match (turned, step.step) {
        (Turned::Done, Step::Throttle) => "container.throttle",
        (Turned::Done, Step::Pause) => "container.pause",
        (Turned::Done, Step::Stop) => "container.stop",
        (Turned::Ended, Step::Throttle) => "container.unthrottle",
        (Turned::Ended, Step::Pause) => "container.unpause",
        (Turned::Ended, Step::Stop) => "container.release",
    };
    let change = Change {
        action,
        kind: "container",
        entity: &format!("{}/{}", r.user_name, step.container),
        before: None,
        after: Some(json!({"violation": step.violation, "step": step.id}).to_string()),
    };
    audit::record(books, actor, &change)
}
