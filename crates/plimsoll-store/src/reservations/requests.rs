//! What somebody asks for, and may be refused: reserve, commit, start, resize.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::ReservationId;
use plimsoll_core::reservation::State;
use plimsoll_core::units::AMOUNT_MAX;
use rusqlite::{OptionalExtension, params};

use super::judge::decide;
use super::{
    Deed, change, conflict, find, follow, insert, lessened, record, set_shared, share, sharer,
};
use crate::books::Books;
use crate::decisions::find as decision;
use crate::error::{Result, StoreError};
use crate::records::{
    Admission, Claim, Decision, NewReservation, Reservation, Shared, TeamChoice, charge,
};
use crate::writer::Manner;
use crate::{ADMISSION_DEADLINE, Store, violations};

impl Store {
    /// Charges a claim if it fits; the answer is durable when this returns.
    ///
    /// # Errors
    /// `Conflict` when the idempotency key was used for another request or the container name is
    /// taken, `Invalid` for an amount beyond [`AMOUNT_MAX`], `Busy` after [`ADMISSION_DEADLINE`]: the
    /// charge, should it still have happened, is taken back, and the key is free for another try.
    pub async fn reserve(&self, new: NewReservation) -> Result<Admission> {
        let (id, now_ms) = (new.id, new.now_ms);
        for d in Dimension::CHARGED {
            if new.claim.amounts.get(d) > AMOUNT_MAX {
                return Err(StoreError::Invalid(format!(
                    "a claim of {} of {d} is beyond what a ledger holds",
                    d.show(new.claim.amounts.get(d))
                )));
            }
        }
        let given_up = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&given_up);
        let decision = new.decision;
        let step = self.step_on(new.claim.host.clone(), move |books| {
            if late.load(Ordering::Acquire) {
                return Err(StoreError::Busy);
            }
            reserve(books, &new)
        });
        match tokio::time::timeout(ADMISSION_DEADLINE, self.decide(decision, step)).await {
            Ok(admission) => admission,
            Err(_) => {
                given_up.store(true, Ordering::Release);
                // Behind the reservation in the same queue, and before any other try of its caller.
                let give_up = self.step(id, move |books, r| {
                    if r.state == State::Pending {
                        record(books, &r, State::Void, &r.claim, "given up", now_ms)?;
                        books
                            .connection
                            .prepare_cached("UPDATE reservation SET idem_key = NULL WHERE id = ?1")?
                            .execute([id.to_string()])?;
                    }
                    Ok(())
                });
                if self.inner.writer.post(Manner::Shared, give_up).is_err() {
                    tracing::warn!(reservation = %id, "an abandoned charge stays until it expires");
                }
                Err(StoreError::Busy)
            }
        }
    }

    /// Binds a reservation to the container it was made for. A reservation that was voided meanwhile
    /// is admitted again; one that was released meanwhile stays released. Binding the same container
    /// twice does nothing.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it is bound to another container, or the container to another
    /// reservation.
    pub async fn commit(
        &self,
        id: ReservationId,
        container: String,
        deed: Deed,
    ) -> Result<Admission> {
        self.bind(Manner::Shared, id, container, deed).await
    }

    /// [`commit`](Self::commit) for a container of the engine's that carries its reservation's key: the
    /// reconciler would bind it again, so this does not wait for the disk.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_keyed(
        &self,
        id: ReservationId,
        container: String,
        deed: Deed,
    ) -> Result<Admission> {
        self.bind(Manner::Seen, id, container, deed).await
    }

    async fn bind(
        &self,
        manner: Manner,
        id: ReservationId,
        container: String,
        deed: Deed,
    ) -> Result<Admission> {
        let step = self.step(id, move |books, r| {
            if let Some(bound) = &r.container {
                if *bound != container {
                    return Err(StoreError::Conflict(format!(
                        "reservation {id} is bound to container {bound}"
                    )));
                }
                let admitted = r.decision.map(|d| decision(books, d)).transpose()?;
                if let (Some(decision), false) = (admitted, r.state == State::Void) {
                    return Ok(Admission {
                        decision,
                        reservation: Some(r),
                        replayed: true,
                    });
                }
            }
            // One that was adopted was never decided on: it is now, as what it charges already.
            let admitted = if r.state == State::Void || r.decision.is_none() {
                let before = r.charge();
                let after = match r.state {
                    State::Void => r.claim,
                    _ => before,
                };
                let claim = claim_of(&r, after);
                let (judged, decision) = decide(books, "commit", &claim, &before, id, deed)?;
                if !judged.verdict.allowed() {
                    return Ok(Admission::of(decision, None));
                }
                decision
            } else {
                let id = r.decision.ok_or_else(|| {
                    StoreError::Corrupt(format!("reservation {id} has no decision"))
                })?;
                decision(books, id)?
            };
            let state = match r.state {
                State::Void | State::Pending => State::Active,
                // Commit after destroy equals release.
                other => other,
            };
            let bound = change(books, &r, state, &r.claim, deed.now_ms)?;
            watch(books, &bound, &admitted, deed.now_ms)?;
            books
                .connection
                .prepare_cached(
                    "UPDATE reservation SET container_id = ?2, expires_at = NULL, decision_id = ?3
                     WHERE id = ?1",
                )?
                .execute(params![id.to_string(), container, admitted.id.to_string()])
                .map_err(|e| conflict(e, r.kind, id, None, Some(&container)))?;
            let reservation = Reservation {
                container: Some(container),
                expires_ms: None,
                decision: Some(admitted.id),
                ..bound
            };
            Ok(Admission::of(admitted, Some(reservation)))
        });
        self.decide_in(manner, deed.decision, step).await
    }

    /// Asks to start a stopped container: its runtime dimensions are admitted again. One that is
    /// charged already is admitted at once.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for one that has ended.
    pub async fn start(&self, id: ReservationId, deed: Deed) -> Result<Admission> {
        let step = self.step(id, move |books, r| {
            if r.state.is_final() {
                return Err(StoreError::Conflict(format!("reservation {id} has ended")));
            }
            if r.state != State::Stopped {
                let admitted = r.decision.map(|d| decision(books, d)).transpose()?;
                if let Some(decision) = admitted {
                    return Ok(Admission {
                        decision,
                        reservation: Some(r),
                        replayed: true,
                    });
                }
            }
            let after = charge(State::Active, &r.claim, r.shared.as_ref());
            let (before, claim) = (r.charge(), claim_of(&r, after));
            let (judged, decision) = decide(books, "start", &claim, &before, id, deed)?;
            if !judged.verdict.allowed() {
                return Ok(Admission::of(decision, None));
            }
            let started = change(books, &r, State::Active, &r.claim, deed.now_ms)?;
            watch(books, &started, &decision, deed.now_ms)?;
            Ok(Admission::of(decision, Some(started)))
        });
        self.decide(deed.decision, step).await
    }

    /// Asks that a container which took another one's place be charged for itself what running takes:
    /// both are about to run.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for one that has ended.
    pub async fn run_beside(&self, id: ReservationId, deed: Deed) -> Result<Admission> {
        let step = self.step(id, move |books, r| {
            if r.state.is_final() {
                return Err(StoreError::Conflict(format!("reservation {id} has ended")));
            }
            let shared = lessened(r.shared, Amounts::without_runtime);
            let (before, after) = (r.charge(), charge(r.state, &r.claim, shared.as_ref()));
            let claim = claim_of(&r, after);
            let (judged, decision) = decide(books, "start", &claim, &before, id, deed)?;
            if !judged.verdict.allowed() {
                return Ok(Admission::of(decision, None));
            }
            let alone = share(books, &r, shared)?;
            watch(books, &alone, &decision, deed.now_ms)?;
            Ok(Admission::of(decision, Some(alone)))
        });
        self.decide(deed.decision, step).await
    }

    /// Asks to change what a container claims. Only what grows is checked.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for one that has ended.
    pub async fn resize(
        &self,
        id: ReservationId,
        amounts: Amounts,
        deed: Deed,
    ) -> Result<Admission> {
        let step = self.step(id, move |books, r| {
            if r.state.is_final() {
                return Err(StoreError::Conflict(format!("reservation {id} has ended")));
            }
            let before = r.charge();
            let claim = claim_of(&r, r.charge_of(&amounts));
            let (judged, decision) = decide(books, "update", &claim, &before, id, deed)?;
            if !judged.verdict.allowed() {
                return Ok(Admission::of(decision, None));
            }
            let resized = change(books, &r, r.state, &amounts, deed.now_ms)?;
            if violations::any_open(books)? {
                follow(books, &r, "resized", deed.now_ms)?;
            }
            watch(books, &resized, &decision, deed.now_ms)?;
            Ok(Admission::of(decision, Some(resized)))
        });
        self.decide(deed.decision, step).await
    }
}

fn reserve(books: &mut Books<'_>, new: &NewReservation) -> Result<Admission> {
    if let Some(idempotency) = &new.idempotency {
        let known: Option<(String, String)> = books
            .connection
            .prepare_cached(
                "SELECT id, coalesce(fingerprint, '') FROM reservation
                 WHERE caller = ?1 AND idem_key = ?2",
            )?
            .query_row([&idempotency.caller, &idempotency.key], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        if let Some((id, fingerprint)) = known {
            if fingerprint != idempotency.fingerprint {
                return Err(StoreError::Conflict(format!(
                    "the idempotency key {} was used for another request",
                    idempotency.key
                )));
            }
            let id = id
                .parse()
                .map_err(|_| StoreError::Corrupt(format!("reservation id {id}")))?;
            let reservation = find(books, ReservationId(id))?;
            let admitted = reservation
                .decision
                .ok_or_else(|| StoreError::Corrupt(format!("reservation {id} has no decision")))?;
            let decision = decision(books, admitted)?;
            return Ok(Admission {
                decision,
                reservation: Some(reservation),
                replayed: true,
            });
        }
    }
    let deed = Deed {
        decision: new.decision,
        now_ms: new.now_ms,
    };
    let shared = shareable(books, new)?;
    let before = shared.map_or(Amounts::ZERO, |shared| shared.amounts);
    let (judged, decision) = decide(books, "create", &new.claim, &before, new.id, deed)?;
    if !judged.verdict.allowed() {
        return Ok(Admission::of(decision, None));
    }
    insert(
        books,
        new,
        judged.team.as_ref(),
        State::Pending,
        Some(decision.id),
        None,
    )?;
    set_shared(books, new.id, shared)?;
    let team = judged.team.as_ref().map(|t| t.id);
    books.charge(
        judged.user.id,
        team,
        &new.claim.host,
        &Amounts::ZERO,
        &charge(State::Pending, &new.claim.amounts, shared.as_ref()),
    )?;
    let reservation = Reservation {
        id: new.id,
        kind: new.kind,
        host: new.claim.host.clone(),
        user: judged.user.id,
        user_name: judged.user.name,
        team,
        team_name: judged.team.map(|t| t.name),
        project: new.claim.project.clone(),
        state: State::Pending,
        claim: new.claim.amounts,
        origin: new.origin,
        decision: Some(decision.id),
        container: None,
        container_name: new.container_name.clone(),
        image: new.image.clone(),
        clamp: None,
        expires_ms: Some(new.expires_ms),
        created_ms: new.now_ms,
        changed_ms: new.now_ms,
        started_ms: None,
        goes_with: new.goes_with,
        host_mounts: new.host_mounts.clone(),
        shared,
    };
    watch(books, &reservation, &decision, new.now_ms)?;
    Ok(Admission::of(decision, Some(reservation)))
}

/// What the container that this one replaces charges for it, too. It must be charged at the same place,
/// stand alone itself and be replaced by nothing else, or many would be charged as one.
fn shareable(books: &mut Books<'_>, new: &NewReservation) -> Result<Option<Shared>> {
    let Some(old) = new.replaces else {
        return Ok(None);
    };
    let old = find(books, old)?;
    let user = books.user(new.claim.user)?;
    let team = books.team_of(&user, new.claim.team)?.map(|t| t.id);
    let place = (new.kind, &new.claim.host, new.claim.user, team);
    let alone = old.shared.is_none() && sharer(books, old.id)?.is_none();
    if place != (old.kind, &old.host, old.user, old.team) || !alone {
        return Ok(None);
    }
    let amounts = old.charge().within(&new.claim.amounts);
    let with = old.id;
    Ok((!amounts.is_zero()).then_some(Shared { with, amounts }))
}

/// A level that only watches lets a claim past its limit, and says so.
fn watch(books: &mut Books<'_>, r: &Reservation, decision: &Decision, now_ms: i64) -> Result<()> {
    if decision.violations.is_empty() {
        return Ok(());
    }
    follow(books, r, "admitted by a level in shadow mode", now_ms)
}

fn claim_of(r: &Reservation, amounts: Amounts) -> Claim {
    Claim {
        user: r.user,
        team: r.team.map_or(TeamChoice::NoTeam, TeamChoice::Team),
        project: r.project.clone(),
        host: r.host.clone(),
        amounts,
    }
}
