//! Where the periods of budgets began.

use plimsoll_core::Dimension;
use plimsoll_core::budget::BUDGETS;
use plimsoll_core::notice::Event;
use rusqlite::{Row, params};
use uuid::Uuid;

use crate::Store;
use crate::error::Result;
use crate::notices::notify;
use crate::records::{Actor, Budget, ViolationKind};
use crate::rows;
use crate::violations::{Followed, Measured};

fn budget(row: &Row<'_>) -> rusqlite::Result<Budget> {
    Ok(Budget {
        entity: rows::uuid(row, 0)?,
        dimension: rows::named(row, 1, Dimension::from_name)?,
        from_ms: row.get(2)?,
        until_ms: row.get(3)?,
        mark: rows::unsigned(row, 4)?,
        told: row.get(5)?,
    })
}

impl Store {
    /// Every budget that anything was counted in, of this entity or of all.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn budgets(&self, of: Option<Uuid>) -> Result<Vec<Budget>> {
        self.read_list(move |books| {
            let sql = "SELECT entity_id, dimension, from_at, until_at, mark, told FROM budget
                       WHERE ?1 IS NULL OR entity_id = ?1";
            rows::all(books.connection, sql, [of.map(|id| id.to_string())], budget)
        })
        .await
    }

    /// Begins periods.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn begin_budgets(&self, begun: Vec<Budget>) -> Result<()> {
        self.charge(move |books| {
            let mut write = books.connection.prepare_cached(
                "INSERT INTO budget (entity_id, dimension, from_at, until_at, mark)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET from_at = ?3, until_at = ?4, mark = ?5, told = 0",
            )?;
            for b in &begun {
                write.execute(params![
                    b.entity.to_string(),
                    b.dimension.name(),
                    b.from_ms,
                    b.until_ms,
                    i64::try_from(b.mark).unwrap_or(i64::MAX)
                ])?;
            }
            Ok(())
        })
        .await
    }

    /// Tells of so many percent of a budget, once in a period.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn tell_budget(
        &self,
        of: Budget,
        percent: u32,
        event: Event,
        actor: Actor,
    ) -> Result<()> {
        self.charge(move |books| {
            let entity = of.entity.to_string();
            let told = books
                .connection
                .prepare_cached(
                    "UPDATE budget SET told = ?3
                     WHERE entity_id = ?1 AND dimension = ?2 AND told < ?3",
                )?
                .execute(params![entity, of.dimension.name(), percent])?;
            if told == 0 {
                return Ok(());
            }
            let key = format!("budget:{entity}:{}:{}:{percent}", of.dimension, of.from_ms);
            notify(books, &key, &event, &actor)
        })
        .await
    }

    /// Follows users with idle containers: one item each, with the longest time.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_idle(&self, idle: Vec<Measured>, now_ms: i64) -> Result<()> {
        let followed = Followed {
            kind: ViolationKind::Used,
            cause: "it does nothing",
            dimensions: &[Dimension::Idle],
            calm_ms: 0,
            judge: |m, _| m.limit.is_some_and(|limit| m.used >= limit),
        };
        self.follow_measured(followed, idle, now_ms).await
    }

    /// Follows budgets: one item each. Opens and closes violations of kind `used`, from when nothing is
    /// left to when the next period begins.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_budgets(&self, used: Vec<Measured>, now_ms: i64) -> Result<()> {
        let followed = Followed {
            kind: ViolationKind::Used,
            cause: "nothing is left of the budget",
            dimensions: &BUDGETS,
            calm_ms: 0,
            judge: |m, _| m.limit.is_some_and(|limit| m.used >= limit),
        };
        self.follow_measured(followed, used, now_ms).await
    }
}
