//! Rows to records. The only place that knows the column order of a query.

use plimsoll_core::Dimension;
use plimsoll_core::entity::{
    CertId, DecisionId, EntityKind, MemberRole, ProjectId, ReservationId, TeamId, TokenId, UserId,
};
use plimsoll_core::quota::{Capacity, Mode, TeamMode};
use plimsoll_core::reservation::State;
use plimsoll_core::units::{Bytes, MilliCpu};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{Result, StoreError};
use crate::records::{
    AuditEntry, Cert, Clamp, Decision, Host, Member, ObjectKind, Origin, Project, Quota,
    Reservation, Role, Shared, Team, Token, User, ViolationKind, ViolationRecord,
};

pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("ledger values have no maps with odd keys")
}

fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

pub(crate) fn parse<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|e| unreadable(column, e))
}

pub(crate) fn opt_parse<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| serde_json::from_str(text).map_err(|e| unreadable(column, e)))
        .transpose()
}

pub(crate) fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|e: uuid::Error| unreadable(column, e))
}

pub(crate) fn opt_uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    row.get_ref(column)?
        .as_str_or_null()?
        .map(|text| text.parse().map_err(|e: uuid::Error| unreadable(column, e)))
        .transpose()
}

pub(crate) fn named<T>(
    row: &Row<'_>,
    column: usize,
    f: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    f(text).ok_or_else(|| unreadable(column, format!("unknown name {text}")))
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

pub(crate) const USER: &str = "SELECT id, name, email, os_uid, role, default_team, suspended, \
                               draining, created_at, port_slot, mail FROM user";

pub(crate) fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId(uuid(row, 0)?),
        name: row.get(1)?,
        email: row.get(2)?,
        os_uid: row.get(3)?,
        role: named(row, 4, Role::from_name)?,
        default_team: opt_uuid(row, 5)?.map(TeamId),
        suspended: row.get(6)?,
        draining: row.get(7)?,
        created_ms: row.get(8)?,
        port_slot: row.get(9)?,
        mail: row.get(10)?,
    })
}

pub(crate) const TEAM: &str =
    "SELECT id, name, mode, total, pool, suspended, draining, created_at FROM team";

pub(crate) fn team(row: &Row<'_>) -> rusqlite::Result<Team> {
    Ok(Team {
        id: TeamId(uuid(row, 0)?),
        name: row.get(1)?,
        mode: named(row, 2, TeamMode::from_name)?,
        total: parse(row, 3)?,
        pool: parse(row, 4)?,
        suspended: row.get(5)?,
        draining: row.get(6)?,
        created_ms: row.get(7)?,
    })
}

pub(crate) const MEMBER: &str = "SELECT m.team_id, t.name, m.user_id, u.name, m.role, m.allotment, m.borrow, \
     coalesce(a.reserved, '[]'), m.granted FROM member m JOIN team t ON t.id = m.team_id \
     JOIN user u ON u.id = m.user_id \
     LEFT JOIN account a ON a.key = 'member:' || m.team_id || ':' || m.user_id";

pub(crate) fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        team: TeamId(uuid(row, 0)?),
        team_name: row.get(1)?,
        user: UserId(uuid(row, 2)?),
        user_name: row.get(3)?,
        role: named(row, 4, member_role)?,
        allotment: parse(row, 5)?,
        borrow: parse(row, 6)?,
        reserved: parse(row, 7)?,
        granted: parse(row, 8)?,
    })
}

fn member_role(name: &str) -> Option<MemberRole> {
    [MemberRole::Lead, MemberRole::Member]
        .into_iter()
        .find(|r| r.name() == name)
}

pub(crate) const PROJECT: &str = "SELECT id, name, team_id, user_id, created_at FROM project";

pub(crate) fn project(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: ProjectId(uuid(row, 0)?),
        name: row.get(1)?,
        team: opt_uuid(row, 2)?.map(TeamId),
        user: opt_uuid(row, 3)?.map(UserId),
        created_ms: row.get(4)?,
    })
}

pub(crate) const QUOTA: &str = "SELECT entity_id, kind, class, limits, overcommit, mode, version, \
                                created_at, updated_at, granted, ladder, time_zone FROM quota";

fn quota_row(row: &Row<'_>) -> rusqlite::Result<Quota> {
    Ok(Quota {
        entity: uuid(row, 0)?,
        kind: named(row, 1, |name| {
            [EntityKind::System, EntityKind::Team, EntityKind::User]
                .into_iter()
                .find(|k| k.name() == name)
        })?,
        class: row.get(2)?,
        limits: parse(row, 3)?,
        overcommit_permille: row.get(4)?,
        mode: named(row, 5, Mode::from_name)?,
        version: unsigned(row, 6)?,
        created_ms: row.get(7)?,
        updated_ms: row.get(8)?,
        granted: parse(row, 9)?,
        ladder: opt_parse(row, 10)?,
        time_zone: row.get(11)?,
    })
}

pub(crate) const RESERVATION: &str = "SELECT r.id, r.host, r.user_id, coalesce(u.name, r.user_id), r.team_id, t.name, r.project, \
     r.state, r.claim, r.origin, r.container_id, r.container_name, r.image, r.expires_at, \
     r.created_at, r.changed_at, r.started_at, r.decision_id, r.kind, \
     r.goes_with, r.host_mounts, r.clamped_from, r.clamped_to, r.replaces, r.shared \
     FROM reservation r LEFT JOIN user u ON u.id = r.user_id LEFT JOIN team t ON t.id = r.team_id";

/// The reservations that charge something or may do so again: the words of the partial indexes.
/// `r` is the reservation.
pub(crate) const LIVE: &str = "r.state <> 'released' AND r.state <> 'void'";

pub(crate) fn reservation(row: &Row<'_>) -> rusqlite::Result<Reservation> {
    Ok(Reservation {
        id: ReservationId(uuid(row, 0)?),
        host: row.get(1)?,
        user: UserId(uuid(row, 2)?),
        user_name: row.get(3)?,
        team: opt_uuid(row, 4)?.map(TeamId),
        team_name: row.get(5)?,
        project: row.get(6)?,
        state: named(row, 7, State::from_name)?,
        claim: parse(row, 8)?,
        origin: named(row, 9, Origin::from_name)?,
        container: row.get(10)?,
        container_name: row.get(11)?,
        image: row.get(12)?,
        expires_ms: row.get(13)?,
        created_ms: row.get(14)?,
        changed_ms: row.get(15)?,
        started_ms: row.get(16)?,
        decision: opt_uuid(row, 17)?.map(DecisionId),
        kind: named(row, 18, ObjectKind::from_name)?,
        goes_with: opt_uuid(row, 19)?.map(ReservationId),
        host_mounts: opt_parse(row, 20)?.unwrap_or_default(),
        clamp: match (row.get(21)?, row.get(22)?) {
            (Some(from), Some(to)) => Some(Clamp {
                from: millicores(from),
                to: millicores(to),
            }),
            _ => None,
        },
        shared: match opt_uuid(row, 23)? {
            Some(with) => Some(Shared {
                with: ReservationId(with),
                amounts: parse(row, 24)?,
            }),
            None => None,
        },
    })
}

pub(crate) fn millicores(stored: i64) -> MilliCpu {
    MilliCpu(stored.unsigned_abs())
}

pub(crate) const DECISION: &str = "SELECT d.id, d.at, d.action, d.user_id, coalesce(u.name, d.user_id), d.team_id, t.name, \
     d.project, d.host, d.requested, d.allowed, d.violations, d.remedies, d.message, \
     d.reservation_id \
     FROM decision d LEFT JOIN user u ON u.id = d.user_id LEFT JOIN team t ON t.id = d.team_id";

pub(crate) fn decision(row: &Row<'_>) -> rusqlite::Result<Decision> {
    Ok(Decision {
        id: DecisionId(uuid(row, 0)?),
        at_ms: row.get(1)?,
        action: row.get(2)?,
        user: UserId(uuid(row, 3)?),
        user_name: row.get(4)?,
        team: opt_uuid(row, 5)?.map(TeamId),
        team_name: row.get(6)?,
        project: row.get(7)?,
        host: row.get(8)?,
        requested: parse(row, 9)?,
        allowed: row.get(10)?,
        violations: parse(row, 11)?,
        remedies: parse(row, 12)?,
        message: row.get(13)?,
        reservation: opt_uuid(row, 14)?.map(ReservationId),
    })
}

pub(crate) const VIOLATION: &str = "SELECT id, kind, level, entity_id, name, dimension, most, current, peak, cause, opened_at, \
     updated_at, closed_at, behind, calm_at FROM violation";

pub(crate) fn violation(row: &Row<'_>) -> rusqlite::Result<ViolationRecord> {
    Ok(ViolationRecord {
        id: uuid(row, 0)?,
        kind: named(row, 1, ViolationKind::from_name)?,
        level: row.get(2)?,
        entity: uuid(row, 3)?,
        name: row.get(4)?,
        dimension: named(row, 5, Dimension::from_name)?,
        limit: unsigned(row, 6)?,
        current: unsigned(row, 7)?,
        peak: unsigned(row, 8)?,
        cause: row.get(9)?,
        opened_ms: row.get(10)?,
        updated_ms: row.get(11)?,
        closed_ms: row.get(12)?,
        behind: parse(row, 13)?,
        calm_ms: row.get(14)?,
    })
}

pub(crate) const TOKEN: &str =
    "SELECT id, user_id, role, label, created_at, expires_at, revoked_at FROM token";

pub(crate) fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: TokenId(uuid(row, 0)?),
        user: opt_uuid(row, 1)?.map(UserId),
        role: named(row, 2, Role::from_name)?,
        label: row.get(3)?,
        created_ms: row.get(4)?,
        expires_ms: row.get(5)?,
        revoked_ms: row.get(6)?,
    })
}

pub(crate) const CERT: &str = "SELECT serial, user_id, issued_at, expires_at, revoked_at FROM cert";

pub(crate) fn cert(row: &Row<'_>) -> rusqlite::Result<Cert> {
    Ok(Cert {
        serial: CertId(uuid(row, 0)?),
        user: UserId(uuid(row, 1)?),
        issued_ms: row.get(2)?,
        expires_ms: row.get(3)?,
        revoked_ms: row.get(4)?,
    })
}

pub(crate) const AUDIT: &str =
    "SELECT seq, at, actor, action, entity_kind, entity, before, after, reason FROM audit";

pub(crate) fn audit(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get(0)?,
        at_ms: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        entity_kind: row.get(4)?,
        entity: row.get(5)?,
        before: row.get(6)?,
        after: row.get(7)?,
        reason: row.get(8)?,
    })
}

/// One row, or `NotFound` with what the caller asked for.
pub(crate) fn one<T>(
    connection: &Connection,
    sql: &str,
    by: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    what: &'static str,
    name: impl std::fmt::Display,
) -> Result<T> {
    connection
        .prepare_cached(sql)?
        .query_row(by, read)
        .optional()?
        .ok_or_else(|| StoreError::NotFound {
            what,
            name: name.to_string(),
        })
}

/// Every row.
pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    by: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(by, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn user_by_id(connection: &Connection, id: UserId) -> Result<User> {
    one(
        connection,
        &format!("{USER} WHERE id = ?1"),
        [id.to_string()],
        user,
        "user",
        id,
    )
}

pub(crate) fn team_by_id(connection: &Connection, id: TeamId) -> Result<Team> {
    one(
        connection,
        &format!("{TEAM} WHERE id = ?1"),
        [id.to_string()],
        team,
        "team",
        id,
    )
}

pub(crate) fn quota(connection: &Connection, entity: Uuid) -> Result<Quota> {
    let sql = format!("{QUOTA} WHERE entity_id = ?1");
    one(
        connection,
        &sql,
        [entity.to_string()],
        quota_row,
        "quota",
        entity,
    )
}

pub(crate) fn host(connection: &Connection, name: &str) -> Result<Host> {
    let read = |row: &Row<'_>| {
        Ok(Host {
            name: row.get(0)?,
            capacity: Capacity {
                cpu: MilliCpu(unsigned(row, 1)?),
                memory: Bytes(unsigned(row, 2)?),
            },
            epoch: unsigned(row, 3)?,
        })
    };
    let sql = "SELECT name, cpu, memory, epoch FROM host WHERE name = ?1";
    one(connection, sql, params![name], read, "host", name)
}
