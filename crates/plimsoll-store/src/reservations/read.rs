//! Reservations, found by what people and the engine call them.

use plimsoll_core::entity::{ReservationId, UserId};
use rusqlite::{OptionalExtension, params_from_iter};

use super::find;
use crate::error::Result;
use crate::records::{Reservation, ReservationFilter};
use crate::{Store, rows};

impl Store {
    /// A reservation.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn reservation(&self, id: ReservationId) -> Result<Reservation> {
        self.read(|books| find(books, id))
    }

    /// The reservation a container is charged by.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_container(&self, host: &str, container: &str) -> Result<Option<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.host = ?1 AND r.container_id = ?2",
                rows::RESERVATION
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement
                .query_row([host, container], rows::reservation)
                .optional()?)
        })
    }

    /// The live reservation a user calls by this name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_name(&self, user: UserId, name: &str) -> Result<Option<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.user_id = ?1 AND r.container_name = ?2 AND {}",
                rows::RESERVATION,
                rows::LIVE
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement
                .query_row([user.to_string().as_str(), name], rows::reservation)
                .optional()?)
        })
    }

    /// Live reservations of `user` with a container whose id starts with `prefix`; at most two, which
    /// is enough to know that a prefix is ambiguous.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_container_prefix(&self, user: UserId, prefix: &str) -> Result<Vec<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.user_id = ?1 AND substr(r.container_id, 1, length(?2)) = ?2
                 AND {} LIMIT 2",
                rows::RESERVATION,
                rows::LIVE
            );
            rows::all(
                books.connection,
                &sql,
                [user.to_string().as_str(), prefix],
                rows::reservation,
            )
        })
    }

    /// Reservations, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn reservations(&self, filter: ReservationFilter) -> Result<Vec<Reservation>> {
        self.read_list(move |books| {
            let live = !filter.states.iter().any(|s| s.is_final());
            let mut sql = format!("{} WHERE ", rows::RESERVATION);
            sql.push_str(if live { rows::LIVE } else { "TRUE" });
            if !filter.states.is_empty() {
                let names = filter.states.iter().map(|s| format!("'{}'", s.name()));
                let names = names.collect::<Vec<_>>().join(", ");
                sql.push_str(&format!(" AND r.state IN ({names})"));
            }
            let mut by: Vec<String> = Vec::new();
            let columns = [
                ("r.user_id", filter.user.map(|u| u.to_string())),
                ("r.team_id", filter.team.map(|t| t.to_string())),
                ("r.project", filter.project),
                ("r.host", filter.host),
            ];
            for (column, value) in columns {
                if let Some(value) = value {
                    sql.push_str(&format!(" AND {column} = ?"));
                    by.push(value);
                }
            }
            // Sorting the few that live beats walking all that ever were in order; the plus says so.
            sql.push_str(if live {
                " ORDER BY +r.id DESC"
            } else {
                " ORDER BY r.id DESC"
            });
            let mut statement = books.connection.prepare_cached(&sql)?;
            let found = statement.query_map(params_from_iter(by), rows::reservation)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
