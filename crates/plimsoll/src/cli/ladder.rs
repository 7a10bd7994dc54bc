//! The ladder on the command line: `throttle=5m,stop=1h,memory.stop=10m,announce=2m,scavenger`.

use http::Method;
use plimsoll_core::Dimension;
use plimsoll_core::ladder::{Policy, Rungs, Step};
use serde_json::{Map, Value, json};

use super::amounts::{ago, text};
use super::answer::Answer;
use super::args::{EnforceFlags, ShadowCommand};
use super::client::{Client, query};
use super::error::CliError;
use super::history::time;
use super::table::{Align, Table};
use super::text::printable;
use super::users::{put, word};
use super::when::{self, When};
use super::who::Entity;

/// What is done where a limit is exceeded; `None` is what the class says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ladder(pub(super) Option<Policy>);

/// Reads what `--ladder` says.
///
/// # Errors
/// In words.
pub(super) fn parse(text: &str) -> Result<Ladder, String> {
    match text {
        "class" => return Ok(Ladder(None)),
        "none" => return Ok(Ladder(Some(Policy::default()))),
        _ => {}
    }
    let mut policy = Policy::default();
    for part in text.split(',') {
        let (name, span) = part.split_once('=').unwrap_or((part, ""));
        let seconds = || match when::parse(span) {
            Ok(When::AfterSeconds(s)) => Ok(s.unsigned_abs()),
            _ => Err(format!("{span:?} is no span, like 90s or 5m")),
        };
        match name.split_once('.') {
            _ if part == "scavenger" => policy.scavenger = true,
            None if name == "announce" => policy.announce_seconds = seconds()?,
            None => *rung(&mut policy.steps, name)? = Some(seconds()?),
            Some((d, name)) => {
                let d = Dimension::from_name(d).ok_or_else(|| format!("{d:?} has no limit"))?;
                let rungs = policy.dimensions.entry(d).or_default();
                *rung(rungs, name)? = Some(seconds()?);
            }
        }
    }
    Ok(Ladder(Some(policy)))
}

fn rung<'r>(rungs: &'r mut Rungs, name: &str) -> Result<&'r mut Option<u64>, String> {
    match Step::from_name(name) {
        Some(Step::Throttle) => Ok(&mut rungs.throttle_after_seconds),
        Some(Step::Pause) => Ok(&mut rungs.pause_after_seconds),
        Some(Step::Stop) => Ok(&mut rungs.stop_after_seconds),
        None => Err(format!(
            "{name:?} is none of throttle, pause, stop, announce and scavenger"
        )),
    }
}

/// A ladder of the API's in the same words; `None` where the class says it.
pub(super) fn shown(ladder: &Value) -> Option<String> {
    let policy: Policy = serde_json::from_value(ladder.clone()).ok()?;
    let mut words = Vec::new();
    let all = policy.dimensions.iter().map(|(d, rungs)| (Some(d), rungs));
    for (d, rungs) in [(None, &policy.steps)].into_iter().chain(all) {
        let mut rungs = *rungs;
        for step in Step::ALL {
            if let Ok(Some(s)) = rung(&mut rungs, step.name()) {
                let of = d.map_or_else(String::new, |d| format!("{d}."));
                words.push(format!("{of}{}={s}s", step.name()));
            }
        }
    }
    if words.is_empty() && !policy.scavenger {
        return Some("none".to_owned());
    }
    words.push(format!("announce={}s", policy.announce_seconds));
    if policy.scavenger {
        words.push("scavenger".to_owned());
    }
    Some(words.join(","))
}

pub(super) async fn enforce(client: &Client, flags: EnforceFlags) -> Result<Answer, CliError> {
    if let Some(kind) = flags.kind {
        Entity::named(kind, flags.name.as_deref())?;
    }
    let mut body = Map::from_iter([("dryRun".to_owned(), json!(flags.dry_run))]);
    put(&mut body, "entityType", flags.kind.map(|kind| word(&kind)));
    put(&mut body, "entityId", flags.name);
    let path = "/api/quotas/enforce";
    let done = client
        .send(Method::POST, path, Some(&Value::Object(body)))
        .await?;
    let mut page = actions(&done["actions"]);
    if page.is_empty() {
        page = "no exceeded limit calls for anything\n".to_owned();
    }
    for failed in done["failed"].as_array().into_iter().flatten() {
        page.push_str("not done: ");
        page.push_str(&printable(failed.as_str().unwrap_or_default()));
        page.push('\n');
    }
    Ok(Answer::new(done, page))
}

/// What the ladder did, or would do; nothing where that is nothing.
fn actions(all: &Value) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("STEP", Align::Left),
        ("CONTAINER", Align::Left),
        ("OF", Align::Left),
        ("WHY", Align::Left),
    ]);
    for action in all.as_array().into_iter().flatten() {
        let columns = ["action", "step", "container", "user", "reason"];
        table.row(columns.map(|field| text(action, field)));
    }
    match table.is_empty() {
        true => String::new(),
        false => table.render(),
    }
}

pub(super) async fn shadow(
    client: &Client,
    ShadowCommand::Report { since }: &ShadowCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let from = since.before(now_ms).unwrap_or(0);
    let from = time(from);
    let path = format!("/api/quotas/shadow{}", query(&[("since", Some(&from))]));
    let report = client.get(&path).await?;
    let mut table = Table::new(&[
        ("WOULD BE REFUSED", Align::Left),
        ("LIMIT OF", Align::Left),
        ("ON", Align::Left),
        ("TIMES", Align::Right),
        ("FIRST", Align::Right),
        ("LAST", Align::Right),
    ]);
    for of in report["refused"].as_array().into_iter().flatten() {
        table.row([
            text(of, "user"),
            format!("{} {}", text(of, "level"), text(of, "entity")),
            text(of, "dimension"),
            text(of, "times"),
            ago(&of["first"], now_ms),
            ago(&of["last"], now_ms),
        ]);
    }
    let mut page = match table.is_empty() {
        true => "nothing would have been refused\n".to_owned(),
        false => table.render(),
    };
    let steps = actions(&report["steps"]);
    if !steps.is_empty() {
        page.push_str("\nwould be done now\n");
        page.push_str(&steps);
    }
    Ok(Answer::new(report, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_is_shown_as_it_is_written() {
        let text = "throttle=5m,stop=1h,memory.stop=10m,announce=2m,scavenger";
        let Ladder(policy) = parse(text).unwrap();
        let shown = shown(&serde_json::json!(policy)).unwrap();
        assert_eq!(
            shown,
            "throttle=300s,stop=3600s,memory.stop=600s,announce=120s,scavenger"
        );
        assert_eq!(parse(&shown).unwrap().0, policy);
        assert_eq!(parse("class").unwrap(), Ladder(None));
        assert_eq!(parse("none").unwrap(), Ladder(Some(Policy::default())));
        for wrong in ["", "kill=1m", "stop", "stop=soon", "tea.stop=1m"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
