//! Bringing a ledger to this version's schema, forward only.

use std::path::Path;

use plimsoll_core::dimension::{Dimension, Unit};
use plimsoll_core::entity::SYSTEM_ID;
use plimsoll_core::quota::{built_in_classes, system_limits};
use rusqlite::{Connection, params};

use crate::error::{Result, StoreError};
use crate::rows::json;

/// Number, name and text of every migration, in order.
const MIGRATIONS: &[(u32, &str, &str)] = &[
    (
        1,
        "ledger",
        include_str!("migrations/sqlite_001_ledger.sql"),
    ),
    (
        2,
        "images",
        include_str!("migrations/sqlite_002_images.sql"),
    ),
    (
        3,
        "shares",
        include_str!("migrations/sqlite_003_shares.sql"),
    ),
    (
        4,
        "replacements",
        include_str!("migrations/sqlite_004_replacements.sql"),
    ),
    (
        5,
        "notices",
        include_str!("migrations/sqlite_005_notices.sql"),
    ),
    (
        6,
        "violations",
        include_str!("migrations/sqlite_006_violations.sql"),
    ),
    (
        7,
        "ladder",
        include_str!("migrations/sqlite_007_ladder.sql"),
    ),
    (
        ALERTS,
        "alerts",
        include_str!("migrations/sqlite_008_alerts.sql"),
    ),
];

/// Brings the rules of alerts.
const ALERTS: u32 = 8;

/// The schema this version writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

pub(crate) fn migrate(connection: &Connection, path: &Path, now_ms: i64) -> Result<()> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaTooNew {
            found,
            known: SCHEMA_VERSION,
        });
    }
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    if found > 0 {
        let copy = path.with_extension(format!("schema-{found}.db"));
        if !copy.exists() {
            // Under another name until it is whole: a crash must not leave half a copy behind.
            let partial = path.with_extension("schema-copy.tmp");
            let io = |source| StoreError::Io {
                path: partial.display().to_string(),
                source,
            };
            if partial.exists() {
                std::fs::remove_file(&partial).map_err(io)?;
            }
            connection.execute("VACUUM INTO ?1", [partial.display().to_string()])?;
            std::fs::rename(&partial, &copy).map_err(io)?;
        }
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let migrated = apply(connection, found, now_ms);
    connection.execute_batch(if migrated.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    })?;
    migrated
}

fn apply(connection: &Connection, found: u32, now_ms: i64) -> Result<()> {
    for (number, name, sql) in MIGRATIONS.iter().filter(|(number, ..)| *number > found) {
        tracing::info!(number, name, "migrating the ledger");
        connection.execute_batch(sql)?;
        connection.pragma_update(None, "user_version", number)?;
    }
    if found == 0 {
        seed(connection, now_ms)?;
    }
    if found < ALERTS {
        crate::alerts::seed(connection)?;
    }
    let mut dimension = connection.prepare(
        "INSERT INTO dimension (idx, name, unit) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    for d in Dimension::ALL {
        let unit = match d.unit() {
            Unit::MilliCpu => "millicore",
            Unit::Bytes => "byte",
            Unit::Count => "count",
            Unit::Mbps => "Mbit/s",
            Unit::BasisPoints => "0.01 %",
            Unit::SecondsAsHours | Unit::SecondsAsMinutes => "second",
            Unit::MilliHours => "0.001 h",
        };
        dimension.execute(params![d.index() as i64, d.name(), unit])?;
    }
    Ok(())
}

/// The classes and the system's quota of a new ledger.
fn seed(connection: &Connection, now_ms: i64) -> Result<()> {
    for class in built_in_classes() {
        connection.execute(
            "INSERT INTO quota_class (name, limits, defaults, ladder) VALUES (?1, ?2, ?3, ?4)",
            params![
                class.name,
                json(&class.limits),
                json(&class.defaults),
                json(&class.ladder)
            ],
        )?;
    }
    connection.execute(
        "INSERT INTO quota (entity_id, kind, class, limits, created_at, updated_at)
         VALUES (?1, 'system', 'system', ?2, ?3, ?3)",
        params![SYSTEM_ID.to_string(), json(&system_limits()), now_ms],
    )?;
    Ok(())
}
