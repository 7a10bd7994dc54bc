//! Prunes: what is listed of one's own is deleted one by one.

use http::{Response, StatusCode};
use jiff::Timestamp;
use plimsoll_host::request::moment::moment;
use plimsoll_host::request::query::{Filters, QueryBuilder};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::{lifecycle, view};

/// What a prune leaves alone by its filters: what is younger than `until`, and what has one of these
/// labels.
#[derive(Debug)]
pub(super) struct Spared {
    until: Option<Timestamp>,
    unlike: Vec<String>,
}

impl Spared {
    /// Takes `until` and `label!` out of the filters.
    pub(super) fn taken(filters: &mut Filters, now_ms: i64) -> Result<Self, Refused> {
        let until = match filters.remove("until").unwrap_or_default().as_slice() {
            [] => None,
            [one] => {
                let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
                Some(moment("query filters: until", one, now)?)
            }
            _ => {
                let reason = "until must be given once".to_owned();
                return Err(Refused::bad("query filters", reason));
            }
        };
        let unlike = filters.remove("label!").unwrap_or_default();
        Ok(Self { until, unlike })
    }

    /// What does not say when it was made is spared where that matters.
    pub(super) fn spares(&self, created: Option<Timestamp>, labels: &Value) -> bool {
        let is_young = |until: Timestamp| created.is_none_or(|created| created > until);
        self.until.is_some_and(is_young) || self.unlike.iter().any(|l| has_label(labels, l))
    }
}

/// Whether something has the label `KEY` or `KEY=VALUE`.
pub(super) fn has_label(labels: &Value, label: &str) -> bool {
    let (key, wanted) = label
        .split_once('=')
        .map_or((label, None), |(k, v)| (k, Some(v)));
    let value = labels.get(key).and_then(Value::as_str);
    value.is_some_and(|value| wanted.is_none_or(|wanted| value == wanted))
}

/// Every container of the caller's that does not run.
pub(super) async fn containers(mut call: Call) -> Result<Response<Body>, Refused> {
    let mut filters = call.query.filters(&["label", "label!", "until"])?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let (app, user) = (call.app, call.user);
    let spared = Spared::taken(&mut filters, app.clock.now_ms())?;
    let ended = ["created", "dead", "exited"].map(str::to_owned);
    filters.insert("status".to_owned(), ended.to_vec());
    let query = QueryBuilder::new().bool("all", true).bool("size", true);
    let done = tokio::spawn(async move {
        let (mut deleted, mut space) = (Vec::new(), 0u64);
        for container in view::own_shown(&app, &user, query, filters).await? {
            let created = container["Created"].as_i64();
            let created = created.and_then(|at| Timestamp::from_second(at).ok());
            let Some(id) = container["Id"].as_str() else {
                continue;
            };
            if spared.spares(created, &container["Labels"]) {
                continue;
            }
            // One that was started meanwhile stays.
            if lifecycle::remove_ended(&app, id).await.is_ok() {
                deleted.push(id.to_owned());
                let size = container["SizeRw"].as_u64();
                space = space.saturating_add(size.unwrap_or_default());
            }
        }
        let body = json!({"ContainersDeleted": deleted, "SpaceReclaimed": space});
        Ok(answer::json(StatusCode::OK, &body))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

/// The classic builder keeps nothing but images.
pub(super) fn build(mut call: Call) -> Result<Response<Body>, Refused> {
    for name in [
        "all",
        "filters",
        "keep-storage",
        "max-used-space",
        "min-free-space",
        "reserved-space",
    ] {
        call.query.raw(name);
    }
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let body = json!({"CachesDeleted": null, "SpaceReclaimed": 0});
    Ok(answer::json(StatusCode::OK, &body))
}
