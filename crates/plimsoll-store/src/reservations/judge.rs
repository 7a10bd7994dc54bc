//! What admission says to a claim: the verdict, what would help, and the decision that is kept.

use plimsoll_core::admit::{Path, Verdict, admit};
use plimsoll_core::dimension::Amounts;
use plimsoll_core::entity::{MemberRole, ReservationId, TeamId, UserId};
use plimsoll_core::remedy::{Holding, Remedy, refusal, remedies};
use rusqlite::params;

use super::Deed;
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::{Claim, Decision, Evaluation, Reservation, Role, Team, TeamChoice, User};
use crate::{Store, decisions, people, rows};

pub(super) struct Judged {
    pub(super) user: User,
    pub(super) team: Option<Team>,
    pub(super) path: Path,
    pub(super) verdict: Verdict,
}

/// Judges a claim that charges `before` already, and `exists` if that is its own. Who is suspended or left the team makes no new
/// claims, but what grows nowhere always passes.
fn judge(books: &mut Books<'_>, claim: &Claim, before: &Amounts, exists: bool) -> Result<Judged> {
    let user = books.user(claim.user)?;
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
         AND r.kind = 'container'
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
            claim: r.shared.map_or(r.claim, |s| r.claim.beyond(&s.amounts)),
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
pub(super) fn decide(
    books: &mut Books<'_>,
    action: &str,
    claim: &Claim,
    before: &Amounts,
    reservation: ReservationId,
    deed: Deed,
) -> Result<(Judged, Decision)> {
    let exists = action != "create" && !before.is_zero();
    let judged = judge(books, claim, before, exists)?;
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
    decisions::keep(books, &decision)?;
    Ok((judged, decision))
}

impl Store {
    /// Would this claim fit? Nothing is charged, nothing kept.
    ///
    /// # Errors
    /// `NotFound` or `Forbidden` for a claim nobody could make.
    pub fn evaluate(&self, claim: &Claim) -> Result<Evaluation> {
        self.read(|books| {
            let judged = judge(books, claim, &Amounts::ZERO, false)?;
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
}
