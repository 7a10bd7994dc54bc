//! What leads move between their members and the pool, for good or for a time.

use std::collections::BTreeMap;

use plimsoll_core::dimension::{Amounts, Limits};
use plimsoll_core::entity::{RedistributionId, TeamId, UserId};
use plimsoll_core::notice::{About, EventKind};
use plimsoll_core::quota::TeamMode;
use plimsoll_core::share::{Holder, Move, MoveError, Over, Shares, over};
use rusqlite::{Row, params};
use serde_json::json;

use super::grants::Turn;
use super::{in_words, states};
use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::notices;
use crate::people;
use crate::quotas::{self, reshape};
use crate::records::{Actor, Member, Team};
use crate::rows;

states! {
    /// Where a redistribution stands.
    RedistributionState {
        /// It holds.
        Made = "made",
        /// Was taken back.
        Undone = "undone",
        /// Its time is over and it was taken back, as far as that went.
        Expired = "expired",
    }
}

/// What is to be moved.
#[derive(Debug, Clone)]
pub struct Redistribute {
    /// Id, made by the caller.
    pub id: RedistributionId,
    /// The team.
    pub team: TeamId,
    /// What, in order.
    pub moves: Vec<Move>,
    /// When it is taken back, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// What was moved, and what came of it.
#[derive(Debug, Clone)]
pub struct Redistribution {
    /// Id.
    pub id: RedistributionId,
    /// The team.
    pub team: TeamId,
    /// What, in order.
    pub moves: Vec<Move>,
    /// Who did it.
    pub made_by: String,
    /// Why.
    pub reason: Option<String>,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// When it is taken back.
    pub expires_ms: Option<i64>,
    /// Where it stands.
    pub state: RedistributionState,
    /// When it was taken back.
    pub ended_ms: Option<i64>,
}

const REDISTRIBUTION: &str = "SELECT id, team_id, moves, made_by, reason, created_at, expires_at, state, \
                              ended_at FROM redistribution";

fn redistribution(row: &Row<'_>) -> rusqlite::Result<Redistribution> {
    Ok(Redistribution {
        id: RedistributionId(rows::uuid(row, 0)?),
        team: TeamId(rows::uuid(row, 1)?),
        moves: rows::parse(row, 2)?,
        made_by: row.get(3)?,
        reason: row.get(4)?,
        created_ms: row.get(5)?,
        expires_ms: row.get(6)?,
        state: rows::named(row, 7, RedistributionState::from_name)?,
        ended_ms: row.get(8)?,
    })
}

/// A team with what its members have and hold.
struct Standing {
    team: Team,
    members: Vec<Member>,
    shares: Shares,
}

fn standing(books: &Books<'_>, team: TeamId) -> Result<Standing> {
    let team = rows::team_by_id(books.connection, team)?;
    let members = people::members(books.connection, Some(team.id), None)?;
    // What is granted out of the pool for a time is not there to be moved, nor is what it was granted.
    let pool = match team.mode {
        TeamMode::Fixed => team.pool,
        TeamMode::Aggregate => {
            let own = rows::quota(books.connection, team.id.0)?.limits;
            team.pool.map(|d, now| now.min(own[d]))
        }
    };
    let allotments = members.iter().map(|m| (m.user, m.allotment)).collect();
    Ok(Standing {
        team,
        members,
        shares: Shares { pool, allotments },
    })
}

impl Standing {
    fn name(&self, holder: Holder) -> String {
        match holder {
            Holder::Pool => format!("the shared pool of team {}", self.team.name),
            Holder::Member(user) => self
                .members
                .iter()
                .find(|m| m.user == user)
                .map_or_else(|| user.to_string(), |m| m.user_name.clone()),
        }
    }

    fn refused(&self, error: &MoveError) -> StoreError {
        StoreError::Invalid(match error {
            MoveError::TooMuch {
                from,
                dimension: d,
                asked,
                held,
            } => format!(
                "{} has {} of {d}, {} are to be given",
                self.name(*from),
                d.show(*held),
                d.show(*asked)
            ),
            other => other.to_string(),
        })
    }

    /// Who would borrow afterwards.
    fn over(&self, books: &mut Books<'_>, after: &Shares) -> Result<Vec<Over>> {
        let held: BTreeMap<UserId, Amounts> =
            self.members.iter().map(|m| (m.user, m.reserved)).collect();
        let granted = |user: &UserId, allotment: &Limits| {
            let member = self.members.iter().find(|m| m.user == *user);
            let added = member.map(|m| m.granted.as_slice()).unwrap_or_default();
            plimsoll_core::quota::with_additions(allotment, added)
        };
        let whole = Shares {
            pool: after.pool,
            allotments: after
                .allotments
                .iter()
                .map(|(user, allotment)| (*user, granted(user, allotment)))
                .collect(),
        };
        let permille = books.quota(self.team.id.0)?.overcommit_permille;
        Ok(over(&whole, &held, permille))
    }

    /// Writes what changed between the shares before and `after`.
    fn write(&self, books: &mut Books<'_>, after: &Shares, now_ms: i64) -> Result<()> {
        let before = &self.shares;
        for (user, allotment) in &after.allotments {
            if before.allotments.get(user) != Some(allotment) {
                books.connection.execute(
                    "UPDATE member SET allotment = ?3 WHERE team_id = ?1 AND user_id = ?2",
                    params![
                        self.team.id.to_string(),
                        user.to_string(),
                        rows::json(allotment)
                    ],
                )?;
            }
        }
        if self.team.mode == TeamMode::Aggregate {
            let own = rows::quota(books.connection, self.team.id.0)?.limits;
            // The difference, since what was looked at may be less than what is written.
            let own = own.map(|d, pool| {
                let (Some(old), Some(new)) = (before.pool[d].at_most(), after.pool[d].at_most())
                else {
                    return pool;
                };
                pool.at_most().map_or(pool, |pool| {
                    plimsoll_core::Limit::AtMost(pool.saturating_add(new).saturating_sub(old))
                })
            });
            quotas::set_pool(books, self.team.id, &own, now_ms)?;
        }
        reshape(books, self.team.id)?;
        quotas::follow_team(books, self.team.id, "the allotments changed", now_ms)
    }

    fn note(&self, books: &Books<'_>, actor: &Actor, action: &str, moves: &[Move]) -> Result<()> {
        let told: Vec<String> = moves
            .iter()
            .map(|m| {
                let (from, to) = (self.name(m.from), self.name(m.to));
                format!("{} from {from} to {to}", in_words(&m.amounts))
            })
            .collect();
        let change = Change {
            action,
            kind: "team",
            entity: &self.team.name,
            before: None,
            after: Some(json!({"moves": told}).to_string()),
        };
        audit::record(books, actor, &change)?;
        let about = About::team(self.team.id, &self.team.name);
        let title = format!("Allotments in team {} have changed", self.team.name);
        let link = format!("/team/{}", self.team.name);
        let event = notices::change(EventKind::AllotmentChanged, about, title, link, actor);
        let mut event = told
            .iter()
            .fold(event, |event, moved| event.figure("moved", moved));
        let holders = moves.iter().flat_map(|m| [m.from, m.to]);
        event.own = holders.filter_map(Holder::member).collect();
        notices::tell(books, &event, actor)
    }
}

fn find(books: &Books<'_>, team: TeamId, id: RedistributionId) -> Result<Redistribution> {
    let sql = format!("{REDISTRIBUTION} WHERE id = ?1 AND team_id = ?2");
    rows::one(
        books.connection,
        &sql,
        params![id.to_string(), team.to_string()],
        redistribution,
        "redistribution",
        id,
    )
}

fn end(
    books: &Books<'_>,
    id: RedistributionId,
    state: RedistributionState,
    now_ms: i64,
) -> Result<()> {
    books.connection.execute(
        "UPDATE redistribution SET state = ?2, ended_at = ?3 WHERE id = ?1",
        params![id.to_string(), state.name(), now_ms],
    )?;
    Ok(())
}

/// Takes back what was moved for a time that is over, as far as it is still there.
pub(super) fn expire(books: &mut Books<'_>, actor: &Actor, turns: &mut Vec<Turn>) -> Result<()> {
    let sql =
        format!("{REDISTRIBUTION} WHERE state = 'made' AND expires_at <= ?1 ORDER BY id DESC");
    for due in rows::all(books.connection, &sql, [actor.at_ms], redistribution)? {
        let now = standing(books, due.team)?;
        let (after, made) = now.shares.moved_as_far_as_it_goes(&back(&due.moves));
        now.write(books, &after, actor.at_ms)?;
        end(books, due.id, RedistributionState::Expired, actor.at_ms)?;
        now.note(books, actor, "redistribution.expire", &made)?;
        turns.push(Turn {
            what: "redistribution.expire",
            whose: now.team.name,
        });
    }
    Ok(())
}

fn back(moves: &[Move]) -> Vec<Move> {
    moves.iter().rev().map(Move::reversed).collect()
}

impl Store {
    /// Moves parts of a team's limit between its members and its pool: all of it or nothing. With what
    /// was moved comes who would hold more than their allotment afterwards.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when somebody is to give more than they have, or it would be over
    /// already.
    pub async fn redistribute(
        &self,
        asked: Redistribute,
        actor: Actor,
    ) -> Result<(Redistribution, Vec<Over>)> {
        self.write(move |books| {
            if asked.expires_ms.is_some_and(|at| at <= actor.at_ms) {
                return Err(StoreError::Invalid(
                    "`expiresAt` must be in the future".into(),
                ));
            }
            let now = standing(books, asked.team)?;
            let after = now.shares.moved(&asked.moves);
            let after = after.map_err(|error| now.refused(&error))?;
            let over = now.over(books, &after)?;
            let made = Redistribution {
                id: asked.id,
                team: asked.team,
                moves: asked.moves,
                made_by: actor.name.clone(),
                reason: actor.reason.clone(),
                created_ms: actor.at_ms,
                expires_ms: asked.expires_ms,
                state: RedistributionState::Made,
                ended_ms: None,
            };
            if asked.dry_run {
                return Ok((made, over));
            }
            now.write(books, &after, actor.at_ms)?;
            books.connection.execute(
                "INSERT INTO redistribution (id, team_id, moves, made_by, reason, created_at,
                                             expires_at, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'made')",
                params![
                    made.id.to_string(),
                    made.team.to_string(),
                    rows::json(&made.moves),
                    made.made_by,
                    made.reason,
                    made.created_ms,
                    made.expires_ms
                ],
            )?;
            now.note(books, &actor, "redistribution.make", &made.moves)?;
            Ok((made, over))
        })
        .await
    }

    /// Takes back what was moved: all of it or nothing.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it was taken back already, `Invalid` when somebody who would have to
    /// give it back has less by now.
    pub async fn undo_redistribution(
        &self,
        team: TeamId,
        id: RedistributionId,
        actor: Actor,
    ) -> Result<(Redistribution, Vec<Over>)> {
        self.write(move |books| {
            let old = find(books, team, id)?;
            if old.state != RedistributionState::Made {
                return Err(StoreError::Conflict(format!(
                    "it was taken back already ({})",
                    old.state.name()
                )));
            }
            let now = standing(books, team)?;
            let moves = back(&old.moves);
            let after = now.shares.moved(&moves);
            let after = after.map_err(|error| now.refused(&error))?;
            let over = now.over(books, &after)?;
            now.write(books, &after, actor.at_ms)?;
            end(books, id, RedistributionState::Undone, actor.at_ms)?;
            now.note(books, &actor, "redistribution.undo", &moves)?;
            Ok((find(books, team, id)?, over))
        })
        .await
    }

    /// What was moved within a team, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn redistributions(&self, team: TeamId, most: u32) -> Result<Vec<Redistribution>> {
        self.read_list(move |books| {
            let sql = format!("{REDISTRIBUTION} WHERE team_id = ?1 ORDER BY id DESC LIMIT ?2");
            let by = params![team.to_string(), most];
            rows::all(books.connection, &sql, by, redistribution)
        })
        .await
    }
}
