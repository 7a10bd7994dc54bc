//! `/api/alerts`: what fires, the rules, and silences.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use plimsoll_core::Dimension;
use plimsoll_core::alert::{Matcher, Phase, Rule, STEPS_MAX, Step, Watched};
use plimsoll_core::entity::EntityKind;
use plimsoll_store::{Alert, Silence};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::input::{Body, Text};
use super::output;
use super::problem::{Answer, Problem};
use crate::state::App;

/// The longest a rule waits: a month, seconds.
const WAIT_MAX_S: f64 = 31.0 * 86_400.0;
/// The largest value a step can have, in its metric's own unit.
const VALUE_MAX: f64 = 1e15;

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let mut alerts = app.store.alerts().await?;
    if let Some(mine) = caller.entities(&app).await? {
        alerts.retain(|alert| mine.contains(&alert.about.id));
    }
    let rules = app.store.alert_rules().await?;
    let shown = alerts.iter().map(|alert| {
        let rule = rules.iter().find(|rule| rule.name == alert.rule);
        shown(alert, rule)
    });
    Ok(Json(json!({"items": shown.collect::<Vec<_>>()})))
}

fn shown(alert: &Alert, rule: Option<&Rule>) -> Value {
    let standing = &alert.standing;
    let firing = standing.firing();
    let is_pending = |phase: &Phase| matches!(phase, Phase::Pending { .. });
    let state = match firing {
        Some(_) => "firing",
        None if standing.phases.iter().any(is_pending) => "pending",
        None => "resolved",
    };
    let scaled = |value: u64| rule.map(|rule| people(rule.metric, value));
    let step = firing.and_then(|step| rule?.steps.get(step - 1));
    json!({
        "rule": alert.rule, "about": alert.about, "part": alert.part, "state": state,
        "step": step.and_then(|step| scaled(step.at)),
        "value": alert.seen.value.and_then(scaled),
        "title": alert.seen.title, "amount": alert.seen.amount, "by": alert.seen.by,
        "since": output::opt_time(standing.since_ms()), "silenced": alert.silenced,
        "toldAt": output::opt_time(alert.told_ms),
    })
}

/// A value as people write it.
fn people(metric: Watched, value: u64) -> f64 {
    value as f64 / metric.scale() as f64
}

fn rule(of: &Rule) -> Value {
    let step = |step: &Step| json!({"at": people(of.metric, step.at), "clear": people(of.metric, step.clear)});
    json!({
        "name": of.name, "metric": of.metric, "level": of.level, "dimension": of.dimension,
        "steps": of.steps.iter().map(step).collect::<Vec<_>>(),
        "forSeconds": of.for_ms as f64 / 1000.0, "keepSeconds": of.keep_ms as f64 / 1000.0,
        "enabled": of.enabled,
    })
}

pub(super) async fn rules(State(app): State<Arc<App>>, _caller: Caller) -> Answer<Json<Value>> {
    let rules = app.store.alert_rules().await?;
    Ok(Json(
        json!({"items": rules.iter().map(rule).collect::<Vec<_>>()}),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStep {
    at: f64,
    clear: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewRule {
    metric: Watched,
    level: Option<EntityKind>,
    dimension: Option<Dimension>,
    steps: Vec<NewStep>,
    for_seconds: Option<f64>,
    keep_seconds: Option<f64>,
    enabled: Option<bool>,
}

impl NewRule {
    fn named(self, name: &str) -> Result<Rule, Problem> {
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            return Err(Problem::field("name", "must be one line of 1 to 63 bytes"));
        }
        let steps: Result<Vec<Step>, Problem> =
            self.steps.iter().map(|s| step(self.metric, s)).collect();
        let steps = steps?;
        let ascends = steps.windows(2).all(|two| two[0].at < two[1].at);
        if steps.is_empty() || steps.len() > STEPS_MAX || !ascends {
            let what = format!("must be 1 to {STEPS_MAX} steps, the lowest first");
            return Err(Problem::field("steps", what));
        }
        Ok(Rule {
            name: name.to_owned(),
            metric: self.metric,
            level: self.level,
            dimension: self.dimension,
            steps,
            for_ms: wait("forSeconds", self.for_seconds.unwrap_or(300.0))?,
            keep_ms: wait("keepSeconds", self.keep_seconds.unwrap_or(900.0))?,
            enabled: self.enabled.unwrap_or(true),
        })
    }
}

/// A step in the metric's values. It clears five percent lower, of a share five points, unless it says.
fn step(metric: Watched, of: &NewStep) -> Result<Step, Problem> {
    let lower = match metric.is_percent() {
        true => (of.at - 5.0).max(0.0),
        false if metric.scale() == 1 && of.at <= 1.0 => of.at,
        false => of.at * 0.95,
    };
    let value = |number: f64| {
        let value = number * metric.scale() as f64;
        let fits = number > 0.0 && value <= VALUE_MAX;
        fits.then(|| value.round() as u64)
            .ok_or_else(|| Problem::field("steps", "must be above 0 and not endlessly large"))
    };
    let (at, clear) = (value(of.at)?, value(of.clear.unwrap_or(lower))?);
    if clear > at {
        return Err(Problem::field(
            "steps",
            "must clear where they fire, or below",
        ));
    }
    Ok(Step { at, clear })
}

fn wait(field: &str, seconds: f64) -> Result<i64, Problem> {
    if (0.0..=WAIT_MAX_S).contains(&seconds) {
        Ok((seconds * 1000.0) as i64)
    } else {
        let what = format!("must be from 0 to {WAIT_MAX_S} seconds");
        Err(Problem::field(field, what))
    }
}

pub(super) async fn put_rule(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(new): Body<NewRule>,
) -> Answer {
    caller.admin()?;
    let new = new.named(&name)?;
    let shown = rule(&new);
    let actor = caller.actor(&app, None);
    let is_new = app.store.put_alert_rule(new, actor).await?;
    app.wake.alerts.notify_one();
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(shown)).into_response())
}

pub(super) async fn remove_rule(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Response> {
    caller.admin()?;
    let actor = caller.actor(&app, None);
    app.store.remove_alert_rule(name, actor).await?;
    app.wake.alerts.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn silence(of: &Silence) -> Value {
    json!({
        "id": of.id, "rule": of.matcher.rule, "name": of.matcher.name, "part": of.matcher.part,
        "until": output::time(of.until_ms), "by": of.by, "reason": of.reason,
    })
}

pub(super) async fn silences(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let silences = app.store.silences(app.clock.now_ms()).await?;
    Ok(Json(
        json!({"items": silences.iter().map(silence).collect::<Vec<_>>()}),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSilence {
    rule: Option<Text>,
    name: Option<Text>,
    part: Option<Text>,
    until: Timestamp,
    reason: Option<Text>,
}

pub(super) async fn add_silence(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<NewSilence>,
) -> Answer {
    caller.admin()?;
    let matcher = Matcher {
        rule: new.rule.map(|text| text.0),
        name: new.name.map(|text| text.0),
        part: new.part.map(|text| text.0),
    };
    let actor = caller.actor(&app, new.reason.map(|text| text.0));
    let until_ms = new.until.as_millisecond();
    let made = app.store.add_silence(matcher, until_ms, actor).await?;
    app.wake.alerts.notify_one();
    Ok((StatusCode::CREATED, Json(silence(&made))).into_response())
}

pub(super) async fn end_silence(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Response> {
    caller.admin()?;
    let absent = |_| Problem::not_found("silence", &id);
    let known: Uuid = id.parse().map_err(absent)?;
    let actor = caller.actor(&app, None);
    app.store.end_silence(known, actor).await?;
    app.wake.alerts.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}
