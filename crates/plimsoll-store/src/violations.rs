//! Violations: opened when a limit is exceeded, followed while it is, closed when it no longer is.

use plimsoll_core::admit::{Level, LevelKind, Owner};
use plimsoll_core::{Dimension, Path};
use rusqlite::params;
use uuid::Uuid;

use crate::Store;
use crate::books::Books;
use crate::error::Result;
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
        books
            .connection
            .prepare_cached(
                "INSERT INTO violation (id, kind, level, entity_id, name, dimension, most, current,
                                        peak, cause, opened_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?10)
                 ON CONFLICT (kind, level, entity_id, dimension) WHERE closed_at IS NULL
                 DO UPDATE SET current = ?8, peak = max(peak, ?8), most = ?7, updated_at = ?10",
            )?
            .execute(params![
                // Derived, not random: what opens and when is the violation.
                Uuid::new_v8(violation_bytes(watch, now_ms)).to_string(),
                watch.kind.name(),
                watch.level,
                entity,
                watch.name,
                watch.dimension.name(),
                limit,
                current,
                watch.cause,
                now_ms
            ])?;
    } else {
        books
            .connection
            .prepare_cached(
                "UPDATE violation SET closed_at = ?5, updated_at = ?5, current = ?6
                 WHERE kind = ?1 AND level = ?2 AND entity_id = ?3 AND dimension = ?4
                   AND closed_at IS NULL",
            )?
            .execute(params![
                watch.kind.name(),
                watch.level,
                entity,
                watch.dimension.name(),
                now_ms,
                current
            ])?;
    }
    Ok(())
}

/// Bytes that differ for every violation: time first, so that ids sort by it, then what and whose.
fn violation_bytes(watch: &Watch<'_>, now_ms: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    bytes[6] = watch.kind as u8;
    bytes[7] = watch.dimension as u8;
    bytes[9..].copy_from_slice(&watch.entity.as_bytes()[9..]);
    bytes[8] = watch
        .level
        .bytes()
        .fold(0, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
    bytes
}

/// Holds every level of `path` against what is charged there.
pub(crate) fn follow_path(books: &Books<'_>, path: &Path, cause: &str, now_ms: i64) -> Result<()> {
    let mut levels: Vec<(LevelKind, &Level)> = vec![
        (LevelKind::Host, &path.host),
        (LevelKind::System, &path.system),
    ];
    match &path.owner {
        Owner::User(user) => levels.push((LevelKind::User, user)),
        Owner::Team(place) => levels.push((LevelKind::Team, &place.team)),
    }
    for (kind, level) in levels {
        for d in Dimension::CHARGED {
            let limit = level.limits[d]
                .times_permille(level.overcommit_permille)
                .at_most();
            let watch = Watch {
                kind: ViolationKind::Reserved,
                level: kind.name(),
                entity: level.entity,
                name: &level.name,
                dimension: d,
                limit,
                current: level.reserved.get(d),
                cause,
            };
            follow(books, &watch, now_ms)?;
        }
    }
    if let Owner::Team(place) = &path.owner {
        for d in Dimension::CHARGED {
            let limit = place.pool[d]
                .times_permille(place.team.overcommit_permille)
                .at_most();
            let watch = Watch {
                kind: ViolationKind::Reserved,
                level: LevelKind::Pool.name(),
                entity: place.team.entity,
                name: &place.team.name,
                dimension: d,
                limit,
                current: place.overflow.get(d),
                cause,
            };
            follow(books, &watch, now_ms)?;
        }
    }
    Ok(())
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

    /// Follows measured use against limits: one item per entity and dimension. Opens, updates and
    /// closes violations of kind `used`.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_use(&self, measured: Vec<Measured>, now_ms: i64) -> Result<()> {
        self.charge(move |books| {
            for m in &measured {
                let watch = Watch {
                    kind: ViolationKind::Used,
                    level: m.level.name(),
                    entity: m.entity,
                    name: &m.name,
                    dimension: m.dimension,
                    limit: m.limit,
                    current: m.used,
                    cause: "measured use",
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
