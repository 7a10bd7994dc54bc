//! `/api/quotas/...`

use std::fmt;
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use plimsoll_core::dimension::{Dimension, Limit, Limits};
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use plimsoll_core::ladder::Policy;
use plimsoll_core::quota::{Mode, OVERCOMMIT_MAX, TeamMode};
use plimsoll_store::{Quota, QuotaChange, Team};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::{Body, MAX_FIELDS, MaxFields, MaxValue, Text, max_field};
use super::output;
use super::problem::{Answer, Problem};
use crate::budget;
use crate::state::App;

/// The body with the quota's version as its tag.
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
    let user = caller.user(&app, &user).await?;
    shown_plain(&app, user.id.0, &user.name).await
}

pub(super) async fn system(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.reads_all()?;
    shown_plain(&app, SYSTEM_ID, "system").await
}

async fn shown_plain(app: &App, entity: uuid::Uuid, name: &str) -> Answer {
    let quota = app.store.quota(entity)?;
    let standing = app.store.standing(quota.kind, entity)?;
    let mut body = output::quota_head(&quota, name);
    body.extend(output::max_fields(&quota.limits));
    body.insert(
        "effective".to_owned(),
        Value::Object(output::max_fields(&standing.limits)),
    );
    body.extend(output::amounts("reserved", &standing.reserved));
    let budgets = budget::of(app, &quota, &standing.limits).await?;
    body.insert("budgets".to_owned(), output::budgets(&budgets));
    Ok(tagged(&quota, Value::Object(body)))
}

pub(super) async fn team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer {
    let team = caller.team(&app, &team)?;
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
    let mut promises = Limits::nothing();
    let mut warnings = Vec::new();
    for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
        let promised: u64 = members
            .iter()
            .map(|m| m.allotment[d].at_most().unwrap_or(0))
            .fold(0, u64::saturating_add);
        promises[d] = Limit::AtMost(promised);
        if let Some(limit) = team.total[d].at_most().filter(|limit| promised > *limit) {
            let (promised, limit) = (d.show(promised), d.show(limit));
            warnings.push(format!(
                "allotments promise {promised} of {d}, the limit is {limit}"
            ));
        }
    }
    body.insert("promised".to_owned(), output::summed_fields(&promises));
    body.insert("warnings".to_owned(), json!(warnings));
    let budgets = budget::of(app, &quota, &standing.limits).await?;
    body.insert("budgets".to_owned(), output::budgets(&budgets));
    Ok(tagged(&quota, Value::Object(body)))
}

pub(super) async fn put_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    headers: HeaderMap,
    Body(change): Body<Change>,
) -> Answer {
    let user = caller.user(&app, &user).await?;
    caller.admin()?;
    let (change, reason) = change.resolve(&headers, false)?;
    app.store
        .change_quota(user.id.0, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    shown_plain(&app, user.id.0, &user.name).await
}

pub(super) async fn put_system(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(change): Body<Change>,
) -> Answer {
    caller.admin()?;
    let (change, reason) = change.resolve(&headers, false)?;
    app.store
        .change_quota(SYSTEM_ID, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    shown_plain(&app, SYSTEM_ID, "system").await
}

pub(super) async fn put_team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
    headers: HeaderMap,
    Body(change): Body<Change>,
) -> Answer {
    let team = caller.team(&app, &team)?;
    caller.admin()?;
    let (change, reason) = change.resolve(&headers, true)?;
    app.store
        .change_quota(team.id.0, change, caller.actor(&app, reason))
        .await?;
    app.wake.caps.notify_one();
    let team = app.store.team(&team.id.to_string())?;
    shown_team(&app, &team).await
}

/// A quota change as it is asked for.
#[derive(Debug, Default)]
pub(super) struct Change {
    limits: MaxFields,
    shared_pool: Option<MaxFields>,
    mode: Option<Mode>,
    overcommit: Option<f64>,
    ladder: Option<Option<Policy>>,
    time_zone: Option<Option<Text>>,
    reason: Option<Text>,
}

/// Every field of a quota change.
static FIELDS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut known = MAX_FIELDS.to_vec();
    known.extend([
        "sharedPool",
        "mode",
        "overcommit",
        "ladder",
        "timeZone",
        "reason",
    ]);
    known
});

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Change;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Change, A::Error> {
                let mut change = Change::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "sharedPool" => change.shared_pool = Some(map.next_value()?),
                        "mode" => change.mode = Some(map.next_value()?),
                        "overcommit" => change.overcommit = Some(map.next_value()?),
                        "ladder" => change.ladder = Some(map.next_value()?),
                        "timeZone" => change.time_zone = Some(map.next_value()?),
                        "reason" => change.reason = map.next_value()?,
                        name => {
                            let d = max_field(name)
                                .ok_or_else(|| de::Error::unknown_field(name, FIELDS.as_slice()))?;
                            change.limits.0.push((d, map.next_value_seed(MaxValue(d))?));
                        }
                    }
                }
                Ok(change)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Change {
    /// What the ledger is to change, and why. For a team, `max*` fields fix its limit and
    /// `sharedPool` makes it the sum of allotments and pool.
    fn resolve(
        self,
        headers: &HeaderMap,
        team: bool,
    ) -> Result<(QuotaChange, Option<String>), Problem> {
        let overcommit_permille = self.overcommit.map(|factor| {
            let most = f64::from(OVERCOMMIT_MAX) / 1000.0;
            if (0.001..=most).contains(&factor) {
                Ok((factor * 1000.0).round() as u32)
            } else {
                let why = format!("must be a number from 0.001 to {most}");
                Err(Problem::field("overcommit", why))
            }
        });
        let mut change = QuotaChange {
            limits: self.limits.0,
            mode: self.mode,
            overcommit_permille: overcommit_permille.transpose()?,
            ladder: self.ladder,
            time_zone: self.time_zone.map(time_zone).transpose()?,
            expected_version: if_match(headers)?,
            ..QuotaChange::default()
        };
        let sets_limit = change.limits.iter().any(|(d, _)| d.is_summed());
        match self.shared_pool {
            Some(_) if !team => {
                return Err(Problem::field(
                    "sharedPool",
                    "is not known here: only a team has one",
                ));
            }
            Some(_) if sets_limit => {
                let why = "cannot be given with max* fields: a team has either a limit of its own \
                           or a shared pool";
                return Err(Problem::field("sharedPool", why));
            }
            Some(pool) => {
                if let Some((d, _)) = pool.0.iter().find(|(d, _)| !d.is_summed()) {
                    let name = format!("sharedPool.{}", d.limit_field());
                    return Err(Problem::field(
                        name,
                        "is not shared: set it on the team itself",
                    ));
                }
                change.team_mode = Some(TeamMode::Aggregate);
                change.limits.extend(pool.0);
            }
            None if team && sets_limit => change.team_mode = Some(TeamMode::Fixed),
            None => {}
        }
        Ok((change, self.reason.map(|text| text.0)))
    }
}

/// A time zone that this host knows.
fn time_zone(name: Option<Text>) -> Result<Option<String>, Problem> {
    let Some(Text(name)) = name else {
        return Ok(None);
    };
    match TimeZone::get(&name) {
        Ok(_) => Ok(Some(name)),
        Err(_) => Err(Problem::field(
            "timeZone",
            "must be a name like Europe/Berlin",
        )),
    }
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
