//! What happened, whatever the limits say: recorded, charged, and held against them afterwards.
//!
//! What the engine shows of a container is not waited for until it is on disk: lost with the machine's
//! power, it is seen again at the next start. A violation that it opened is then another one, and people
//! may be told of it twice.

use plimsoll_core::dimension::Amounts;
use plimsoll_core::entity::ReservationId;
use plimsoll_core::reservation::State;
use rusqlite::params;

use super::{conflict, find, follow, insert, lessened, note, record, share};
use crate::Store;
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::{NewReservation, Reservation};

impl Store {
    /// Ends a reservation that never got a container. Does nothing to one that is bound or ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn void(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            if r.state != State::Pending {
                return Ok(r);
            }
            record(books, &r, State::Void, &r.claim, "voided", now_ms)
        });
        self.charge(step).await
    }

    /// Fact: the container is gone. Does nothing twice.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn release(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            if r.state.is_final() {
                return Ok(r);
            }
            record(books, &r, State::Released, &r.claim, "released", now_ms)
        });
        self.see(step).await
    }

    /// Fact: the container will not run by itself. Does nothing twice, nor to one that has no
    /// container yet.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stopped(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            if r.state != State::Active {
                return Ok(r);
            }
            record(books, &r, State::Stopped, &r.claim, "stopped", now_ms)
        });
        self.see(step).await
    }

    /// Fact: the container runs, or the engine will start it by itself.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn running(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            if r.state != State::Stopped {
                return Ok(r);
            }
            record(
                books,
                &r,
                State::Active,
                &r.claim,
                "started by the engine",
                now_ms,
            )
        });
        self.see(step).await
    }

    /// Fact: the container's claim is this, whatever was asked.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resized(
        &self,
        id: ReservationId,
        amounts: Amounts,
        now_ms: i64,
    ) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            if r.state.is_final() || r.claim == amounts {
                return Ok(r);
            }
            record(
                books,
                &r,
                r.state,
                &amounts,
                "changed behind Plimsoll's back",
                now_ms,
            )
        });
        self.see(step).await
    }

    /// Fact: a container stands beside the one whose place it takes. What both need is charged for
    /// both: what running takes, or all of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn beside(&self, id: ReservationId, all: bool, now_ms: i64) -> Result<Reservation> {
        let step = self.step(id, move |books, r| {
            let left = |amounts: Amounts| match all {
                true => Amounts::ZERO,
                false => amounts.without_runtime(),
            };
            let alone = share(books, &r, lessened(r.shared, left))?;
            if alone != r {
                follow(books, &alone, "beside the one it replaces", now_ms)?;
            }
            Ok(alone)
        });
        self.charge(step).await
    }

    /// Fact: a container came to be for this reservation, seen by the reconciler. Charged even if the
    /// reservation was voided meanwhile.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it is bound to another container, or the container to another
    /// reservation.
    pub async fn bound(
        &self,
        id: ReservationId,
        container: String,
        state: State,
        now_ms: i64,
    ) -> Result<Reservation> {
        let step = self.step(id, move |books, mut r| {
            if r.container
                .as_ref()
                .is_some_and(|bound| *bound != container)
            {
                return Err(StoreError::Conflict(format!(
                    "reservation {id} is bound already"
                )));
            }
            if r.state.is_final() && name_is_taken(books, &r)? {
                // The name went to another container meanwhile; a fact is recorded without it.
                r.container_name = None;
                books
                    .connection
                    .prepare_cached("UPDATE reservation SET container_name = NULL WHERE id = ?1")?
                    .execute([id.to_string()])?;
            }
            let r = record(
                books,
                &r,
                state,
                &r.claim,
                "a container created late",
                now_ms,
            )?;
            books
                .connection
                .prepare_cached(
                    "UPDATE reservation SET container_id = ?2, expires_at = NULL WHERE id = ?1",
                )?
                .execute(params![id.to_string(), container])
                .map_err(|e| conflict(e, r.kind, id, None, Some(&container)))?;
            Ok(Reservation {
                container: Some(container),
                expires_ms: None,
                ..r
            })
        });
        self.see(step).await
    }

    /// Fact: a container that came past Plimsoll is taken under a user's charge.
    ///
    /// # Errors
    /// `NotFound` for an unknown user, `Conflict` when the container is charged already or its owner
    /// has a live one of that name.
    pub async fn adopt(
        &self,
        new: NewReservation,
        container: String,
        state: State,
    ) -> Result<Reservation> {
        let step = self.step_on(new.claim.host.clone(), move |books| {
            let user = books.user(new.claim.user)?;
            let team = books.team_of(&user, new.claim.team)?;
            insert(books, &new, team.as_ref(), state, None, Some(&container))?;
            let charge = state.charge(&new.claim.amounts);
            let host = new.claim.host.clone();
            books.charge(user.id, team.map(|t| t.id), &host, &Amounts::ZERO, &charge)?;
            let r = find(books, new.id)?;
            follow(books, &r, "adopted", new.now_ms)?;
            Ok(r)
        });
        self.charge(step).await
    }

    /// A volume goes once this container's reservation has ended; with `None` it stays.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn goes_with(
        &self,
        volume: ReservationId,
        container: Option<ReservationId>,
    ) -> Result<()> {
        let step = self.step(volume, move |books, _| {
            let container = container.map(|c| c.to_string());
            books
                .connection
                .prepare_cached("UPDATE reservation SET goes_with = ?2 WHERE id = ?1")?
                .execute(params![volume.to_string(), container])?;
            Ok(())
        });
        self.charge(step).await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when the owner has a live container of that name.
    pub async fn rename(&self, id: ReservationId, name: String) -> Result<()> {
        let step = self.step(id, move |books, r| {
            books
                .connection
                .prepare_cached("UPDATE reservation SET container_name = ?2 WHERE id = ?1")?
                .execute(params![id.to_string(), name])
                .map_err(|e| conflict(e, r.kind, id, Some(&name), None))?;
            note(books, id, r.user, r.team);
            Ok(())
        });
        self.charge(step).await
    }
}

/// Whether another live container of the owner has the name of this reservation.
fn name_is_taken(books: &Books<'_>, r: &Reservation) -> Result<bool> {
    let taken = books
        .connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM reservation
             WHERE user_id = ?1 AND container_name = ?2 AND kind = ?4 AND id <> ?3
               AND state <> 'released' AND state <> 'void')",
        )?
        .query_row(
            params![
                r.user.to_string(),
                r.container_name,
                r.id.to_string(),
                r.kind.name()
            ],
            |row| row.get(0),
        )?;
    Ok(taken)
}
