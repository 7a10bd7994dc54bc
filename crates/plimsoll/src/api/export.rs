//! `GET /api/usage/export`: everything that is kept, as one table for other programs.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Kept, Level, Place};
use serde::{Deserialize, Deserializer};

use super::analytics::quoted;
use super::auth::Caller;
use super::history::{Asked, CSV, ask, period, time_text};
use super::input::Params;
use super::problem::Answer;
use super::view::View;
use crate::state::App;

/// Entities' hours or days that are read together.
const PART: usize = 64;

const HEAD: &str = "time,entityType,entityId,name,user,team,project,image,host,metric,unit,\
                    average,max,total,samples\n";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    level: Option<Finely>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    metric: Option<Metrics>,
    #[serde(rename = "entityType")]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Finely {
    #[serde(rename = "raw")]
    Raw,
    #[serde(rename = "5m")]
    Five,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "1d")]
    Day,
}

impl Finely {
    const fn level(self) -> Level {
        match self {
            Self::Raw => Level::Raw,
            Self::Five => Level::Five,
            Self::Hour => Level::Hour,
            Self::Day => Level::Day,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    System,
    Host,
    Team,
    User,
    Project,
    Container,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Host => "host",
            Self::Team => "team",
            Self::User => "user",
            Self::Project => "project",
            Self::Container => "container",
        }
    }
}

/// Metrics by name, with commas between them.
#[derive(Debug)]
struct Metrics(HashSet<Metric>);

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = text.split(',').map(Metric::parse).collect::<Option<_>>();
        found.map(Self).ok_or_else(|| {
            let names = Metric::ALL.map(Metric::name).join(", ");
            serde::de::Error::custom(format!("must be some of {names}, with commas between them"))
        })
    }
}

pub(super) async fn export(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer {
    let (from_ms, to_ms) = period(which.from, which.to, app.clock.now_ms())?;
    let walk = Walk {
        view: View::of(&app, &caller).await?,
        level: which.level.unwrap_or(Finely::Hour).level(),
        range: from_ms..to_ms,
        kind: which.kind.map(Kind::name),
        columns: columns(which.metric.as_ref()),
        place: None,
        app,
    };
    let head = stream::iter([Ok(Bytes::from_static(HEAD.as_bytes()))]);
    let rows = stream::unfold(Some(walk), |walk| async { walk?.next().await });
    let table = futures_util::StreamExt::chain(head, rows);
    Ok(([(CONTENT_TYPE, CSV)], Body::from_stream(table)).into_response())
}

/// The metrics that are wanted, by their stored order.
fn columns(wanted: Option<&Metrics>) -> Vec<Option<Asked>> {
    let is_wanted = |metric: &Metric| wanted.is_none_or(|wanted| wanted.0.contains(metric));
    let all = Metric::ALL.into_iter();
    all.map(|metric| Asked::named(metric.name()).filter(|_| is_wanted(&metric)))
        .collect()
}

/// How far a table is.
struct Walk {
    app: Arc<App>,
    view: View,
    level: Level,
    range: Range<i64>,
    kind: Option<&'static str>,
    columns: Vec<Option<Asked>>,
    place: Option<Place>,
}

impl Walk {
    /// The next rows. A history that cannot be read any more ends the table, and its reader notices.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let (level, range, place) = (self.level, self.range.clone(), self.place);
        let read = ask(&self.app, move |history| {
            history.kept(level, &range, place, PART)
        });
        match read.await {
            Ok((all, next)) => {
                let rows = self.rows(&all);
                self.place = next;
                Some((Ok(rows), next.is_some().then_some(self)))
            }
            Err(problem) => {
                tracing::warn!(?problem, "an export ends early");
                Some((Err(io::ErrorKind::Other.into()), None))
            }
        }
    }

    fn rows(&self, all: &[Kept]) -> Bytes {
        let mut rows = String::new();
        for kept in all {
            let (kind, id) = kept.entity.split_once(':').unwrap_or((&kept.entity, ""));
            let is_wanted = self.kind.is_none_or(|wanted| wanted == kind);
            if !is_wanted || !self.view.shows(&kept.entity, &kept.labels) {
                continue;
            }
            let labels = &kept.labels;
            let known = [
                &labels.name,
                &labels.user,
                &labels.team,
                &labels.project,
                &labels.image,
                &labels.host,
            ];
            let known = known.map(|text| quoted(text.as_deref().unwrap_or_default()));
            let entity = format!("{kind},{},{}", quoted(id), known.join(","));
            for (metric, bucket) in &kept.points {
                let Some(Some(column)) = self.columns.get(*metric as usize) else {
                    continue;
                };
                let _ = writeln!(
                    rows,
                    "{},{entity},{},{},{},{},{},{}",
                    time_text(bucket.at_ms),
                    column.name,
                    column.unit,
                    column.shown(bucket.value),
                    column.shown(bucket.max as f64),
                    column.total(bucket.total),
                    bucket.samples,
                );
            }
        }
        rows.into()
    }
}
