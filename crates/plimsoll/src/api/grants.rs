//! `/api/grants`: additions to a quota for a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_core::entity::GrantId;
use plimsoll_store::{Grant, GrantTo, NewGrant};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, MaxFields, Params, Text, found, page_size};
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    user: Option<String>,
    team: Option<String>,
    add: MaxFields,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    reason: Option<Text>,
}

/// What lists are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those that are over too.
    #[serde(default)]
    all: bool,
    limit: Option<u32>,
}

impl Which {
    pub(super) fn size(&self) -> Result<u32, Problem> {
        page_size(self.limit)
    }

    pub(super) const fn all(&self) -> bool {
        self.all
    }
}

pub(super) async fn give(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    let team = match &new.team {
        Some(team) => Some(caller.team(&app, team)?),
        None => None,
    };
    let user = match &new.user {
        Some(user) => Some(caller.user(&app, user).await?),
        None => None,
    };
    // Within a team leads give out of the pool; everything else is new, and only administrators make
    // more of it.
    let to = match (&team, &user) {
        (Some(team), Some(user)) => {
            caller.leads_team(&app, team)?;
            GrantTo::Member(team.id, user.id)
        }
        (Some(team), None) => {
            caller.admin()?;
            GrantTo::Team(team.id)
        }
        (None, Some(user)) => {
            caller.admin()?;
            GrantTo::User(user.id)
        }
        (None, None) => {
            return Err(Problem::field(
                "user",
                "name a user, a team, or both for a member of it",
            ));
        }
    };
    let from_ms = new.from.map_or(0, Timestamp::as_millisecond);
    let grant = NewGrant {
        id: GrantId(new_id()),
        to,
        added: new.add.bounded("add")?,
        from_ms: from_ms.max(app.clock.now_ms()),
        until_ms: new.until.map(Timestamp::as_millisecond),
    };
    let actor = caller.actor(&app, new.reason.map(|text| text.0));
    let given = app.store.give_grant(grant, actor).await?;
    app.wake.caps.notify_one();
    Ok((StatusCode::CREATED, Json(shown(&given))).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<Value>> {
    let mut items = Vec::new();
    for grant in app.store.grants(which.all(), which.size()?).await? {
        if sees(&app, &caller, &grant)? {
            items.push(shown(&grant));
        }
    }
    Ok(Json(json!({"items": items})))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let grant = found("grant", &id, |id| app.store.grant(id))?;
    if !sees(&app, &caller, &grant)? {
        return Err(Problem::not_found("grant", &id));
    }
    match grant.to {
        GrantTo::Member(team, _) => {
            let team = app.store.team(&team.to_string())?;
            caller.leads_team(&app, &team)?;
        }
        GrantTo::User(_) | GrantTo::Team(_) => caller.admin()?,
    }
    let ended = app
        .store
        .revoke_grant(grant.id, caller.actor(&app, None))
        .await?;
    app.wake.caps.notify_one();
    Ok(Json(shown(&ended)))
}

/// Whom a grant concerns sees it: who has it, the leads of the team, all of a team whose pool grows.
fn sees(app: &App, caller: &Caller, grant: &Grant) -> Result<bool, Problem> {
    match grant.to {
        GrantTo::User(user) => caller.sees_charge(app, user, None),
        GrantTo::Member(team, user) => caller.sees_charge(app, user, Some(team)),
        GrantTo::Team(team) => caller.sees_team(app, team),
    }
}

pub(super) fn shown(grant: &Grant) -> Value {
    json!({
        "id": grant.id, "user": grant.user_name, "team": grant.team_name,
        "add": output::added(&grant.added), "from": output::time(grant.from_ms),
        "until": output::opt_time(grant.until_ms), "state": grant.state,
        "givenBy": grant.given_by, "reason": grant.reason,
        "createdAt": output::time(grant.created_ms), "endedAt": output::opt_time(grant.ended_ms),
    })
}
