//! What limits that only watch would have refused.

use std::collections::BTreeMap;

use plimsoll_core::Dimension;
use plimsoll_core::admit::{LevelKind, Violation};
use rusqlite::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::records::WouldRefuse;
use crate::{Store, rows};

/// By whom, at which limit.
type Key = (String, Option<String>, LevelKind, Uuid, Dimension);

struct Watched {
    at_ms: i64,
    user: String,
    team: Option<String>,
    violations: Vec<Violation>,
}

fn watched(row: &Row<'_>) -> rusqlite::Result<Watched> {
    Ok(Watched {
        at_ms: row.get(0)?,
        user: row.get(1)?,
        team: row.get(2)?,
        violations: rows::parse(row, 3)?,
    })
}

impl Store {
    /// What was admitted since and would have been refused, by who asked and whose limit it was; what
    /// happened most often first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn would_refuse(&self, since_ms: i64) -> Result<Vec<WouldRefuse>> {
        self.read_list(move |books| {
            let sql = "SELECT d.at, coalesce(u.name, d.user_id), t.name, d.violations
                       FROM decision d LEFT JOIN user u ON u.id = d.user_id
                       LEFT JOIN team t ON t.id = d.team_id
                       WHERE d.allowed = 1 AND d.violations <> '[]' AND d.at >= ?1 ORDER BY d.at";
            let mut found: BTreeMap<Key, WouldRefuse> = BTreeMap::new();
            for of in rows::all(books.connection, sql, [since_ms], watched)? {
                for v in of.violations.into_iter().filter(|v| !v.enforced) {
                    let (user, team) = (of.user.clone(), of.team.clone());
                    let key = (user.clone(), team.clone(), v.level, v.entity, v.dimension);
                    let sum = found.entry(key).or_insert_with(|| WouldRefuse {
                        user,
                        team,
                        level: v.level,
                        name: v.name,
                        dimension: v.dimension,
                        times: 0,
                        short_by: 0,
                        first_ms: of.at_ms,
                        last_ms: of.at_ms,
                    });
                    sum.times += 1;
                    sum.short_by = sum.short_by.max(v.short_by);
                    sum.last_ms = of.at_ms;
                }
            }
            let mut found: Vec<_> = found.into_values().collect();
            found.sort_by_key(|sum| std::cmp::Reverse(sum.times));
            Ok(found)
        })
        .await
    }
}
