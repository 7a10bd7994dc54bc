//! Whether the ledger is sound: its file, and every balance against the reservations behind it.

use std::collections::BTreeMap;

use plimsoll_core::dimension::Amounts;

use crate::books::{Books, key};
use crate::error::Result;
use crate::{Store, people, quotas, rows, shares};

impl Store {
    /// SQLite's own check of the file, and of every balance against the reservations behind it.
    /// Returns the differences in words; an empty list is a sound ledger.
    ///
    /// # Errors
    /// When the ledger cannot be read at all.
    pub async fn check(&self) -> Result<Vec<String>> {
        self.read_list(|books| {
            let mut found: Vec<String> = rows::all(
                books.connection,
                "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
                [],
                |row| row.get(0),
            )?;
            found.extend(balance_differences(books)?);
            found.extend(shares::differences(books)?);
            Ok(found)
        })
        .await
    }
}

/// Every balance against the reservations it is made of.
fn balance_differences(books: &mut Books<'_>) -> Result<Vec<String>> {
    let mut expected: BTreeMap<String, Amounts> = BTreeMap::new();
    let live = format!("{} WHERE {}", rows::RESERVATION, rows::LIVE);
    for r in rows::all(books.connection, &live, [], rows::reservation)? {
        let charge = r.charge();
        let mut keys = vec![key::SYSTEM.to_owned(), key::host(&r.host)];
        match r.team {
            Some(team) => keys.extend([key::team(team), key::member(team, r.user)]),
            None => keys.push(key::user(r.user)),
        }
        for key in keys {
            let sum = expected.entry(key).or_default();
            *sum = sum.checked_add(&charge).unwrap_or(*sum);
        }
    }
    let sql = "SELECT key, reserved FROM account";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, rows::parse(row, 1)?));
    let mut found = Vec::new();
    for (key, reserved) in rows::all::<(String, Amounts)>(books.connection, sql, [], read)? {
        let sum = expected.remove(&key).unwrap_or_default();
        if sum != reserved {
            found.push(format!(
                "{key} holds {reserved:?}, its reservations sum to {sum:?}"
            ));
        }
    }
    for (key, sum) in expected.into_iter().filter(|(_, sum)| !sum.is_zero()) {
        found.push(format!(
            "{key} has no balance, its reservations sum to {sum:?}"
        ));
    }
    for team in rows::all(books.connection, rows::TEAM, [], rows::team)? {
        let stored = books.account(&key::team(team.id))?.overflow;
        let permille = books.quota(team.id.0)?.overcommit_permille;
        let sum = quotas::member_overflow(books, team.id, permille)?;
        let members = people::members(books.connection, Some(team.id), None)?;
        let shape = quotas::shape(team.mode, &books.quota(team.id.0)?, &members);
        if (shape.limit, shape.pool) != (team.total, team.pool) {
            found.push(format!(
                "the limit and pool of team {} are not what its quota and members make",
                team.name
            ));
        }
        if stored != sum {
            found.push(format!(
                "team {} has overflow {stored:?}, its members {sum:?}",
                team.name
            ));
        }
    }
    Ok(found)
}
