//! `/api/teams/{team}/redistribute`: leads move what their team was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_core::dimension::Dimension;
use plimsoll_core::entity::{RedistributionId, UserId};
use plimsoll_core::share::{Holder, Move, Over};
use plimsoll_store::{Member, Redistribute, Redistribution, Team};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::input::{Body, Text};
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
use crate::state::App;

/// How many of a team's redistributions are listed.
const LISTED_MAX: u32 = 100;

/// Moves in one request.
const MOVES_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Ask {
    moves: Vec<Map<String, Value>>,
    #[serde(default)]
    dry_run: bool,
    expires_at: Option<Timestamp>,
    reason: Text,
}

/// A team's members by the names that moves use.
struct Holders(Vec<Member>);

impl Holders {
    async fn of(app: &App, team: &Team) -> Result<Self, Problem> {
        Ok(Self(app.store.members(Some(team.id), None).await?))
    }

    fn find(&self, field: &str, value: Option<&Value>) -> Result<Holder, Problem> {
        let name = value.and_then(Value::as_str).unwrap_or_default();
        if name == "pool" {
            return Ok(Holder::Pool);
        }
        let is = |m: &&Member| m.user_name == name || name.parse() == Ok(m.user);
        match self.0.iter().find(is) {
            Some(member) => Ok(Holder::Member(member.user)),
            None => Err(Problem::field(
                field,
                "must be the name or id of a member, or \"pool\"",
            )),
        }
    }

    fn name(&self, holder: Holder) -> String {
        match holder {
            Holder::Pool => "pool".to_owned(),
            Holder::Member(user) => self.of_user(user),
        }
    }

    /// Their name; of somebody who has left, their id.
    fn of_user(&self, user: UserId) -> String {
        let member = self.0.iter().find(|m| m.user == user);
        member.map_or_else(|| user.to_string(), |m| m.user_name.clone())
    }

    fn read(&self, index: usize, mut asked: Map<String, Value>) -> Result<Move, Problem> {
        let at = |field: &str| format!("moves[{index}].{field}");
        let from = self.find(&at("from"), asked.remove("from").as_ref())?;
        let to = self.find(&at("to"), asked.remove("to").as_ref())?;
        let mut amounts = Vec::new();
        for (name, value) in &asked {
            let known = Dimension::ALL.into_iter().filter(|d| d.is_summed());
            let named = known.map(|d| (output::field_name("", d), d));
            let Some((_, dimension)) = named.into_iter().find(|(known, _)| known == name) else {
                return Err(Problem::field(
                    at(name),
                    "is not something that can be moved: cpuCores, memoryGB, storageGB, ...",
                ));
            };
            let number = value.as_f64().unwrap_or(f64::NAN);
            let amount = dimension.from_human(number);
            amounts.push((
                dimension,
                amount.map_err(|e| Problem::field(at(name), e.to_string()))?,
            ));
        }
        Ok(Move { from, to, amounts })
    }

    fn shown(&self, made: &Redistribution, over: &[Over]) -> Value {
        let moves = made.moves.iter().map(|step| {
            let mut shown = Map::new();
            shown.insert("from".to_owned(), json!(self.name(step.from)));
            shown.insert("to".to_owned(), json!(self.name(step.to)));
            for (d, amount) in &step.amounts {
                shown.insert(output::field_name("", *d), output::number(*d, *amount));
            }
            Value::Object(shown)
        });
        let over = over.iter().map(|o| {
            json!({
                "user": self.of_user(o.user), "dimension": o.dimension,
                "reserved": output::number(o.dimension, o.reserved),
                "allotment": output::number(o.dimension, o.allotment),
            })
        });
        json!({
            "id": made.id, "moves": moves.collect::<Vec<_>>(), "madeBy": made.made_by,
            "reason": made.reason, "createdAt": output::time(made.created_ms),
            "expiresAt": output::opt_time(made.expires_ms), "state": made.state,
            "endedAt": output::opt_time(made.ended_ms), "over": over.collect::<Vec<_>>(),
        })
    }

    /// What was done, with the allotments and the pool as they are now.
    async fn with_shares(
        app: &App,
        team: &Team,
        made: &Redistribution,
        over: &[Over],
    ) -> Result<Value, Problem> {
        let holders = Self::of(app, team).await?;
        let mut body = holders.shown(made, over);
        let team = app.store.team(&team.id.to_string())?;
        let allotments: BTreeMap<&str, Value> = holders
            .0
            .iter()
            .map(|m| (m.user_name.as_str(), output::summed_fields(&m.allotment)))
            .collect();
        body["allotments"] = json!(allotments);
        body["pool"] = output::summed_fields(&team.pool);
        Ok(body)
    }
}

pub(super) async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
    Body(asked): Body<Ask>,
) -> Answer {
    let team = caller.team(&app, &team)?;
    caller.leads_team(&app, &team)?;
    let holders = Holders::of(&app, &team).await?;
    if asked.moves.is_empty() || asked.moves.len() > MOVES_MAX {
        let why = format!("must have 1 to {MOVES_MAX} moves");
        return Err(Problem::field("moves", why));
    }
    let moves = (0..)
        .zip(asked.moves)
        .map(|(index, step)| holders.read(index, step));
    let wanted = Redistribute {
        id: RedistributionId(new_id()),
        team: team.id,
        moves: moves.collect::<Result<_, _>>()?,
        expires_ms: asked.expires_at.map(Timestamp::as_millisecond),
        dry_run: asked.dry_run,
    };
    let actor = caller.actor(&app, Some(asked.reason.0));
    let (made, over) = app.store.redistribute(wanted, actor).await?;
    if asked.dry_run {
        return Ok(Json(holders.shown(&made, &over)).into_response());
    }
    app.wake.caps.notify_one();
    let body = Holders::with_shares(&app, &team, &made, &over).await?;
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer<Json<Value>> {
    let team = caller.team(&app, &team)?;
    let holders = Holders::of(&app, &team).await?;
    let listed = app.store.redistributions(team.id, LISTED_MAX).await?;
    let items: Vec<Value> = listed.iter().map(|made| holders.shown(made, &[])).collect();
    Ok(Json(json!({"items": items})))
}

pub(super) async fn undo(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((team, id)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let team = caller.team(&app, &team)?;
    caller.leads_team(&app, &team)?;
    let Ok(parsed) = id.parse() else {
        return Err(Problem::not_found("redistribution", &id));
    };
    let actor = caller.actor(&app, None);
    let (undone, over) = app
        .store
        .undo_redistribution(team.id, parsed, actor)
        .await?;
    app.wake.caps.notify_one();
    let body = Holders::with_shares(&app, &team, &undone, &over).await?;
    Ok(Json(body))
}
