//! Charges: reserve, commit, stop, start, resize, release, void.
//!
//! Two kinds of step, never mixed up. *Requests* are admitted: [`Store::reserve`], [`Store::start`],
//! [`Store::resize`] and a late [`Store::commit`] ask [`plimsoll_core::admit()`] and may be refused.
//! *Facts* are recorded: what the engine shows is charged even over a limit and opens a violation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use plimsoll_core::admit::{LevelKind, Path, Verdict, admit};
use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::{
    DecisionId, EntityKind, MemberRole, ReservationId, SYSTEM_ID, TeamId, UserId,
};
use plimsoll_core::quota::TeamShape;
use plimsoll_core::remedy::{Holding, Remedy, refusal, remedies};
use plimsoll_core::reservation::State;
use plimsoll_core::units::AMOUNT_MAX;
use rusqlite::{OptionalExtension, params, params_from_iter};

use crate::books::{Books, key};
use crate::error::{Result, StoreError};
use crate::people;
use crate::quotas;
use crate::records::{
    Admission, Claim, Decision, Evaluation, Host, HostLease, NewReservation, Reservation,
    ReservationFilter, Role, Team, TeamChoice, User,
};
use crate::{ADMISSION_DEADLINE, Store, rows, violations};

/// How a step on an existing reservation is known.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    /// Id for the decision, should one be needed.
    pub decision: DecisionId,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

struct Judged {
    user: User,
    team: Option<Team>,
    path: Path,
    verdict: Verdict,
}

/// Judges a claim that charges `before` already. Who is suspended or left the team makes no new
/// claims, but what grows nowhere always passes.
fn judge(books: &mut Books<'_>, claim: &Claim, before: &Amounts) -> Result<Judged> {
    let user = books.user(claim.user)?;
    let exists = !before.is_zero();
    if exists && before.checked_sub(&claim.amounts).is_some() {
        let team = match claim.team {
            TeamChoice::Team(team) => Some(books.team(team)?),
            TeamChoice::Default | TeamChoice::NoTeam => None,
        };
        let path = books.path(&user, team.as_ref(), &claim.host)?;
        return Ok(Judged {
            user,
            team,
            path,
            verdict: Verdict::default(),
        });
    }
    if user.suspended || user.draining {
        return Err(StoreError::Forbidden(format!(
            "{} is suspended and can make no new claims: ask an administrator",
            user.name
        )));
    }
    let team = books.team_of(&user, claim.team)?;
    if let Some(team) = &team
        && (team.suspended || team.draining)
    {
        return Err(StoreError::Forbidden(format!(
            "team {} is suspended and takes no new claims: ask an administrator",
            team.name
        )));
    }
    let path = books.path(&user, team.as_ref(), &claim.host)?;
    let verdict = admit(&path, before, &claim.amounts);
    Ok(Judged {
        user,
        team,
        path,
        verdict,
    })
}

/// Remedies and refusal text of a claim that was refused; nothing for one that was not. `itself` is
/// the reservation the claim is for: stopping it is no way to let it run.
fn advise(
    books: &mut Books<'_>,
    judged: &Judged,
    claim: &Claim,
    before: &Amounts,
    itself: Option<ReservationId>,
) -> Result<(Vec<Remedy>, Option<String>)> {
    let after = &claim.amounts;
    if judged.verdict.allowed() {
        return Ok((Vec::new(), None));
    }
    let db = books.connection;
    let team = judged.team.as_ref().map(|t| t.id);
    let sql = format!(
        "{} WHERE r.user_id = ?1 AND r.team_id IS ?2 AND r.container_name IS NOT NULL
         AND r.host = ?3 AND r.state <> 'pending' AND {}",
        rows::RESERVATION,
        rows::LIVE
    );
    let by = params![
        judged.user.id.to_string(),
        team.map(|t| t.to_string()),
        claim.host
    ];
    let theirs = rows::all(db, &sql, by, rows::reservation)?;
    let existing = theirs
        .iter()
        .find(|r| Some(r.id) == itself && r.container.is_some())
        .and_then(|r| r.container_name.clone());
    let holdings: Vec<Holding> = theirs
        .into_iter()
        .filter(|r| Some(r.id) != itself)
        .map(|r| Holding {
            name: r.container_name.unwrap_or_default(),
            claim: r.claim,
            state: r.state,
        })
        .collect();
    let mut askable = Vec::new();
    if let Some(team) = team {
        let leads = people::members(db, Some(team), None)?;
        let leads = leads
            .into_iter()
            .filter(|m| m.role == MemberRole::Lead && m.user != judged.user.id);
        askable.extend(leads.map(|m| format!("{} (lead of {})", m.user_name, m.team_name)));
    }
    let sql = format!(
        "{} WHERE role = 'admin' AND id <> ?1 ORDER BY name LIMIT 3",
        rows::USER
    );
    let admins = rows::all(db, &sql, [judged.user.id.to_string()], rows::user)?;
    askable.extend(
        admins
            .into_iter()
            .filter(|a| a.role == Role::Admin)
            .map(|a| a.name),
    );
    let steps = remedies(
        &judged.path,
        before,
        after,
        &judged.verdict,
        existing.as_deref(),
        &holdings,
        &askable,
    );
    let text = refusal(&judged.path, after, &judged.verdict, &steps);
    Ok((steps, Some(text)))
}

/// Judges, advises and keeps the decision.
fn decide(
    books: &mut Books<'_>,
    action: &str,
    claim: &Claim,
    before: &Amounts,
    reservation: ReservationId,
    deed: Deed,
) -> Result<(Judged, Decision)> {
    let judged = judge(books, claim, before)?;
    let (steps, message) = advise(books, &judged, claim, before, Some(reservation))?;
    let allowed = judged.verdict.allowed();
    let decision = Decision {
        id: deed.decision,
        at_ms: deed.now_ms,
        action: action.to_owned(),
        user: judged.user.id,
        user_name: judged.user.name.clone(),
        team: judged.team.as_ref().map(|t| t.id),
        team_name: judged.team.as_ref().map(|t| t.name.clone()),
        project: claim.project.clone(),
        host: claim.host.clone(),
        requested: claim.amounts,
        allowed,
        violations: judged.verdict.violations.clone(),
        remedies: steps,
        message: message.map(|m| format!("{m}\n  decision {}", deed.decision)),
        reservation: allowed.then_some(reservation),
    };
    keep_decision(books, &decision)?;
    Ok((judged, decision))
}

fn keep_decision(books: &Books<'_>, d: &Decision) -> Result<()> {
    books
        .connection
        .prepare_cached(
            "INSERT INTO decision (id, at, action, user_id, team_id, project, host, requested,
                                   allowed, violations, remedies, message, reservation_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            d.id.to_string(),
            d.at_ms,
            d.action,
            d.user.to_string(),
            d.team.map(|t| t.to_string()),
            d.project,
            d.host,
            rows::json(&d.requested),
            d.allowed,
            rows::json(&d.violations),
            rows::json(&d.remedies),
            d.message,
            d.reservation.map(|r| r.to_string())
        ])?;
    Ok(())
}

pub(crate) fn find(books: &Books<'_>, id: ReservationId) -> Result<Reservation> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("{} WHERE r.id = ?1", rows::RESERVATION));
    rows::one(
        books.connection,
        &SQL,
        [id.to_string()],
        rows::reservation,
        "reservation",
        id,
    )
}

fn decision(books: &Books<'_>, id: DecisionId) -> Result<Decision> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{} WHERE d.id = ?1", rows::DECISION));
    rows::one(
        books.connection,
        &SQL,
        [id.to_string()],
        rows::decision,
        "decision",
        id,
    )
}

/// Moves a reservation to another state and claim, and every balance with it.
fn change(
    books: &mut Books<'_>,
    r: &Reservation,
    state: State,
    claim: &Amounts,
    now_ms: i64,
) -> Result<Reservation> {
    let started = (state == State::Active && r.state != State::Active).then_some(now_ms);
    let changed = books
        .connection
        .prepare_cached(
            "UPDATE reservation SET state = ?3, claim = ?4, changed_at = ?5,
                                    started_at = coalesce(?6, started_at)
             WHERE id = ?1 AND state = ?2",
        )?
        .execute(params![
            r.id.to_string(),
            r.state.name(),
            state.name(),
            rows::json(claim),
            now_ms,
            started
        ])
        .map_err(|e| taken(e, r))?;
    if changed != 1 {
        return Err(StoreError::Conflict(format!(
            "reservation {} changed meanwhile",
            r.id
        )));
    }
    let (before, after) = (r.state.charge(&r.claim), state.charge(claim));
    books.charge(r.user, r.team, &r.host, &before, &after)?;
    Ok(Reservation {
        state,
        claim: *claim,
        changed_ms: now_ms,
        started_ms: started.or(r.started_ms),
        ..r.clone()
    })
}

/// A fact: charged whatever the limits say, and held against them afterwards.
fn record(
    books: &mut Books<'_>,
    r: &Reservation,
    state: State,
    claim: &Amounts,
    cause: &str,
    now_ms: i64,
) -> Result<Reservation> {
    let (before, after) = (r.state.charge(&r.claim), state.charge(claim));
    let changed = change(books, r, state, claim, now_ms)?;
    let grows = before.checked_sub(&after).is_none();
    if grows || violations::any_open(books)? {
        follow(books, r, cause, now_ms)?;
    }
    Ok(changed)
}

/// Holds the path of a reservation against its limits. A user that was deleted has none left; their
/// team and the host still do.
fn follow(books: &mut Books<'_>, r: &Reservation, cause: &str, now_ms: i64) -> Result<()> {
    let (host, system) = books.machine(&r.host)?;
    violations::follow_whole(books, LevelKind::Host, &host, cause, now_ms)?;
    violations::follow_whole(books, LevelKind::System, &system, cause, now_ms)?;
    if let Some(team) = r.team {
        return quotas::follow_team(books, team, cause, now_ms);
    }
    match books.user(r.user) {
        Err(StoreError::NotFound { .. }) => Ok(()),
        user => {
            let level = books.user_level(&user?)?;
            violations::follow_whole(books, LevelKind::User, &level, cause, now_ms)
        }
    }
}

/// A level that only watches lets a claim past its limit, and says so.
fn watch(books: &mut Books<'_>, r: &Reservation, decision: &Decision, now_ms: i64) -> Result<()> {
    if decision.violations.is_empty() {
        return Ok(());
    }
    follow(books, r, "admitted by a level in shadow mode", now_ms)
}

fn check_lease(books: &mut Books<'_>, lease: &HostLease) -> Result<()> {
    if books.host(&lease.host)?.epoch == lease.epoch {
        Ok(())
    } else {
        Err(StoreError::Fenced {
            host: lease.host.clone(),
        })
    }
}

/// A reconciler touches only its own host's rows.
fn check_host(lease: &HostLease, host: &str) -> Result<()> {
    if lease.host == host {
        Ok(())
    } else {
        Err(StoreError::Invalid(format!(
            "a container on host {host} cannot be charged by the owner of {}",
            lease.host
        )))
    }
}

/// Whether another live container of the owner has the name of this reservation.
fn name_is_taken(books: &Books<'_>, r: &Reservation) -> Result<bool> {
    let taken = books
        .connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM reservation
             WHERE user_id = ?1 AND container_name = ?2 AND id <> ?3
               AND state <> 'released' AND state <> 'void')",
        )?
        .query_row(
            params![r.user.to_string(), r.container_name, r.id.to_string()],
            |row| row.get(0),
        )?;
    Ok(taken)
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

impl Store {
    /// Takes over a host: its capacity is known from now on, and whoever had it before can no longer
    /// write its rows.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn claim_host(
        &self,
        name: String,
        capacity: plimsoll_core::quota::Capacity,
        now_ms: i64,
    ) -> Result<HostLease> {
        self.write(move |books| {
            books.connection.execute(
                "INSERT INTO host (name, cpu, memory, epoch, claimed_at) VALUES (?1, ?2, ?3, 1, ?4)
                 ON CONFLICT (name) DO UPDATE
                 SET cpu = ?2, memory = ?3, epoch = epoch + 1, claimed_at = ?4",
                params![
                    name,
                    capacity.cpu.0.cast_signed(),
                    capacity.memory.0.cast_signed(),
                    now_ms
                ],
            )?;
            let host = rows::host(books.connection, &name)?;
            quotas::follow_entity(books, EntityKind::System, SYSTEM_ID, now_ms)?;
            Ok(HostLease {
                host: host.name,
                epoch: host.epoch,
            })
        })
        .await
    }

    /// A host and what it has.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.read(|books| books.host(name))
    }

    /// Would this claim fit? Nothing is charged, nothing kept.
    ///
    /// # Errors
    /// `NotFound` or `Forbidden` for a claim nobody could make.
    pub fn evaluate(&self, claim: &Claim) -> Result<Evaluation> {
        self.read(|books| {
            let judged = judge(books, claim, &Amounts::ZERO)?;
            let (remedies, message) = advise(books, &judged, claim, &Amounts::ZERO, None)?;
            Ok(Evaluation {
                path: judged.path,
                verdict: judged.verdict,
                remedies,
                message,
            })
        })
    }

    /// Would this fit into a team, whoever of its members asked? Allotments are left out of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn evaluate_team(&self, team: TeamId, host: &str, after: &Amounts) -> Result<Evaluation> {
        self.read(|books| {
            let team = books.team(team)?;
            let path = books.team_path(&team, host)?;
            let verdict = admit(&path, &Amounts::ZERO, after);
            let steps = remedies(&path, &Amounts::ZERO, after, &verdict, None, &[], &[]);
            let message = (!verdict.allowed()).then(|| refusal(&path, after, &verdict, &steps));
            Ok(Evaluation {
                path,
                verdict,
                remedies: steps,
                message,
            })
        })
    }

    /// The levels a claim of `user` would be asked at, without a claim: for defaults and caps.
    ///
    /// # Errors
    /// `NotFound` or `Forbidden`.
    pub fn path(&self, user: UserId, team: TeamChoice, host: &str) -> Result<Path> {
        self.read(|books| {
            let user = books.user(user)?;
            let team = books.team_of(&user, team)?;
            books.path(&user, team.as_ref(), host)
        })
    }

    /// The levels an existing reservation is charged at, also when its user left the team.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn path_of(&self, reservation: &Reservation) -> Result<Path> {
        self.read(|books| {
            let user = books.user(reservation.user)?;
            let team = reservation.team.map(|team| books.team(team)).transpose()?;
            books.path(&user, team.as_ref(), &reservation.host)
        })
    }

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
        let reserve = self.decide(new.decision, move |books| {
            if late.load(Ordering::Acquire) {
                return Err(StoreError::Busy);
            }
            reserve(books, &new)
        });
        match tokio::time::timeout(ADMISSION_DEADLINE, reserve).await {
            Ok(admission) => admission,
            Err(_) => {
                given_up.store(true, Ordering::Release);
                // Behind the reservation in the same queue, and before any other try of its caller.
                let taken_back = self.inner.writer.post(false, move |books| {
                    let r = find(books, id)?;
                    if r.state == State::Pending {
                        record(books, &r, State::Void, &r.claim, "given up", now_ms)?;
                        books
                            .connection
                            .prepare_cached("UPDATE reservation SET idem_key = NULL WHERE id = ?1")?
                            .execute([id.to_string()])?;
                    }
                    Ok(())
                });
                if taken_back.is_err() {
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
        self.decide(deed.decision, move |books| {
            let r = find(books, id)?;
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
                let before = r.state.charge(&r.claim);
                let after = match r.state {
                    State::Void => r.claim,
                    _ => before,
                };
                let claim = claim_of(&r, after);
                let (judged, decision) = decide(books, "commit", &claim, &before, id, deed)?;
                if !judged.verdict.allowed() {
                    return Ok(Admission {
                        decision,
                        reservation: None,
                        replayed: false,
                    });
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
                .map_err(|e| conflict(e, id, None, Some(&container)))?;
            let reservation = Reservation {
                container: Some(container),
                expires_ms: None,
                decision: Some(admitted.id),
                ..bound
            };
            Ok(Admission {
                decision: admitted,
                reservation: Some(reservation),
                replayed: false,
            })
        })
        .await
    }

    /// Ends a reservation that never got a container. Does nothing to one that is bound or ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn void(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        self.charge(move |books| {
            let r = find(books, id)?;
            if r.state != State::Pending {
                return Ok(r);
            }
            record(books, &r, State::Void, &r.claim, "voided", now_ms)
        })
        .await
    }

    /// Fact: the container is gone. Does nothing twice.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn release(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        self.charge(move |books| {
            let r = find(books, id)?;
            if r.state.is_final() {
                return Ok(r);
            }
            record(books, &r, State::Released, &r.claim, "released", now_ms)
        })
        .await
    }

    /// Fact: the container will not run by itself. Does nothing twice, nor to one that has no
    /// container yet.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stopped(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        self.charge(move |books| {
            let r = find(books, id)?;
            if r.state != State::Active {
                return Ok(r);
            }
            record(books, &r, State::Stopped, &r.claim, "stopped", now_ms)
        })
        .await
    }

    /// Fact: the container runs, or the engine will start it by itself.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn running(&self, id: ReservationId, now_ms: i64) -> Result<Reservation> {
        self.charge(move |books| {
            let r = find(books, id)?;
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
        })
        .await
    }

    /// Asks to start a stopped container: its runtime dimensions are admitted again. One that is
    /// charged already is admitted at once.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for one that has ended.
    pub async fn start(&self, id: ReservationId, deed: Deed) -> Result<Admission> {
        self.decide(deed.decision, move |books| {
            let r = find(books, id)?;
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
            let (before, claim) = (r.state.charge(&r.claim), claim_of(&r, r.claim));
            let (judged, decision) = decide(books, "start", &claim, &before, id, deed)?;
            if !judged.verdict.allowed() {
                return Ok(Admission {
                    decision,
                    reservation: None,
                    replayed: false,
                });
            }
            let started = change(books, &r, State::Active, &r.claim, deed.now_ms)?;
            watch(books, &started, &decision, deed.now_ms)?;
            Ok(Admission {
                decision,
                reservation: Some(started),
                replayed: false,
            })
        })
        .await
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
        self.decide(deed.decision, move |books| {
            let r = find(books, id)?;
            if r.state.is_final() {
                return Err(StoreError::Conflict(format!("reservation {id} has ended")));
            }
            let before = r.state.charge(&r.claim);
            let claim = claim_of(&r, r.state.charge(&amounts));
            let (judged, decision) = decide(books, "update", &claim, &before, id, deed)?;
            if !judged.verdict.allowed() {
                return Ok(Admission {
                    decision,
                    reservation: None,
                    replayed: false,
                });
            }
            let resized = change(books, &r, r.state, &amounts, deed.now_ms)?;
            if violations::any_open(books)? {
                follow(books, &r, "resized", deed.now_ms)?;
            }
            watch(books, &resized, &decision, deed.now_ms)?;
            Ok(Admission {
                decision,
                reservation: Some(resized),
                replayed: false,
            })
        })
        .await
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
        self.charge(move |books| {
            let r = find(books, id)?;
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
        })
        .await
    }

    /// Fact: a container came to be for this reservation, seen by the reconciler. Charged even if the
    /// reservation was voided meanwhile.
    ///
    /// # Errors
    /// `NotFound`, `Fenced` when this process no longer owns the host, `Conflict` when it is bound
    /// to another container, or the container to another reservation, `Invalid` for another host.
    pub async fn bound(
        &self,
        id: ReservationId,
        container: String,
        state: State,
        lease: HostLease,
        now_ms: i64,
    ) -> Result<Reservation> {
        self.charge(move |books| {
            check_lease(books, &lease)?;
            let mut r = find(books, id)?;
            check_host(&lease, &r.host)?;
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
                .map_err(|e| conflict(e, id, None, Some(&container)))?;
            Ok(Reservation {
                container: Some(container),
                expires_ms: None,
                ..r
            })
        })
        .await
    }

    /// Fact: a container that came past Plimsoll is taken under a user's charge.
    ///
    /// # Errors
    /// `NotFound` for an unknown user, `Fenced` when this process no longer owns the host, `Conflict`
    /// when the container is charged already or its owner has a live one of that name, `Invalid` for
    /// another host.
    pub async fn adopt(
        &self,
        new: NewReservation,
        container: String,
        state: State,
        lease: HostLease,
    ) -> Result<Reservation> {
        self.charge(move |books| {
            check_lease(books, &lease)?;
            check_host(&lease, &new.claim.host)?;
            let user = books.user(new.claim.user)?;
            let team = books.team_of(&user, new.claim.team)?;
            insert(books, &new, team.as_ref(), state, None, Some(&container))?;
            let charge = state.charge(&new.claim.amounts);
            let host = new.claim.host.clone();
            books.charge(user.id, team.map(|t| t.id), &host, &Amounts::ZERO, &charge)?;
            let r = find(books, new.id)?;
            follow(books, &r, "adopted", new.now_ms)?;
            Ok(r)
        })
        .await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when the owner has a live container of that name.
    pub async fn rename(&self, id: ReservationId, name: String) -> Result<()> {
        self.charge(move |books| {
            let changed = books
                .connection
                .prepare_cached("UPDATE reservation SET container_name = ?2 WHERE id = ?1")?
                .execute(params![id.to_string(), name])
                .map_err(|e| conflict(e, id, Some(&name), None))?;
            if changed == 0 {
                return Err(StoreError::NotFound {
                    what: "reservation",
                    name: id.to_string(),
                });
            }
            Ok(())
        })
        .await
    }

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

    /// A decision.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn decision(&self, id: DecisionId) -> Result<Decision> {
        self.read(|books| decision(books, id))
    }

    /// Decisions, newest first; of one user, of one outcome.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn decisions(
        &self,
        user: Option<UserId>,
        allowed: Option<bool>,
        most: u32,
    ) -> Result<Vec<Decision>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE (?1 IS NULL OR d.user_id = ?1) AND (?2 IS NULL OR d.allowed = ?2)
                 ORDER BY d.id DESC LIMIT ?3",
                rows::DECISION
            );
            let by = params![user.map(|u| u.to_string()), allowed, most];
            rows::all(books.connection, &sql, by, rows::decision)
        })
        .await
    }
}

/// Which of a reservation's unique columns another one has already.
fn taken(error: rusqlite::Error, r: &Reservation) -> StoreError {
    conflict(
        error,
        r.id,
        r.container_name.as_deref(),
        r.container.as_deref(),
    )
}

fn conflict(
    error: rusqlite::Error,
    id: ReservationId,
    name: Option<&str>,
    container: Option<&str>,
) -> StoreError {
    if error.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
        return error.into();
    }
    // SQLite names the columns of the index: "UNIQUE constraint failed: reservation.host, ...".
    let columns = error.to_string();
    StoreError::Conflict(if columns.contains("container_name") {
        format!(
            "the container name \"/{}\" is already in use: remove (or rename) that container \
             to be able to reuse that name",
            name.unwrap_or_default()
        )
    } else if columns.contains("container_id") {
        format!(
            "container {} is bound to another reservation",
            container.unwrap_or_default()
        )
    } else if columns.contains("reservation.id") {
        format!("reservation {id} exists")
    } else {
        return error.into();
    })
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
    let (judged, decision) = decide(books, "create", &new.claim, &Amounts::ZERO, new.id, deed)?;
    if !judged.verdict.allowed() {
        return Ok(Admission {
            decision,
            reservation: None,
            replayed: false,
        });
    }
    insert(
        books,
        new,
        judged.team.as_ref(),
        State::Pending,
        Some(decision.id),
        None,
    )?;
    let team = judged.team.as_ref().map(|t| t.id);
    books.charge(
        judged.user.id,
        team,
        &new.claim.host,
        &Amounts::ZERO,
        &new.claim.amounts,
    )?;
    let reservation = Reservation {
        id: new.id,
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
    };
    watch(books, &reservation, &decision, new.now_ms)?;
    Ok(Admission {
        decision,
        reservation: Some(reservation),
        replayed: false,
    })
}

fn insert(
    books: &Books<'_>,
    new: &NewReservation,
    team: Option<&Team>,
    state: State,
    decision: Option<DecisionId>,
    container: Option<&str>,
) -> Result<()> {
    let idempotency = new.idempotency.as_ref();
    let name = new.container_name.as_deref();
    books
        .connection
        .prepare_cached(
            "INSERT INTO reservation (id, host, user_id, team_id, project, state, claim, origin,
                                      decision_id, caller, idem_key, fingerprint, container_id,
                                      container_name, image, expires_at, created_at, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?17)",
        )?
        .execute(params![
            new.id.to_string(),
            new.claim.host,
            new.claim.user.to_string(),
            team.map(|t| t.id.to_string()),
            new.claim.project,
            state.name(),
            rows::json(&new.claim.amounts),
            new.origin.name(),
            decision.map(|d| d.to_string()),
            idempotency.map(|i| &i.caller),
            idempotency.map(|i| &i.key),
            idempotency.map(|i| &i.fingerprint),
            container,
            name,
            new.image,
            container.is_none().then_some(new.expires_ms),
            new.now_ms
        ])
        .map_err(|e| conflict(e, new.id, name, container))?;
    Ok(())
}

/// Every balance against the reservations it is made of.
pub(crate) fn balance_differences(books: &mut Books<'_>) -> Result<Vec<String>> {
    let mut expected: std::collections::BTreeMap<String, Amounts> =
        std::collections::BTreeMap::new();
    let live = format!("{} WHERE {}", rows::RESERVATION, rows::LIVE);
    for r in rows::all(books.connection, &live, [], rows::reservation)? {
        let charge = r.state.charge(&r.claim);
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
        let allotments = members.iter().map(|m| &m.allotment);
        let own = books.quota(team.id.0)?.limits;
        let shape = TeamShape::derive(team.mode, &own, allotments);
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
