//! Violations: opened when a limit is exceeded, followed while it is, closed when it no longer is.

use plimsoll_core::admit::{Level, LevelKind, TeamPath};
use plimsoll_core::quota::Mode;
use plimsoll_core::{Amounts, Dimension, Limit, Limits};
use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;

use crate::Store;
use crate::books::Books;
use crate::changes::Change;
use crate::error::Result;
use crate::notices::next_id;
use crate::records::{ViolationKind, ViolationRecord};
use crate::rows;

/// What is watched at one level in one dimension.
#[derive(Debug, Clone)]
pub(crate) struct Watch<'a> {
    pub(crate) kind: ViolationKind,
    pub(crate) level: &'a str,
    pub(crate) entity: Uuid,
    pub(crate) name: &'a str,
    pub(crate) dimension: Dimension,
    pub(crate) limit: Option<u64>,
    pub(crate) current: u64,
    pub(crate) cause: &'a str,
}

/// Opens, updates or closes the violation of one watch.
pub(crate) fn follow(books: &Books<'_>, watch: &Watch<'_>, now_ms: i64) -> Result<()> {
    let current = i64::try_from(watch.current).unwrap_or(i64::MAX);
    let entity = watch.entity.to_string();
    if let Some(limit) = watch.limit.filter(|limit| watch.current > *limit) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let next = next_id(books.connection, "violation", now_ms)?.to_string();
        let mut upsert = books.connection.prepare_cached(
            "INSERT INTO violation (id, kind, level, entity_id, name, dimension, most, current,
                                        peak, cause, opened_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?10)
                 ON CONFLICT (kind, level, entity_id, name, dimension) WHERE closed_at IS NULL
                 DO UPDATE SET current = ?8, peak = max(peak, ?8), most = ?7, updated_at = ?10
                 RETURNING id",
        )?;
        let id = upsert.query_row(
            params![
                next,
                watch.kind.name(),
                watch.level,
                entity,
                watch.name,
                watch.dimension.name(),
                limit,
                current,
                watch.cause,
                now_ms
            ],
            |row| rows::uuid(row, 0),
        )?;
        // One that was open is followed in silence.
        if id.to_string() == next {
            note(books, id, watch.entity);
        }
    } else {
        let mut close = books.connection.prepare_cached(
            "UPDATE violation SET closed_at = ?5, updated_at = ?5, current = ?6
                 WHERE kind = ?1 AND level = ?2 AND entity_id = ?3 AND dimension = ?4
                   AND name = ?7 AND closed_at IS NULL
                 RETURNING id",
        )?;
        let closed = close
            .query_row(
                params![
                    watch.kind.name(),
                    watch.level,
                    entity,
                    watch.dimension.name(),
                    now_ms,
                    current,
                    watch.name
                ],
                |row| rows::uuid(row, 0),
            )
            .optional()?;
        if let Some(id) = closed {
            note(books, id, watch.entity);
        }
    }
    Ok(())
}

/// Tells that a violation was opened or closed.
fn note(books: &Books<'_>, id: Uuid, entity: Uuid) {
    books.note(Change::Violation { id, entity });
}

/// Ends whatever is open against an entity that is gone.
pub(crate) fn close_all(books: &Books<'_>, entity: Uuid, now_ms: i64) -> Result<()> {
    let closed = rows::all(
        books.connection,
        "UPDATE violation SET closed_at = ?2, updated_at = ?2
         WHERE entity_id = ?1 AND closed_at IS NULL RETURNING id",
        params![entity.to_string(), now_ms],
        |row| rows::uuid(row, 0),
    )?;
    for id in closed {
        note(books, id, entity);
    }
    Ok(())
}

/// Holds what is charged at one level against `limits` of it. A level that is off is over nothing.
fn follow_level(
    books: &Books<'_>,
    kind: LevelKind,
    level: &Level,
    (limits, charged): (&Limits, &Amounts),
    cause: &str,
    now_ms: i64,
) -> Result<()> {
    let open: Vec<String> = rows::all(
        books.connection,
        "SELECT dimension FROM violation
         WHERE kind = 'reserved' AND level = ?1 AND entity_id = ?2 AND name = ?3
           AND closed_at IS NULL",
        params![kind.name(), level.entity.to_string(), level.name],
        |row| row.get(0),
    )?;
    for d in Dimension::CHARGED {
        let limit = match level.mode {
            Mode::Off => Limit::Unlimited,
            Mode::Enforce | Mode::Shadow => limits[d].times_permille(level.overcommit_permille),
        };
        if limit.allows(charged.get(d)) && !open.iter().any(|name| name == d.name()) {
            continue;
        }
        let watch = Watch {
            kind: ViolationKind::Reserved,
            level: kind.name(),
            entity: level.entity,
            name: &level.name,
            dimension: d,
            limit: limit.at_most(),
            current: charged.get(d),
            cause,
        };
        follow(books, &watch, now_ms)?;
    }
    Ok(())
}

/// Holds what is charged at one level against its limits.
pub(crate) fn follow_whole(
    books: &Books<'_>,
    kind: LevelKind,
    level: &Level,
    cause: &str,
    now_ms: i64,
) -> Result<()> {
    let whole = (&level.limits, &level.reserved);
    follow_level(books, kind, level, whole, cause, now_ms)
}

/// Holds a team's limit and its pool against what is charged.
pub(crate) fn follow_team(
    books: &Books<'_>,
    place: &TeamPath,
    cause: &str,
    now_ms: i64,
) -> Result<()> {
    follow_whole(books, LevelKind::Team, &place.team, cause, now_ms)?;
    let pool = (&place.pool, &place.overflow);
    follow_level(books, LevelKind::Pool, &place.team, pool, cause, now_ms)
}

/// Whether any violation is open: releases look only then.
pub(crate) fn any_open(books: &Books<'_>) -> Result<bool> {
    let mut statement = books
        .connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM violation WHERE closed_at IS NULL)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

impl Store {
    /// Violations, newest first: the open ones, or those opened since `since_ms` too.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn violations(
        &self,
        since_ms: Option<i64>,
        most: u32,
    ) -> Result<Vec<ViolationRecord>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE closed_at IS NULL OR opened_at >= ?1 ORDER BY opened_at DESC, id LIMIT ?2",
                rows::VIOLATION
            );
            let since = since_ms.unwrap_or(i64::MAX);
            rows::all(books.connection, &sql, params![since, most], rows::violation)
        })
        .await
    }

    /// A violation.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn violation(&self, id: Uuid) -> Result<ViolationRecord> {
        self.read(|books| {
            let sql = format!("{} WHERE id = ?1", rows::VIOLATION);
            let by = [id.to_string()];
            rows::one(books.connection, &sql, by, rows::violation, "violation", id)
        })
    }

    /// Follows measured use against limits: one item per entity and dimension. Opens, updates and
    /// closes violations of kind `used`.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_use(&self, measured: Vec<Measured>, now_ms: i64) -> Result<()> {
        self.follow_measured(ViolationKind::Used, "measured use", measured, now_ms)
            .await
    }

    /// Follows caps that the kernel does not lower to their limits, because of what is below them:
    /// one item per cap, with the cap it has in place of a measured use. Closes the violations of
    /// kind `held` that are not among them.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_held(&self, mut caps: Vec<Measured>, now_ms: i64) -> Result<()> {
        let open = self.violations(None, u32::MAX).await?;
        let met = open.into_iter().filter(|v| v.kind == ViolationKind::Held);
        for v in met {
            let is_it = |m: &Measured| {
                (m.level.name(), m.entity, m.dimension) == (v.level.as_str(), v.entity, v.dimension)
                    && m.name == v.name
            };
            if !caps.iter().any(is_it)
                && let Some(level) = LevelKind::from_name(&v.level)
            {
                caps.push(Measured {
                    level,
                    entity: v.entity,
                    name: v.name,
                    dimension: v.dimension,
                    limit: None,
                    used: v.limit,
                });
            }
        }
        if caps.is_empty() {
            return Ok(());
        }
        let cause = "the kernel keeps a higher cap";
        self.follow_measured(ViolationKind::Held, cause, caps, now_ms)
            .await
    }

    async fn follow_measured(
        &self,
        kind: ViolationKind,
        cause: &'static str,
        measured: Vec<Measured>,
        now_ms: i64,
    ) -> Result<()> {
        self.charge(move |books| {
            for m in &measured {
                let watch = Watch {
                    kind,
                    level: m.level.name(),
                    entity: m.entity,
                    name: &m.name,
                    dimension: m.dimension,
                    limit: m.limit,
                    current: m.used,
                    cause,
                };
                follow(books, &watch, now_ms)?;
            }
            Ok(())
        })
        .await
    }
}

/// Measured use of an entity in one dimension.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which level the entity is.
    pub level: LevelKind,
    /// Whose use.
    pub entity: Uuid,
    /// Their name.
    pub name: String,
    /// In which dimension.
    pub dimension: Dimension,
    /// The effective limit.
    pub limit: Option<u64>,
    /// How much, in ledger units.
    pub used: u64,
}
