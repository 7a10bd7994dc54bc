//! `/api/quotas/...`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use plimsoll_core::dimension::Dimension;
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use plimsoll_core::quota::{Mode, OVERCOMMIT_MAX, TeamMode};
use plimsoll_store::{Quota, QuotaChange, Team};
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, Object, max_field, max_fields, max_value, unknown_field};
use super::output;
use super::problem::{Answer, Problem};
use crate::state::App;

/// Fields of a quota change beside the limits.
const BESIDE: [&str; 4] = ["sharedPool", "mode", "overcommit", "reason"];

/// Which part of the path a field belongs to.
fn tagged(quota: &Quota, body: Value) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(tag) = format!("\"{}\"", quota.version).parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

pub(super) async fn user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Answer {
    let user = app.store.user(&user)?;
    caller.reads_user(&app, &user).await?;
    shown_plain(&app, user.id.0, &user.name)
}

pub(super) async fn system(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.reads_all()?;
    shown_plain(&app, SYSTEM_ID, "system")
}

fn shown_plain(app: &App, entity: uuid::Uuid, name: &str) -> Answer {
    let quota = app.store.quota(entity)?;
    let standing = app.store.standing(quota.kind, entity)?;
    let mut body = output::quota_head(&quota, name);
    body.extend(output::max_fields(&quota.limits));
    body.insert(
        "effective".to_owned(),
        Value::Object(output::max_fields(&standing.limits)),
    );
    body.extend(output::amounts("reserved", &standing.reserved));
    Ok(tagged(&quota, Value::Object(body)))
}

pub(super) async fn team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer {
    let team = app.store.team(&team)?;
    caller.reads_team(&app, &team)?;
    shown_team(&app, &team).await
}

async fn shown_team(app: &App, team: &Team) -> Answer {
    let quota = app.store.quota(team.id.0)?;
    let standing = app.store.standing(EntityKind::Team, team.id.0)?;
    let members = app.store.members(Some(team.id), None).await?;
    let mut body = output::quota_head(&quota, &team.name);
    body.extend(output::max_fields(&team.total));
    body.insert("teamMode".to_owned(), json!(team.mode));
    body.insert("sharedPool".to_owned(), output::summed_fields(&team.pool));
    body.insert(
        "effective".to_owned(),
        Value::Object(output::max_fields(&standing.limits)),
    );
    body.extend(output::amounts("reserved", &standing.reserved));
    body.insert(
        "borrowed".to_owned(),
        Value::Object(output::amounts("", &standing.overflow)),
    );
    body.insert(
        "members".to_owned(),
        Value::Array(members.iter().map(output::member).collect()),
    );
    let mut warnings = Vec::new();
    for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
        let promised: u64 = members
            .iter()
            .map(|m| m.allotment[d].at_most().unwrap_or(0))
            .fold(0, u64::saturating_add);
        if let Some(limit) = team.total[d].at_most().filter(|limit| promised > *limit) {
            let (promised, limit) = (d.show(promised), d.show(limit));
            warnings.push(format!(
                "allotments promise {promised} of {d}, the limit is {limit}"
            ));
        }
    }
    body.insert("warnings".to_owned(), json!(warnings));
    Ok(tagged(&quota, Value::Object(body)))
}

pub(super) async fn put_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    headers: HeaderMap,
    Body(object): Body<Object>,
) -> Answer {
    caller.admin()?;
    let user = app.store.user(&user)?;
    let (change, reason) = change(&object, &headers, false)?;
    app.store
        .change_quota(user.id.0, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    shown_plain(&app, user.id.0, &user.name)
}

pub(super) async fn put_system(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(object): Body<Object>,
) -> Answer {
    caller.admin()?;
    let (change, reason) = change(&object, &headers, false)?;
    app.store
        .change_quota(SYSTEM_ID, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    shown_plain(&app, SYSTEM_ID, "system")
}

pub(super) async fn put_team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
    headers: HeaderMap,
    Body(object): Body<Object>,
) -> Answer {
    caller.admin()?;
    let team = app.store.team(&team)?;
    let (change, reason) = change(&object, &headers, true)?;
    app.store
        .change_quota(team.id.0, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    let team = app.store.team(&team.id.to_string())?;
    shown_team(&app, &team).await
}

/// A quota change out of a body. For a team, `max*` fields fix its limit and `sharedPool` makes it the
/// sum of allotments and pool.
fn change(
    object: &Object,
    headers: &HeaderMap,
    team: bool,
) -> Result<(QuotaChange, Option<String>), Problem> {
    let mut change = QuotaChange {
        expected_version: if_match(headers)?,
        ..QuotaChange::default()
    };
    let mut reason = None;
    let mut pool = None;
    for (name, value) in &object.0 {
        match name.as_str() {
            "sharedPool" if team => {
                let object: Object = serde_json::from_value(value.clone()).map_err(|_| {
                    Problem::field("sharedPool", "must be an object of max* fields")
                })?;
                pool = Some(max_fields(&object, &[])?);
            }
            "mode" => {
                let mode = value.as_str().and_then(Mode::from_name);
                change.mode = Some(
                    mode.ok_or_else(|| Problem::field("mode", "must be enforce, shadow or off"))?,
                );
            }
            "overcommit" => {
                let most = f64::from(OVERCOMMIT_MAX) / 1000.0;
                let factor = value.as_f64().filter(|f| *f >= 0.001 && *f <= most);
                let factor = factor.ok_or_else(|| {
                    Problem::field(
                        "overcommit",
                        format!("must be a number from 0.001 to {most}"),
                    )
                })?;
                change.overcommit_permille = Some((factor * 1000.0).round() as u32);
            }
            "reason" => {
                let text = value
                    .as_str()
                    .ok_or_else(|| Problem::field("reason", "must be text"))?;
                reason = Some(text.to_owned());
            }
            name => {
                let dimension = max_field(name).ok_or_else(|| unknown_field(name, &BESIDE))?;
                change
                    .limits
                    .push((dimension, max_value(name, dimension, value)?));
            }
        }
    }
    if let Some(pool) = pool {
        if change.limits.iter().any(|(d, _)| d.is_summed()) {
            return Err(Problem::field(
                "sharedPool",
                "a team has either a limit of its own (max* fields) or a shared pool, not both",
            ));
        }
        if let Some((d, _)) = pool.0.iter().find(|(d, _)| !d.is_summed()) {
            let name = format!("sharedPool.max{}", d.field());
            return Err(Problem::field(
                name,
                "is not shared: set it on the team itself",
            ));
        }
        change.team_mode = Some(TeamMode::Aggregate);
        change.limits.extend(pool.0);
    } else if team && change.limits.iter().any(|(d, _)| d.is_summed()) {
        change.team_mode = Some(TeamMode::Fixed);
    }
    Ok((change, reason))
}

/// The version a change was made for.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.trim_start_matches("W/").trim_matches('"').parse();
    version
        .map(Some)
        .map_err(|_| Problem::field("If-Match", "must be an ETag of this quota"))
}
