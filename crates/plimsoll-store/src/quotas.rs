//! Quotas and quota classes, and what changes with them: a team's shape and overflow.

use plimsoll_core::admit::LevelKind;
use plimsoll_core::dimension::{Amounts, Dimension, Limit, Limits};
use plimsoll_core::entity::{EntityKind, SYSTEM_ID, TeamId, UserId};
use plimsoll_core::ladder::Policy;
use plimsoll_core::notice::{About, EventKind};
use plimsoll_core::quota::{
    ContainerDefaults, QuotaClass, TeamMode, TeamShape, added_up, overflow,
};
use plimsoll_core::quota::{OVERCOMMIT_MAX, narrowed};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;
use uuid::Uuid;

use crate::Store;
use crate::audit::{self, Change};
use crate::books::{Books, key};
use crate::error::{Result, StoreError};
use crate::notices;
use crate::people;
use crate::records::{Actor, Member, Quota, QuotaChange, Standing, Team};
use crate::rows;
use crate::violations;

pub(crate) fn class(connection: &Connection, name: &str) -> Result<QuotaClass> {
    connection
        .prepare_cached("SELECT name, limits, defaults, ladder FROM quota_class WHERE name = ?1")?
        .query_row([name], class_row)
        .optional()?
        .ok_or_else(|| StoreError::NotFound {
            what: "class",
            name: name.to_owned(),
        })
}

fn class_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<QuotaClass> {
    Ok(QuotaClass {
        name: row.get(0)?,
        limits: rows::parse(row, 1)?,
        defaults: rows::parse(row, 2)?,
        ladder: rows::parse(row, 3)?,
    })
}

pub(crate) fn insert(
    books: &Books<'_>,
    entity: Uuid,
    kind: EntityKind,
    class: &str,
    limits: &Limits,
    now_ms: i64,
) -> Result<()> {
    books.connection.execute(
        "INSERT INTO quota (entity_id, kind, class, limits, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![
            entity.to_string(),
            kind.name(),
            class,
            rows::json(limits),
            now_ms
        ],
    )?;
    Ok(())
}

/// A quota as an allotment: a bound in every summed dimension (what is unlimited promises nothing:
/// the pool serves it), none elsewhere.
pub(crate) fn as_allotment(quota: &Limits) -> Limits {
    quota.map(|d, limit| match limit {
        _ if !d.is_summed() => Limit::Unlimited,
        Limit::Unlimited => Limit::AtMost(0),
        limit => limit,
    })
}

/// Moves the difference of two allotments out of (or back into) an aggregate team's pool.
pub(crate) fn take_from_pool(
    books: &mut Books<'_>,
    team: &Team,
    before: &Limits,
    after: &Limits,
    now_ms: i64,
) -> Result<()> {
    let mut pool = rows::quota(books.connection, team.id.0)?.limits;
    for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
        let old = before[d].at_most().unwrap_or(0);
        let new = after[d].at_most().unwrap_or(0);
        if let Limit::AtMost(held) = pool[d] {
            // What is granted out of it is not there to be taken, nor is what it was granted.
            let free = team.pool[d].min(pool[d]).at_most().unwrap_or(held);
            if new.saturating_sub(old) > free {
                return Err(short(team, d, free, new - old));
            }
            pool[d] = Limit::AtMost(held.saturating_add(old) - new);
        }
    }
    set_pool(books, team.id, &pool, now_ms)
}

/// What is missing of a team's pool, in words.
pub(crate) fn short(team: &Team, d: Dimension, free: u64, asked: u64) -> StoreError {
    StoreError::Invalid(format!(
        "the shared pool of team {} holds {} of {d}, {} more are needed: ask an administrator to raise it",
        team.name,
        d.show(free),
        d.show(asked.saturating_sub(free))
    ))
}

/// Writes an aggregate team's own row.
pub(crate) fn set_pool(books: &Books<'_>, team: TeamId, pool: &Limits, now_ms: i64) -> Result<()> {
    books.connection.execute(
        "UPDATE quota SET limits = ?2, version = version + 1, updated_at = ?3 WHERE entity_id = ?1",
        params![team.to_string(), rows::json(pool), now_ms],
    )?;
    Ok(())
}

/// Refuses a shape whose allotments promise more than its limit.
pub(crate) fn check_promises(shape: &Shape, team: &str) -> Result<()> {
    for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
        if let Limit::AtMost(limit) = shape.derived.limit[d]
            && shape.promised[d.index()] > limit
        {
            return Err(StoreError::Invalid(format!(
                "the allotments of team {team} would promise {} of {d}, its limit is {}",
                d.show(shape.promised[d.index()]),
                d.show(limit)
            )));
        }
    }
    Ok(())
}

/// A team's derived limits and what its allotments promise.
pub(crate) struct Shape {
    pub(crate) derived: TeamShape,
    pub(crate) promised: [u64; Dimension::ALL.len()],
}

/// A team's limit and pool as they are now. What members are granted comes from the pool, so the limit
/// stays.
pub(crate) fn shape(mode: TeamMode, quota: &Quota, members: &[Member]) -> TeamShape {
    let allotments: Vec<Limits> = members.iter().map(Member::effective).collect();
    let mut own = quota.effective();
    if mode == TeamMode::Aggregate {
        for (d, amount) in added_up(members.iter().map(|m| &m.granted)) {
            if let Limit::AtMost(pool) = own[d] {
                own[d] = Limit::AtMost(pool.saturating_sub(amount));
            }
        }
    }
    TeamShape::derive(mode, &own, &allotments)
}

/// Derives a team's limit, pool and overflow anew. Called after anything they are made of changed,
/// in the same transaction and with balances written out.
pub(crate) fn reshape(books: &mut Books<'_>, team: TeamId) -> Result<Shape> {
    let quota = rows::quota(books.connection, team.0)?;
    let row = rows::team_by_id(books.connection, team)?;
    let members = people::members(books.connection, Some(team), None)?;
    let shape = shape(row.mode, &quota, &members);
    let mut promised = [0u64; Dimension::ALL.len()];
    for allotment in members.iter().map(Member::effective) {
        for d in Dimension::ALL {
            let amount = allotment[d].at_most().unwrap_or(0);
            promised[d.index()] = promised[d.index()].saturating_add(amount);
        }
    }
    books.connection.execute(
        "UPDATE team SET total = ?2, pool = ?3 WHERE id = ?1",
        params![
            team.to_string(),
            rows::json(&shape.limit),
            rows::json(&shape.pool)
        ],
    )?;

    let total = member_overflow(books, team, quota.overcommit_permille)?;
    // Cached rows are of before; the balances are not.
    books.flush()?;
    books.forget();
    books.set_overflow(team, total)?;
    Ok(Shape {
        derived: shape,
        promised,
    })
}

/// What a team's members hold together above their allotments, from the balances as written. Former
/// members' balances have no place any more and count in full.
pub(crate) fn member_overflow(books: &Books<'_>, team: TeamId, permille: u32) -> Result<Amounts> {
    let members = people::members(books.connection, Some(team), None)?;
    let prefix = format!("member:{team}:");
    let mut statement = books
        .connection
        .prepare_cached("SELECT key, reserved FROM account WHERE key > ?1 AND key < ?2")?;
    // Keys that begin with the prefix: ';' follows ':'.
    let end = format!("member:{team};");
    let held: Vec<(String, Amounts)> = statement
        .query_map([&prefix, &end], |row| {
            Ok((row.get(0)?, rows::parse(row, 1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let places: Vec<Limits> = held
        .iter()
        .map(|(account, _)| {
            let user = &account[prefix.len()..];
            members
                .iter()
                .find(|m| m.user.to_string() == user)
                .map_or(Limits::nothing(), Member::effective)
                .map(|_, limit| limit.times_permille(permille))
        })
        .collect();
    Ok(overflow(
        held.iter().map(|(_, reserved)| reserved).zip(&places),
    ))
}

impl Store {
    /// The quota of an entity; [`SYSTEM_ID`] for the system.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn quota(&self, entity: Uuid) -> Result<Quota> {
        self.read(|books| books.quota(entity))
    }

    /// Changes a quota. Admission sees it with the next decision.
    ///
    /// # Errors
    /// `NotFound`, `Stale` when `expected_version` is not the current one, `Invalid` for a change
    /// that makes no sense for the entity.
    pub async fn change_quota(
        &self,
        entity: Uuid,
        change: QuotaChange,
        actor: Actor,
    ) -> Result<Quota> {
        self.write(move |books| {
            let old = rows::quota(books.connection, entity)?;
            if change
                .expected_version
                .is_some_and(|expected| expected != old.version)
            {
                return Err(StoreError::Stale { now: old.version });
            }
            let mut limits = old.limits;
            if let Some(mode) = change.team_mode {
                if old.kind != EntityKind::Team {
                    return Err(StoreError::Invalid("only a team has a shared pool".into()));
                }
                let team = rows::team_by_id(books.connection, TeamId(entity))?;
                if team.mode != mode {
                    // The other mode's row starts from what holds now.
                    limits = match mode {
                        TeamMode::Fixed => team.total,
                        TeamMode::Aggregate => team.pool,
                    };
                    books.connection.execute(
                        "UPDATE team SET mode = ?2 WHERE id = ?1",
                        params![entity.to_string(), mode.name()],
                    )?;
                }
            }
            let before = limits;
            for (dimension, limit) in &change.limits {
                limits[*dimension] = *limit;
            }
            let overcommit = change
                .overcommit_permille
                .unwrap_or(old.overcommit_permille);
            if !(1..=OVERCOMMIT_MAX).contains(&overcommit) {
                return Err(StoreError::Invalid(
                    "the overcommit factor must be above 0 and at most 100".into(),
                ));
            }
            let mode = change.mode.unwrap_or(old.mode);
            let ladder = change.ladder.unwrap_or(old.ladder.clone());
            check_ladder(ladder.iter())?;
            let time_zone = change.time_zone.unwrap_or(old.time_zone.clone());
            books.connection.execute(
                "UPDATE quota SET limits = ?2, overcommit = ?3, mode = ?4, ladder = ?6, time_zone = ?7,
                                  version = version + 1, updated_at = ?5 WHERE entity_id = ?1",
                params![
                    entity.to_string(),
                    rows::json(&limits),
                    overcommit,
                    mode.name(),
                    actor.at_ms,
                    ladder.as_ref().map(rows::json),
                    time_zone
                ],
            )?;
            let name = match old.kind {
                EntityKind::Team => {
                    reshape(books, TeamId(entity))?;
                    rows::team_by_id(books.connection, TeamId(entity))?.name
                }
                EntityKind::User => rows::user_by_id(books.connection, UserId(entity))?.name,
                EntityKind::System => "system".to_owned(),
            };
            books.flush()?;
            books.forget();
            follow_entity(books, old.kind, entity, actor.at_ms)?;
            let new = rows::quota(books.connection, entity)?;
            let state = |q: &Quota| {
                json!({"limits": q.limits, "overcommitPermille": q.overcommit_permille,
                       "mode": q.mode, "ladder": q.ladder, "timeZone": q.time_zone})
                .to_string()
            };
            let change = Change {
                action: "quota.change",
                kind: old.kind.name(),
                entity: &name,
                before: Some(state(&old)),
                after: Some(state(&new)),
            };
            audit::record(books, &actor, &change)?;
            tell(books, &name, &before, &new, &actor)?;
            Ok(new)
        })
        .await
    }

    /// Effective limits and balance of an entity. For a user: of their claims outside teams.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn standing(&self, kind: EntityKind, entity: Uuid) -> Result<Standing> {
        self.read(|books| standing(books, kind, entity))
    }

    /// A class.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn class(&self, name: &str) -> Result<QuotaClass> {
        self.read(|books| class(books.connection, name))
    }

    /// What is done where a limit of an entity is exceeded: what its quota says, else its class.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn ladder(&self, entity: Uuid) -> Result<Policy> {
        self.read(|books| {
            let quota = books.quota(entity)?;
            Ok(match quota.ladder {
                Some(ladder) => ladder,
                None => class(books.connection, &quota.class)
                    .map(|c| c.ladder)
                    .unwrap_or_default(),
            })
        })
    }

    /// Says what is done where a limit of a class is exceeded.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub async fn set_class_ladder(
        &self,
        name: String,
        ladder: Policy,
        actor: Actor,
    ) -> Result<QuotaClass> {
        self.write(move |books| {
            check_ladder(Some(&ladder))?;
            let old = class(books.connection, &name)?;
            let sql = "UPDATE quota_class SET ladder = ?2 WHERE name = ?1";
            books
                .connection
                .execute(sql, [&name, &rows::json(&ladder)])?;
            let state = |ladder: &Policy| Some(json!({"ladder": ladder}).to_string());
            let change = Change {
                action: "class.change",
                kind: "class",
                entity: &name,
                before: state(&old.ladder),
                after: state(&ladder),
            };
            audit::record(books, &actor, &change)?;
            Ok(QuotaClass { ladder, ..old })
        })
        .await
    }

    /// Every class, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn classes(&self) -> Result<Vec<QuotaClass>> {
        self.read_list(|books| {
            let sql = "SELECT name, limits, defaults, ladder FROM quota_class ORDER BY name";
            rows::all(books.connection, sql, [], class_row)
        })
        .await
    }

    /// The defaults of containers of a user: those of their class.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container_defaults(&self, user: UserId) -> Result<ContainerDefaults> {
        self.read(|books| {
            let quota = books.quota(user.0)?;
            Ok(class(books.connection, &quota.class)
                .map(|c| c.defaults)
                .unwrap_or_default())
        })
    }
}

fn check_ladder<'p>(ladder: impl IntoIterator<Item = &'p Policy>) -> Result<()> {
    let mut all = ladder.into_iter();
    let checked = all.try_for_each(Policy::check);
    checked.map_err(|why| StoreError::Invalid(format!("the ladder {why}")))
}

/// Tells whose limits are other ones now.
fn tell(books: &Books<'_>, name: &str, before: &Limits, new: &Quota, actor: &Actor) -> Result<()> {
    let (about, whose) = match new.kind {
        EntityKind::User => (
            About::user(UserId(new.entity), name),
            format!("quota of {name}"),
        ),
        EntityKind::Team => (
            About::team(TeamId(new.entity), name),
            format!("quota of team {name}"),
        ),
        EntityKind::System => (About::system(name), "system's quota".to_owned()),
    };
    let link = about.link();
    let title = format!("The {whose} has changed");
    let event = notices::change(EventKind::QuotaChanged, about, title, link, actor);
    let event = notices::with_changes(event, before, &new.limits).figure("mode", new.mode.name());
    notices::tell(books, &event, actor)
}

fn standing(books: &mut Books<'_>, kind: EntityKind, entity: Uuid) -> Result<Standing> {
    let whole = books.capacity()?;
    let (limits, account) = match kind {
        EntityKind::System => (books.quota(SYSTEM_ID)?.limits, books.account(key::SYSTEM)?),
        EntityKind::User => (
            books.quota(entity)?.effective(),
            books.account(&key::user(UserId(entity)))?,
        ),
        EntityKind::Team => {
            let team = books.team(TeamId(entity))?;
            (team.total, books.account(&key::team(team.id))?)
        }
    };
    Ok(Standing {
        limits: narrowed(&limits, whole),
        reserved: account.reserved,
        overflow: account.overflow,
    })
}

/// After a limit changed: who is over it now.
pub(crate) fn follow_entity(
    books: &mut Books<'_>,
    kind: EntityKind,
    entity: Uuid,
    now_ms: i64,
) -> Result<()> {
    const CAUSE: &str = "the limit changed";
    match kind {
        EntityKind::Team => follow_team(books, TeamId(entity), CAUSE, now_ms),
        EntityKind::User => {
            let user = books.user(UserId(entity))?;
            let level = books.user_level(&user)?;
            violations::follow_whole(books, LevelKind::User, &level, CAUSE, now_ms)
        }
        EntityKind::System => {
            let sql = "SELECT name FROM host ORDER BY name";
            let hosts: Vec<String> = rows::all(books.connection, sql, [], |row| row.get(0))?;
            for host in hosts {
                let (host, system) = books.machine(&host)?;
                violations::follow_whole(books, LevelKind::Host, &host, CAUSE, now_ms)?;
                violations::follow_whole(books, LevelKind::System, &system, CAUSE, now_ms)?;
            }
            Ok(())
        }
    }
}

/// Holds a team's limit and pool against what is charged now.
pub(crate) fn follow_team(
    books: &mut Books<'_>,
    team: TeamId,
    cause: &str,
    now_ms: i64,
) -> Result<()> {
    let team = books.team(team)?;
    let place = books.team_place(&team)?;
    violations::follow_team(books, &place, cause, now_ms)
}
