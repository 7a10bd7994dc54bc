//! Reservations, found by what people and the engine call them.

use plimsoll_core::entity::{ReservationId, UserId};
use rusqlite::{OptionalExtension, params_from_iter};

use super::{find, sharer};
use crate::error::Result;
use crate::records::{ObjectKind, Reservation, ReservationFilter};
use crate::{Store, rows};

impl Store {
    /// A reservation.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn reservation(&self, id: ReservationId) -> Result<Reservation> {
        self.read(|books| find(books, id))
    }

    /// The live reservation that takes this one's place.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn replacement_of(&self, id: ReservationId) -> Result<Option<Reservation>> {
        self.read(|books| sharer(books, id))
    }

    /// The live reservation of a volume or image, by the engine's name for it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_engine_name(
        &self,
        host: &str,
        kind: ObjectKind,
        name: &str,
    ) -> Result<Option<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.host = ?1 AND r.kind = ?2 AND r.container_id = ?3
                 AND (r.kind = 'volume' OR r.kind = 'image') AND {}",
                rows::RESERVATION,
                rows::LIVE
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement
                .query_row([host, kind.name(), name], rows::reservation)
                .optional()?)
        })
    }

    /// Live volumes whose container has ended: they go, too.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn volumes_to_go(&self, host: &str) -> Result<Vec<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} LEFT JOIN reservation c ON c.id = r.goes_with
                 WHERE r.goes_with IS NOT NULL AND r.host = ?1 AND {}
                   AND (c.id IS NULL OR c.state = 'released' OR c.state = 'void')",
                rows::RESERVATION,
                rows::LIVE
            );
            rows::all(books.connection, &sql, [host], rows::reservation)
        })
    }

    /// The reservation a container or network is charged by.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_container(&self, host: &str, container: &str) -> Result<Option<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.host = ?1 AND r.container_id = ?2
                 AND r.kind <> 'volume' AND r.kind <> 'image'",
                rows::RESERVATION
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement
                .query_row([host, container], rows::reservation)
                .optional()?)
        })
    }

    /// The live reservation of this kind that a user calls by this name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_name(
        &self,
        user: UserId,
        kind: ObjectKind,
        name: &str,
    ) -> Result<Option<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.user_id = ?1 AND r.container_name = ?2 AND r.kind = ?3 AND {}",
                rows::RESERVATION,
                rows::LIVE
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement
                .query_row(
                    [user.to_string().as_str(), name, kind.name()],
                    rows::reservation,
                )
                .optional()?)
        })
    }

    /// Live reservations of `user` with an object of this kind whose id starts with `prefix`; at most
    /// two, which is enough to know that a prefix is ambiguous.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn by_id_prefix(
        &self,
        user: UserId,
        kind: ObjectKind,
        prefix: &str,
    ) -> Result<Vec<Reservation>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE r.user_id = ?1 AND substr(r.container_id, 1, length(?2)) = ?2
                 AND r.kind = ?3 AND {} LIMIT 2",
                rows::RESERVATION,
                rows::LIVE
            );
            rows::all(
                books.connection,
                &sql,
                [user.to_string().as_str(), prefix, kind.name()],
                rows::reservation,
            )
        })
    }

    /// Every live reservation, of any kind.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn live_reservations(&self) -> Result<Vec<Reservation>> {
        self.read_list(|books| {
            let sql = format!("{} WHERE {}", rows::RESERVATION, rows::LIVE);
            rows::all(books.connection, &sql, [], rows::reservation)
        })
        .await
    }

    /// Reservations of one kind, newest first.
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
            sql.push_str(" AND r.kind = ?");
            let mut by: Vec<String> = vec![filter.kind.name().to_owned()];
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
