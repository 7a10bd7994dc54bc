//! Violations: opened when a limit is exceeded, followed while it is, closed when it no longer is.

use plimsoll_core::admit::{Level, LevelKind, TeamPath};
use plimsoll_core::quota::Mode;
use plimsoll_core::violation::exceeds;
use plimsoll_core::{Amounts, Dimension, Limit, Limits};
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use crate::Store;
use crate::books::Books;
use crate::changes::Change;
use crate::error::Result;
use crate::notices::next_id;
use crate::records::{Behind, ViolationFilter, ViolationKind, ViolationRecord};
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
    /// Whether it is exceeded; where `None`, whether `current` is above the limit.
    pub(crate) over: Option<bool>,
    /// It closes when it was not exceeded for so long.
    pub(crate) calm_ms: i64,
    /// Who holds most; where `None`, whoever is charged most.
    pub(crate) behind: Option<&'a [Behind]>,
}

/// At most so many containers are named as a violation's cause.
pub const BEHIND_MAX: usize = 10;

/// Opens, updates or closes the violation of one watch.
pub(crate) fn follow(books: &Books<'_>, watch: &Watch<'_>, now_ms: i64) -> Result<()> {
    let over = |limit: &u64| watch.over.unwrap_or(watch.current > *limit);
    match watch.limit.filter(over) {
        Some(limit) => exceeded(books, watch, limit, now_ms),
        None => calm(books, watch, now_ms),
    }
}

fn exceeded(books: &Books<'_>, watch: &Watch<'_>, limit: u64, now_ms: i64) -> Result<()> {
    let current = signed(watch.current);
    let known: Option<i64> = books
        .connection
        .prepare_cached(
            "SELECT peak FROM violation WHERE kind = ?1 AND level = ?2 AND entity_id = ?3
               AND name = ?4 AND dimension = ?5 AND closed_at IS NULL",
        )?
        .query_row(
            params![
                watch.kind.name(),
                watch.level,
                watch.entity.to_string(),
                watch.name,
                watch.dimension.name()
            ],
            |row| row.get(0),
        )
        .optional()?;
    let behind = match (watch.behind, known) {
        (_, Some(peak)) if peak >= current => None,
        (Some(behind), _) => Some(rows::json(&behind)),
        (None, _) => Some(rows::json(&charged_most(books, watch)?)),
    };
    let id = next_id(books.connection, "violation", now_ms)?;
    books
        .connection
        .prepare_cached(
            "INSERT INTO violation (id, kind, level, entity_id, name, dimension, most, current,
                                    peak, cause, opened_at, updated_at, behind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?10, coalesce(?11, '[]'))
             ON CONFLICT (kind, level, entity_id, name, dimension) WHERE closed_at IS NULL
             DO UPDATE SET current = ?8, peak = max(peak, ?8), most = ?7, updated_at = ?10,
                           behind = coalesce(?11, behind), calm_at = NULL",
        )?
        .execute(params![
            id.to_string(),
            watch.kind.name(),
            watch.level,
            watch.entity.to_string(),
            watch.name,
            watch.dimension.name(),
            signed(limit),
            current,
            watch.cause,
            now_ms,
            behind
        ])?;
    // One that was open is followed in silence.
    if known.is_none() {
        note(books, id, watch.entity);
    }
    Ok(())
}

/// Tells that a violation was opened or closed.
fn note(books: &Books<'_>, id: Uuid, entity: Uuid) {
    books.note(Change::Violation { id, entity });
}

fn calm(books: &Books<'_>, watch: &Watch<'_>, now_ms: i64) -> Result<()> {
    let mut update = books.connection.prepare_cached(
        "UPDATE violation SET updated_at = ?5, current = ?6, calm_at = coalesce(calm_at, ?5),
                closed_at = CASE WHEN ?5 - coalesce(calm_at, ?5) >= ?8 THEN ?5 END
         WHERE kind = ?1 AND level = ?2 AND entity_id = ?3 AND dimension = ?4
           AND name = ?7 AND closed_at IS NULL
         RETURNING id, closed_at IS NOT NULL",
    )?;
    let calmed = update
        .query_row(
            params![
                watch.kind.name(),
                watch.level,
                watch.entity.to_string(),
                watch.dimension.name(),
                now_ms,
                signed(watch.current),
                watch.name,
                watch.calm_ms
            ],
            |row| Ok((rows::uuid(row, 0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((id, true)) = calmed {
        note(books, id, watch.entity);
    }
    Ok(())
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The containers and volumes that are charged most at a level.
fn charged_most(books: &Books<'_>, watch: &Watch<'_>) -> Result<Vec<Behind>> {
    let (column, of) = match LevelKind::from_name(watch.level) {
        Some(LevelKind::Host) => ("r.host = ?1", watch.name.to_owned()),
        Some(LevelKind::System) | None => ("?1 IS NOT NULL", String::new()),
        Some(LevelKind::Team | LevelKind::Pool) => ("r.team_id = ?1", watch.entity.to_string()),
        Some(LevelKind::Member) => (
            "r.user_id = ?1 AND r.team_id IS NOT NULL",
            watch.entity.to_string(),
        ),
        Some(LevelKind::User) => (
            "r.user_id = ?1 AND r.team_id IS NULL",
            watch.entity.to_string(),
        ),
    };
    let sql = format!("{} WHERE {} AND {column}", rows::RESERVATION, rows::LIVE);
    let all = rows::all(books.connection, &sql, [of], rows::reservation)?;
    let held = all.into_iter().map(|r| Behind {
        reservation: r.id,
        amount: r.charge().get(watch.dimension),
        container: r.container_name.or(r.container).unwrap_or_default(),
        user: r.user_name,
    });
    Ok(most(held.collect()))
}

/// Those that hold most, the first most of all.
#[must_use]
pub fn most(mut held: Vec<Behind>) -> Vec<Behind> {
    held.retain(|b| b.amount > 0);
    held.sort_by(|a, b| (b.amount, &a.container).cmp(&(a.amount, &b.container)));
    held.truncate(BEHIND_MAX);
    held
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
            over: None,
            calm_ms: 0,
            behind: None,
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
        let filter = ViolationFilter {
            open: since_ms.is_none().then_some(true),
            since_ms,
            ..ViolationFilter::default()
        };
        self.violations_by(filter, most).await
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

    /// Violations that match, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn violations_by(
        &self,
        filter: ViolationFilter,
        most: u32,
    ) -> Result<Vec<ViolationRecord>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE (?1 IS NULL OR (closed_at IS NULL) = ?1)
                   AND (?2 IS NULL OR closed_at IS NULL OR opened_at >= ?2)
                   AND (?3 IS NULL OR entity_id = ?3) AND (?4 IS NULL OR kind = ?4)
                   AND (?5 IS NULL OR level = ?5) AND (?6 IS NULL OR dimension = ?6)
                 ORDER BY opened_at DESC, id LIMIT ?7",
                rows::VIOLATION
            );
            let by = params![
                filter.open,
                filter.since_ms,
                filter.entity.map(|id| id.to_string()),
                filter.kind.map(ViolationKind::name),
                filter.level.map(LevelKind::name),
                filter.dimension.map(Dimension::name),
                most
            ];
            rows::all(books.connection, &sql, by, rows::violation)
        })
        .await
    }

    /// Follows measured use in these dimensions against limits: one item per entity and dimension.
    /// Opens, updates and closes violations of kind `used`; those of nobody among the items, too.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_use(
        &self,
        dimensions: &'static [Dimension],
        measured: Vec<Measured>,
        calm_ms: i64,
        now_ms: i64,
    ) -> Result<()> {
        let judge = |m: &Measured, is_open: bool| {
            m.limit.is_some_and(|limit| exceeds(limit, m.used, is_open))
        };
        let followed = Followed {
            kind: ViolationKind::Used,
            cause: "measured use",
            dimensions,
            calm_ms,
            judge,
        };
        self.follow_measured(followed, measured, now_ms).await
    }

    /// Follows entities that the kernel holds at their caps: one item each while it does.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_throttled(
        &self,
        throttled: Vec<Measured>,
        calm_ms: i64,
        now_ms: i64,
    ) -> Result<()> {
        let followed = Followed {
            kind: ViolationKind::Throttled,
            cause: "the kernel holds it at its cap",
            dimensions: &[Dimension::Cpu, Dimension::Memory],
            calm_ms,
            judge: |_, _| true,
        };
        self.follow_measured(followed, throttled, now_ms).await
    }

    /// Follows caps that the kernel does not lower to their limits, because of what is below them:
    /// one item per cap, with the cap it has in place of a measured use.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn follow_held(&self, caps: Vec<Measured>, now_ms: i64) -> Result<()> {
        let followed = Followed {
            kind: ViolationKind::Held,
            cause: "the kernel keeps a higher cap",
            dimensions: &[Dimension::Cpu, Dimension::Memory],
            calm_ms: 0,
            judge: |m, _| m.limit.is_some_and(|limit| m.used > limit),
        };
        self.follow_measured(followed, caps, now_ms).await
    }

    pub(crate) async fn follow_measured(
        &self,
        followed: Followed,
        measured: Vec<Measured>,
        now_ms: i64,
    ) -> Result<()> {
        let filter = ViolationFilter {
            open: Some(true),
            kind: Some(followed.kind),
            ..ViolationFilter::default()
        };
        let open = self.violations_by(filter, u32::MAX).await?;
        let is_of = |v: &ViolationRecord, m: &Measured| {
            (m.level.name(), m.entity, m.dimension) == (v.level.as_str(), v.entity, v.dimension)
                && m.name == v.name
        };
        let mut judged: Vec<(Measured, bool)> = Vec::new();
        for v in &open {
            if followed.dimensions.contains(&v.dimension)
                && !measured.iter().any(|m| is_of(v, m))
                && let Some(level) = LevelKind::from_name(&v.level)
            {
                let gone = Measured {
                    level,
                    entity: v.entity,
                    name: v.name.clone(),
                    dimension: v.dimension,
                    limit: None,
                    used: match followed.kind {
                        ViolationKind::Held => v.limit,
                        _ => 0,
                    },
                    behind: None,
                };
                judged.push((gone, false));
            }
        }
        for m in measured {
            let is_open = open.iter().any(|v| is_of(v, &m));
            let over = (followed.judge)(&m, is_open);
            if over || is_open {
                judged.push((m, over));
            }
        }
        if judged.is_empty() {
            return Ok(());
        }
        self.charge(move |books| {
            for (m, over) in &judged {
                let watch = Watch {
                    kind: followed.kind,
                    level: m.level.name(),
                    entity: m.entity,
                    name: &m.name,
                    dimension: m.dimension,
                    limit: m.limit,
                    current: m.used,
                    cause: followed.cause,
                    over: Some(*over),
                    calm_ms: followed.calm_ms,
                    behind: m.behind.as_deref(),
                };
                follow(books, &watch, now_ms)?;
            }
            Ok(())
        })
        .await
    }
}

/// How one kind of measured violation is followed.
pub(crate) struct Followed {
    pub(crate) kind: ViolationKind,
    pub(crate) cause: &'static str,
    pub(crate) dimensions: &'static [Dimension],
    pub(crate) calm_ms: i64,
    /// Whether an item exceeds its limit, given whether it did.
    pub(crate) judge: fn(&Measured, bool) -> bool,
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
    /// Which containers use most; where `None`, those that are charged most are named.
    pub behind: Option<Vec<Behind>>,
}
