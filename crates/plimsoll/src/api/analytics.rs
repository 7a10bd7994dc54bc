//! `GET /api/usage/analytics`: who and what used how much.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use plimsoll_store::history::{Bucket, Extent, Labels, Scan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::Caller;
use super::history::{Asked, Format, Span, ask, csv, period, time_text};
use super::input::{Params, page_size};
use super::output::time;
use super::problem::{Answer, Problem};
use super::view::View;
use crate::state::App;
use crate::tasks::history::CONTAINER;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(rename = "groupBy")]
    group_by: By,
    metric: Asked,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    interval: Option<Span>,
    compare: Option<Compare>,
    percentile: Option<f64>,
    limit: Option<u32>,
    format: Option<Format>,
}

/// What is summed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    User,
    Team,
    Project,
    Container,
    Image,
    Host,
}

impl By {
    /// What the keys of the entities begin with that are summed.
    const fn prefix(self) -> &'static str {
        match self {
            Self::User => "user:",
            Self::Team => "team:",
            Self::Project | Self::Container | Self::Image | Self::Host => CONTAINER,
        }
    }

    /// The group an entity is in, and what it is called.
    fn group(self, entity: &str, labels: &Labels) -> (Option<String>, Option<String>) {
        let own = || Some(entity.strip_prefix(self.prefix())?.to_owned());
        match self {
            Self::User | Self::Team | Self::Container => (own(), labels.name.clone()),
            Self::Project => (labels.project.clone(), labels.project.clone()),
            Self::Image => (labels.image.clone(), labels.image.clone()),
            Self::Host => (labels.host.clone(), labels.host.clone()),
        }
    }
}

/// What to hold a period against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compare {
    /// The span of the same length before it.
    Previous,
}

/// One group.
#[derive(Debug, Default)]
struct Group {
    name: Option<String>,
    total: f64,
    max: u64,
    percentile: Option<u64>,
    reserved: f64,
    buckets: BTreeMap<i64, Part>,
    previous: f64,
}

/// A group in a part of the time.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    total: f64,
    max: u64,
    reserved: f64,
}

/// What was reserved and not used.
fn idle(reserved: f64, used: f64) -> f64 {
    (reserved - used).max(0.0)
}

type Groups = BTreeMap<Option<String>, Group>;

pub(super) async fn breakdown(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer {
    let limit = page_size(which.limit)?;
    let permille = permille(which.percentile)?;
    let now_ms = app.clock.now_ms();
    let (from_ms, to_ms) = period(which.from, which.to, now_ms)?;
    let view = View::of(&app, &caller).await?;
    let (by, metric) = (which.group_by, which.metric.metric);
    let mut step_ms = which.interval.map(|span| span.0);
    let compare = which.compare.is_some();
    let scan = Scan {
        prefix: by.prefix(),
        metric,
        from_ms,
        to_ms,
        step_ms,
        now_ms,
    };
    step_ms = scan.whole_step_ms();
    let groups = ask(&app, move |history| {
        let mut groups = Groups::new();
        for extent in history.scan(&scan)? {
            add(&mut groups, &view, by, &extent);
        }
        if let Some(metric) = metric.reserved() {
            for extent in history.scan(&Scan { metric, ..scan })? {
                add_reserved(&mut groups, &view, by, &extent);
            }
        }
        if compare {
            let before = Scan {
                from_ms: from_ms - (to_ms - from_ms),
                to_ms: from_ms,
                step_ms: None,
                ..scan
            };
            for extent in history.scan(&before)? {
                let (key, _) = by.group(&extent.entity, &extent.labels);
                if let Some(group) = groups
                    .get_mut(&key)
                    .filter(|_| view.shows(&extent.entity, &extent.labels))
                {
                    group.previous += extent.buckets.iter().map(|b| b.total).sum::<f64>();
                }
            }
        }
        if let Some(permille) = permille {
            for (entity, labels, value) in history.percentiles(&scan, permille)? {
                let (key, _) = by.group(&entity, &labels);
                if let Some(group) = groups
                    .get_mut(&key)
                    .filter(|_| view.shows(&entity, &labels))
                {
                    group.percentile = group.percentile.max(Some(value));
                }
            }
        }
        Ok(groups)
    });
    let groups = ranked(groups.await?);
    let has_reserved = metric.reserved().is_some();
    let asked = &which.metric;
    let whole: f64 = groups.iter().map(|(_, group)| group.total).sum();
    let hours = |at_ms: i64, until_ms: i64| {
        let from_ms = at_ms.max(from_ms);
        (until_ms.min(to_ms).min(now_ms) - from_ms).max(1) as f64 / 3_600_000.0
    };
    let over = |total: f64, hours: f64| asked.shown(asked.total(total) * asked.divisor / hours);
    let bucket = |at_ms: i64, total: f64| {
        let until_ms = step_ms.map_or(to_ms, |step_ms| at_ms + step_ms);
        over(total, hours(at_ms, until_ms))
    };
    let shown = groups.iter().take(limit as usize);
    if Format::of(which.format, &headers) == Format::Csv {
        return Ok(rows(asked, bucket, shown));
    }
    let items = shown.map(|(key, group)| {
        let mut item = json!({
            "key": key, "name": group.name,
            "total": asked.total(group.total),
            "average": over(group.total, hours(from_ms, to_ms)),
            "max": asked.shown(group.max as f64),
            "share": if whole > 0.0 { group.total / whole } else { 0.0 },
        });
        if has_reserved {
            item["reservedTotal"] = json!(asked.total(group.reserved));
            item["idleTotal"] = json!(asked.total(idle(group.reserved, group.total)));
        }
        if compare {
            item["previousTotal"] = json!(asked.total(group.previous));
        }
        if permille.is_some() {
            item["percentile"] = json!(group.percentile.map(|value| asked.shown(value as f64)));
        }
        if step_ms.is_some() {
            let points = group.buckets.iter();
            let points = points.map(|(at_ms, part)| {
                json!([
                    at_ms,
                    bucket(*at_ms, part.total),
                    asked.shown(part.max as f64)
                ])
            });
            item["points"] = Value::Array(points.collect());
        }
        item
    });
    let body = json!({
        "groupBy": by, "metric": asked.name, "unit": asked.unit,
        "from": time(from_ms), "to": time(to_ms),
        "intervalSeconds": step_ms.map(|ms| ms / 1000),
        "groups": groups.len(), "items": items.collect::<Vec<Value>>(),
    });
    Ok(Json(body).into_response())
}

fn permille(percentile: Option<f64>) -> Result<Option<u32>, Problem> {
    match percentile {
        None => Ok(None),
        Some(percent) if (0.1..=100.0).contains(&percent) => {
            Ok(Some((percent * 10.0).round() as u32))
        }
        Some(_) => Err(Problem::field("percentile", "must be from 0.1 to 100")),
    }
}

fn add(groups: &mut Groups, view: &View, by: By, extent: &Extent) {
    if !view.shows(&extent.entity, &extent.labels) {
        return;
    }
    let (key, name) = by.group(&extent.entity, &extent.labels);
    let group = groups.entry(key).or_default();
    group.name = name;
    for Bucket {
        at_ms, max, total, ..
    } in &extent.buckets
    {
        group.total += total;
        group.max = group.max.max(*max);
        let part = group.buckets.entry(*at_ms).or_default();
        part.total += total;
        part.max = part.max.max(*max);
    }
}

/// Adds what was reserved, also for those that used nothing.
fn add_reserved(groups: &mut Groups, view: &View, by: By, extent: &Extent) {
    let reserved = extent.buckets.iter().filter(|bucket| bucket.total > 0.0);
    if !view.shows(&extent.entity, &extent.labels) {
        return;
    }
    let (key, name) = by.group(&extent.entity, &extent.labels);
    for Bucket { at_ms, total, .. } in reserved {
        let group = groups.entry(key.clone()).or_default();
        group.name.clone_from(&name);
        group.reserved += total;
        group.buckets.entry(*at_ms).or_default().reserved += total;
    }
}

/// The greatest total first.
fn ranked(groups: Groups) -> Vec<(Option<String>, Group)> {
    let mut ranked: Vec<_> = groups.into_iter().collect();
    ranked.sort_by(|(_, a), (_, b)| b.total.total_cmp(&a.total));
    ranked
}

fn rows<'a>(
    asked: &Asked,
    average: impl Fn(i64, f64) -> f64,
    shown: impl Iterator<Item = &'a (Option<String>, Group)>,
) -> Response {
    let has_reserved = asked.metric.reserved().is_some();
    let line = |(key, group): &(Option<String>, Group)| {
        let text = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
        let head = format!("{},{}", text(key), text(&group.name));
        let parts = group.buckets.iter().map(|(at_ms, part)| {
            let (at, max) = (time_text(*at_ms), asked.shown(part.max as f64));
            let (total, average) = (asked.total(part.total), average(*at_ms, part.total));
            let more = if has_reserved {
                let idle = asked.total(idle(part.reserved, part.total));
                format!(",{},{idle}", asked.total(part.reserved))
            } else {
                String::new()
            };
            format!("{head},{at},{total},{average},{max}{more}")
        });
        parts.collect::<Vec<_>>().join("\n")
    };
    let head = match has_reserved {
        true => "key,name,time,total,average,max,reserved,idle",
        false => "key,name,time,total,average,max",
    };
    csv(head, shown.map(line))
}

/// A field of CSV; what a spreadsheet would take for a formula is text.
pub(super) fn quoted(text: &str) -> String {
    let guard = match text.starts_with(['=', '+', '-', '@']) {
        true => "'",
        false => "",
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_csv_are_text() {
        for (text, field) in [
            ("web", "\"web\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("=1+1", "\"'=1+1\""),
        ] {
            assert_eq!(quoted(text), field);
        }
    }
}
