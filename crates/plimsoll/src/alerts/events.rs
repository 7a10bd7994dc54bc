//! What people are told of alerts.

use plimsoll_core::alert::{Rule, Watched};
use plimsoll_core::entity::EntityKind;
use plimsoll_core::notice::{About, Event, EventKind, Severity};
use plimsoll_store::Alert;

/// What is told of alerts of one group; nothing of none.
pub(super) fn event(rule: &Rule, of: &[&Alert], is_over: bool, now_ms: i64) -> Option<Event> {
    let first = of.first()?;
    let about = first.about.clone();
    let titles: Vec<&str> = of.iter().map(|alert| alert.seen.title.as_str()).collect();
    let (who, titles) = (who(&about), titles.join(", "));
    let title = match is_over {
        true => format!("Over: {who}: {titles}"),
        false => format!("{who}: {titles}"),
    };
    let since = of
        .iter()
        .filter_map(|alert| alert.standing.since_ms())
        .min();
    let link = about.link();
    let mut event = Event::new(kind(rule), about, title, link, since.unwrap_or(now_ms));
    for alert in of {
        event = event.figure(&*alert.part, &*alert.seen.amount);
    }
    let mut by: Vec<String> = of.iter().flat_map(|a| a.seen.by.clone()).collect();
    by.sort();
    by.dedup();
    event.by = by;
    if let [only] = of {
        event.dimension = plimsoll_core::Dimension::from_name(&only.part);
    }
    event.percent = of.iter().filter_map(|alert| percent(rule, alert)).max();
    event.severity = severity(rule, event.percent, is_over);
    event.resolved = is_over;
    event.advice = advice(rule).filter(|_| !is_over).map(str::to_owned);
    Some(event)
}

/// Whether nobody but administrators is told.
pub(super) fn only_administrators(rule: &Rule, alert: &Alert) -> bool {
    let event = Event::new(kind(rule), alert.about.clone(), "", "", 0);
    let told = event.audience();
    told.admins && !told.own && !told.leads && !told.borrowers
}

const fn kind(rule: &Rule) -> EventKind {
    match rule.metric {
        Watched::Quota | Watched::Measured(_) => EventKind::Threshold,
        Watched::Pool => EventKind::PoolExhausted,
        Watched::Promised => EventKind::Overpromised,
        Watched::Unmanaged => EventKind::Unmanaged,
        Watched::Trouble | Watched::Disk => EventKind::Trouble,
        Watched::Violation => EventKind::Violation,
    }
}

/// The step that people hear of, in percent; its end goes to whom its beginning went.
fn percent(rule: &Rule, alert: &Alert) -> Option<u32> {
    if rule.metric == Watched::Violation {
        return Some(100);
    }
    let step = alert.standing.firing().max(alert.standing.told)?;
    let at = rule.steps.get(step - 1)?.at;
    let percent = u32::try_from(at / rule.metric.scale()).ok();
    percent.filter(|_| rule.metric.is_percent())
}

fn severity(rule: &Rule, percent: Option<u32>, is_over: bool) -> Severity {
    match rule.metric {
        _ if is_over => Severity::Info,
        Watched::Trouble | Watched::Disk => Severity::Critical,
        _ if percent.is_some_and(|percent| percent < 100) => Severity::Info,
        _ => Severity::Warning,
    }
}

const fn advice(rule: &Rule) -> Option<&'static str> {
    Some(match rule.metric {
        Watched::Quota => "Stop or shrink a container, or ask for more: docker quota request",
        Watched::Pool => {
            "Move allotments with plimsoll team redistribute, or ask for a larger limit"
        }
        Watched::Promised => "Lower quotas, or raise the system's overcommit",
        Watched::Unmanaged => "See plimsoll containers, and plimsoll doctor for who walks past",
        Watched::Trouble => "See plimsoll doctor and the server's log",
        Watched::Disk => "Make room on the disk with data_dir: without it nothing can be written",
        Watched::Violation => "Stop or shrink what is behind it",
        Watched::Measured(_) => return None,
    })
}

fn who(about: &About) -> String {
    match about.kind {
        EntityKind::Team => format!("team {}", about.name),
        EntityKind::User | EntityKind::System => about.name.clone(),
    }
}
