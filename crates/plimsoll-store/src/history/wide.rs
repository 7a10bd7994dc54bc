//! The plain tables of hours and days: one row an entity, two columns a metric, so that a question over
//! all entities is one range scan, and anybody can read them with SQL.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use plimsoll_core::metric::{Kind, Metric};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::rollup::{Rollup, Sum};
use crate::error::Result;

/// The key of an entity's row for the hour or day of this number.
pub(crate) const fn key(number: i64, id: u32) -> i64 {
    number << 32 | id as i64
}

/// What [`key`] was made of.
pub(crate) const fn parts(key: i64) -> (i64, u32) {
    (key >> 32, key as u32)
}

/// A table of roll-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wide {
    Hour,
    Day,
}

impl Wide {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    fn upsert(self) -> &'static str {
        static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
            [Wide::Hour, Wide::Day].map(|wide| {
                let columns = Metric::ALL.map(|m| format!(", {0}, {0}_max", m.name()));
                let holders = ", ?".repeat(5 + Metric::ALL.len() * 2);
                format!(
                    "INSERT OR REPLACE INTO {} (key, hours, samples, watched_ms, partial{}) \
                     VALUES ({})",
                    wide.name(),
                    columns.concat(),
                    &holders[2..],
                )
            })
        });
        &SQL[self as usize]
    }

    fn select(self) -> &'static str {
        static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
            [Wide::Hour, Wide::Day].map(|wide| {
                let columns = Metric::ALL.map(|m| format!(", {0}, {0}_max", m.name()));
                format!(
                    "SELECT hours, samples, watched_ms, partial{} FROM {} WHERE key = ?1",
                    columns.concat(),
                    wide.name(),
                )
            })
        });
        &SQL[self as usize]
    }
}

/// Makes the tables, and the columns of metrics that are newer than they.
pub(crate) fn prepare(connection: &Connection) -> Result<()> {
    for wide in [Wide::Hour, Wide::Day] {
        let table = wide.name();
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} (
                 key        INTEGER PRIMARY KEY,
                 hours      INTEGER NOT NULL,
                 samples    INTEGER NOT NULL,
                 watched_ms INTEGER NOT NULL,
                 partial    TEXT
             ) STRICT"
        ))?;
        let found = |column: &str| {
            let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
            connection.query_row(sql, [table, column], |row| row.get::<_, bool>(0))
        };
        for metric in Metric::ALL {
            let name = metric.name();
            if !found(name)? {
                connection.execute_batch(&format!(
                    "ALTER TABLE {table} ADD COLUMN {name} INTEGER;
                     ALTER TABLE {table} ADD COLUMN {name}_max INTEGER;"
                ))?;
            }
        }
    }
    views(connection)
}

/// The type and id in an entity's key; the system has that of the ledger.
const ENTITY: &str = "CASE WHEN instr(e.key, ':') = 0 THEN e.key
                     ELSE substr(e.key, 1, instr(e.key, ':') - 1) END AS entity_type,
                CASE WHEN instr(e.key, ':') = 0 THEN '00000000-0000-0000-0000-000000000000'
                     ELSE substr(e.key, instr(e.key, ':') + 1) END AS entity_id";

/// The original design's tables as views, in its units: use by the hour, and now.
fn views(connection: &Connection) -> Result<()> {
    let mut selects = Vec::new();
    for metric in Metric::ALL {
        let (name, scale) = (metric.name(), metric.scale());
        let index = metric as u8;
        let value = match metric.kind() {
            Kind::Events => name.to_owned(),
            Kind::Gauge => format!(
                "coalesce({name} * 1000.0 / nullif(coalesce(partial ->> '$.\"{index}\"[1]', \
                 watched_ms), 0), {name}_max)"
            ),
        };
        let (shown, divisor) = seed_unit(metric).unwrap_or((name, scale));
        selects.push(format!(
            "SELECT key, '{shown}' AS metric_type, {value} / {divisor}.0 AS value, \
             {name}_max / {divisor}.0 AS peak, (key >> 32) * 3600000 AS at_ms \
             FROM hour WHERE {name} IS NOT NULL"
        ));
    }
    let mut sql = String::from("DROP VIEW IF EXISTS resource_usage_metrics;\n");
    let _ = write!(
        sql,
        "CREATE VIEW resource_usage_metrics AS
         SELECT m.key || ':' || m.metric_type AS id,
                {ENTITY},
                m.metric_type, m.value, m.peak,
                strftime('%Y-%m-%d %H:%M:%S', m.at_ms / 1000, 'unixepoch') AS timestamp
         FROM ({}) m JOIN entity e ON e.id = (m.key & 4294967295);",
        selects.join(" UNION ALL "),
    );
    let _ = write!(
        sql,
        "DROP VIEW IF EXISTS resource_usage_current;
         CREATE VIEW resource_usage_current AS
         SELECT {ENTITY}, c.cpu / 1000.0 AS current_cpu_cores,
                c.memory / 1073741824.0 AS current_memory_gb,
                c.storage / 1073741824.0 AS current_storage_gb,
                c.containers AS current_containers,
                c.network * 8 / 1000000 AS current_bandwidth_mbps,
                c.peak_cpu / 1000.0 AS peak_cpu_cores,
                c.peak_memory / 1073741824.0 AS peak_memory_gb, c.peak_containers,
                c.runtime_ms / 3600000.0 AS total_runtime_hours,
                c.cpu_ns / 3.6e12 AS total_cpu_core_hours,
                c.memory_gb_hours AS total_memory_gb_hours,
                strftime('%Y-%m-%d %H:%M:%S', c.at_ms / 1000, 'unixepoch') AS last_updated
         FROM current c JOIN entity e ON e.id = c.entity;"
    );
    connection.execute_batch(&sql)?;
    Ok(())
}

/// Metrics that the original design names, in its units.
fn seed_unit(metric: Metric) -> Option<(&'static str, u64)> {
    Some(match metric {
        Metric::Cpu => ("cpu_cores", 1000),
        Metric::Memory => ("memory_gb", 1 << 30),
        Metric::Storage => ("storage_gb", 1 << 30),
        _ => return None,
    })
}

/// A metric whose samples are not those of its row: how many there are, and the time they speak for.
type Partial = BTreeMap<u8, (u32, u64)>;

/// Writes a row. `hours` says, bit by bit, which hours of the day are in it.
pub(crate) fn save(
    connection: &Connection,
    wide: Wide,
    key: i64,
    hours: u32,
    rollup: &Rollup,
) -> Result<()> {
    let number = |number: u64| Value::Integer(number.cast_signed());
    let whole = |sum: &Sum| (sum.samples, sum.watched_ms) == (rollup.samples, rollup.watched_ms);
    let partial: Partial = rollup
        .sums
        .iter()
        .filter(|(_, sum)| !whole(sum))
        .map(|(metric, sum)| (*metric as u8, (sum.samples, sum.watched_ms)))
        .collect();
    let partial = match partial.is_empty() {
        true => Value::Null,
        false => Value::Text(serde_json::to_string(&partial)?),
    };
    let mut values = vec![
        Value::Integer(key),
        Value::Integer(i64::from(hours)),
        Value::Integer(i64::from(rollup.samples)),
        number(rollup.watched_ms),
        partial,
    ];
    for metric in Metric::ALL {
        match rollup.sums.get(&metric) {
            Some(sum) => values.extend([
                Value::Integer(sum.stored(metric.kind())),
                number(sum.max.min(i64::MAX.cast_unsigned())),
            ]),
            None => values.extend([Value::Null, Value::Null]),
        }
    }
    connection
        .prepare_cached(wide.upsert())?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// Reads a row, and which hours are in it.
pub(crate) fn load(connection: &Connection, wide: Wide, key: i64) -> Result<Option<(Rollup, u32)>> {
    let mut statement = connection.prepare_cached(wide.select())?;
    let found = statement.query_row([key], |row| {
        let mut rollup = Rollup {
            samples: row.get(1)?,
            watched_ms: row.get::<_, i64>(2)?.unsigned_abs(),
            sums: BTreeMap::new(),
        };
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            if let Some(sum) = sum(row, metric, 1, 4 + index * 2)? {
                rollup.sums.insert(metric, sum);
            }
        }
        Ok((rollup, row.get(0)?))
    });
    Ok(found.optional()?)
}

/// Reads a metric's sum; `head` is the column of `samples`, before `watched_ms` and `partial`.
pub(crate) fn sum(
    row: &Row<'_>,
    metric: Metric,
    head: usize,
    at: usize,
) -> rusqlite::Result<Option<Sum>> {
    let Some(total) = row.get::<_, Option<i64>>(at)? else {
        return Ok(None);
    };
    let mut sum = Sum {
        samples: row.get(head)?,
        watched_ms: row.get::<_, i64>(head + 1)?.unsigned_abs(),
        total: Sum::restored(metric.kind(), total),
        max: row.get::<_, i64>(at + 1)?.unsigned_abs(),
    };
    if let Some(text) = row.get_ref(head + 2)?.as_str_or_null()? {
        let partial: Partial = serde_json::from_str(text).unwrap_or_default();
        if let Some((samples, watched_ms)) = partial.get(&(metric as u8)) {
            sum.samples = *samples;
            sum.watched_ms = *watched_ms;
        }
    }
    Ok(Some(sum))
}
