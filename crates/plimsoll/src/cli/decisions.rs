//! `plimsoll decisions`, `why`, `explain`, `validate` and `violations`: what was decided, and why.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use http::Method;
use plimsoll_core::Dimension;
use serde_json::{Map, Value, json};

use super::amounts::{ago, ahead, charged, items, label, text};
use super::answer::Answer;
use super::args::{DecisionsFlags, ValidateFlags, ViolationsFlags};
use super::client::{Client, path, query};
use super::compose;
use super::error::{CliError, Exit};
use super::table::{Align, Table, cut};
use super::text::{printable, printable_lines};
use super::users::put;
use super::who::{self, Entity};

pub(super) async fn list(
    client: &Client,
    flags: &DecisionsFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let outcome = match (flags.refused, flags.allowed) {
        (true, _) => Some("refused"),
        (_, true) => Some("allowed"),
        _ => None,
    };
    let most = flags.limit.to_string();
    let which = query(&[
        ("user", flags.user.as_deref()),
        ("outcome", outcome),
        ("limit", Some(&most)),
    ]);
    let decisions = client.get(&(path(&["decisions"]) + &which)).await?;
    let mut table = Table::new(&[
        ("DECISION", Align::Left),
        ("WHEN", Align::Right),
        ("USER", Align::Left),
        ("ACTION", Align::Left),
        ("OUTCOME", Align::Left),
    ]);
    for decision in items(&decisions) {
        table.row([
            text(decision, "id"),
            ago(&decision["at"], now_ms),
            cut(&text(decision, "user"), 10),
            text(decision, "action"),
            outcome_of(decision),
        ]);
    }
    Ok(Answer::new(decisions, table.render()))
}

fn outcome_of(decision: &Value) -> String {
    if decision["allowed"] == true {
        return "allowed".to_owned();
    }
    let violations = decision["violations"].as_array().into_iter().flatten();
    let mut short: Vec<&str> = violations
        .filter(|v| v["enforced"] == true)
        .filter_map(|v| v["dimension"].as_str())
        .collect();
    short.dedup();
    format!("refused: {}", short.join(", "))
}

pub(super) async fn explain(client: &Client, id: &str, now_ms: i64) -> Result<Answer, CliError> {
    let decision = client.get(&path(&["decisions", id])).await?;
    let page = page(&decision, now_ms);
    Ok(Answer::new(decision, page))
}

/// The last refusal of a user, or of the caller.
pub(super) async fn why(
    client: &Client,
    user: Option<&str>,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let user = match user {
        Some(user) => Some(user.to_owned()),
        None => who::me(client).await?,
    };
    let which = query(&[
        ("user", user.as_deref()),
        ("outcome", Some("refused")),
        ("limit", Some("1")),
    ]);
    let decisions = client.get(&(path(&["decisions"]) + &which)).await?;
    let last = items(&decisions).next().cloned();
    Ok(match last {
        Some(decision) => {
            let page = page(&decision, now_ms);
            Answer::new(decision, page)
        }
        None => Answer::new(Value::Null, "nothing was refused\n".to_owned()),
    })
}

fn page(decision: &Value, now_ms: i64) -> String {
    let mut page = String::new();
    let outcome = if decision["allowed"] == true {
        "allowed"
    } else {
        "refused"
    };
    let _ = writeln!(
        page,
        "decision {}: {outcome} {}, at {}",
        printable(&text(decision, "id")),
        ago(&decision["at"], now_ms),
        printable(&text(decision, "at")),
    );
    let team = decision["team"]
        .as_str()
        .map(|team| format!(" in team {team}"));
    let asked: Vec<String> = Dimension::CHARGED
        .into_iter()
        .filter_map(|d| {
            Some((
                d,
                charged(&decision["requested"], "", d).filter(|n| *n > 0)?,
            ))
        })
        .map(|(d, n)| format!("{} {}", label(d), d.show(n)))
        .collect();
    let line = format!(
        "{}{} asked for {} on host {}: {}",
        text(decision, "user"),
        team.unwrap_or_default(),
        text(decision, "action"),
        text(decision, "host"),
        asked.join(", "),
    );
    let _ = writeln!(page, "{}", printable(&line));
    page.push_str(&reasons(decision));
    page
}

/// What stood in the way and what would help.
fn reasons(of: &Value) -> String {
    let mut shown = String::new();
    let violations: Vec<&Value> = of["violations"].as_array().into_iter().flatten().collect();
    if !violations.is_empty() {
        shown.push_str("\nin the way\n");
        for v in &violations {
            let watching = if v["enforced"] == false {
                " (only watched)"
            } else {
                ""
            };
            let line = format!("  {}: {}{watching}", text(v, "dimension"), text(v, "text"));
            let _ = writeln!(shown, "{}", printable_lines(&line));
        }
    }
    let remedies: Vec<&Value> = of["remedies"].as_array().into_iter().flatten().collect();
    if !remedies.is_empty() {
        shown.push_str("\nto make it fit\n");
        for remedy in remedies {
            let words = text(remedy, "text");
            let _ = writeln!(shown, "  - {}", printable(&words));
            if let Some(command) = remedy["command"].as_str().filter(|c| *c != words) {
                let _ = writeln!(shown, "      {}", printable(command));
            }
        }
    }
    shown
}

pub(super) async fn validate(client: &Client, flags: &ValidateFlags) -> Result<Answer, CliError> {
    let (kind, name) = match Entity::of(client, &flags.who).await? {
        Entity::User(name) => ("user", name),
        Entity::Team(name) => ("team", name),
        Entity::System => {
            return Err(CliError::Usage(
                "name the user or team whose request it is: plimsoll validate user NAME ..."
                    .to_owned(),
            ));
        }
    };
    let mut body = Map::from_iter([
        ("entityType".to_owned(), json!(kind)),
        ("entityId".to_owned(), json!(name)),
    ]);
    match &flags.file {
        Some(file) => body.extend(services(file)?),
        None => drop(body.insert("resourceRequest".to_owned(), flags.request.body())),
    }
    put(&mut body, "team", flags.team.as_deref());
    put(&mut body, "project", flags.project.as_deref());
    let to = path(&["quotas", "validate"]);
    let answer = client
        .send(Method::POST, &to, Some(&Value::Object(body)))
        .await?;
    let allowed = answer["allowed"] == true;
    let verdict = if allowed {
        "it fits\n"
    } else {
        "it does not fit\n"
    };
    let page = format!("{}{verdict}{}", verdicts(&answer), reasons(&answer));
    let mut answer = Answer::new(answer, page);
    if !allowed {
        answer.exit = Exit::Refused;
    }
    Ok(answer)
}

/// What a Compose file asks for.
#[expect(
    clippy::disallowed_methods,
    reason = "a Compose file has its variables from whoever reads it"
)]
fn services(file: &Path) -> Result<Map<String, Value>, CliError> {
    let shown = file.display();
    let io = |source| CliError::Io {
        verb: "read",
        path: shown.to_string(),
        source,
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(io)?;
    opened
        .take(compose::FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(io)?;
    if text.len() as u64 > compose::FILE_MAX {
        let most = compose::FILE_MAX >> 20;
        return Err(CliError::Usage(format!(
            "{shown}: is larger than {most} MiB"
        )));
    }
    let folder = std::path::absolute(file).map_err(io)?;
    let folder = folder.parent().and_then(Path::file_name);
    let folder = folder.unwrap_or_default().to_string_lossy();
    let env = |name: &str| std::env::var(name).ok();
    compose::read(&text, &folder, &env)
        .map_err(|why| CliError::Usage(printable_lines(&format!("{shown}: {why}"))))
}

/// One line for each service that was asked about.
fn verdicts(answer: &Value) -> String {
    let Some(services) = answer["services"].as_array() else {
        return String::new();
    };
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("REPLICAS", Align::Right),
        ("ASKS FOR", Align::Left),
        ("BY ITSELF", Align::Left),
    ]);
    for service in services {
        let asks: Vec<String> = [Dimension::Cpu, Dimension::Memory, Dimension::Gpus]
            .into_iter()
            .filter_map(|d| Some((d, charged(&service["request"], "", d).filter(|n| *n > 0)?)))
            .map(|(d, n)| format!("{} {}", label(d), d.show(n)))
            .collect();
        table.row([
            text(service, "name"),
            text(service, "replicas"),
            asks.join(", "),
            match (
                service["allowed"] == true,
                service["violations"][0].is_null(),
            ) {
                (true, _) => "fits".to_owned(),
                (false, true) => text(service, "message"),
                (false, false) => outcome_of(service),
            },
        ]);
    }
    format!("{}\n", table.render())
}

pub(super) async fn violations(
    client: &Client,
    flags: &ViolationsFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let which = query(&[
        ("user", flags.user.as_deref()),
        ("team", flags.team.as_deref()),
        ("kind", flags.kind.as_deref()),
        ("dimension", flags.dimension.as_deref()),
        ("status", flags.all.then_some("all")),
    ]);
    let violations = client
        .get(&(path(&["quotas", "violations"]) + &which))
        .await?;
    let mut table = Table::new(&[
        ("OF", Align::Left),
        ("LIMIT ON", Align::Left),
        ("KIND", Align::Left),
        ("NOW", Align::Right),
        ("PEAK", Align::Right),
        ("LIMIT", Align::Right),
        ("SINCE", Align::Right),
        ("STATE", Align::Left),
        ("BEHIND IT", Align::Left),
        ("STEPS", Align::Left),
    ]);
    for violation in items(&violations) {
        let dimension = violation["dimension"]
            .as_str()
            .and_then(Dimension::from_name);
        let shown = |field: &str| match (dimension, violation[field].as_f64()) {
            (Some(d), Some(n)) => d
                .from_human(n)
                .map_or_else(|_| n.to_string(), |n| d.show(n)),
            _ => text(violation, field),
        };
        let state = if violation["open"] == true {
            "open"
        } else {
            "closed"
        };
        table.row([
            format!("{} {}", text(violation, "level"), text(violation, "entity")),
            text(violation, "dimension"),
            text(violation, "kind"),
            shown("current"),
            shown("peak"),
            shown("limit"),
            ago(&violation["openedAt"], now_ms),
            state.to_owned(),
            behind(violation),
            steps(violation, now_ms),
        ]);
    }
    let page = if table.is_empty() {
        "no limit is exceeded\n".to_owned()
    } else {
        table.render()
    };
    Ok(Answer::new(violations, page))
}

/// What will be done about it, and was.
fn steps(violation: &Value, now_ms: i64) -> String {
    let all = violation["steps"].as_array().into_iter().flatten();
    let open = all.filter(|s| s["endedAt"].is_null());
    let shown = open.map(|s| {
        let (what, container) = (text(s, "step"), text(s, "container"));
        match s["doneAt"].is_null() {
            true => format!("{what} {container} {}", ahead(&s["dueAt"], now_ms)),
            false => format!("{what} {container} {}", ago(&s["doneAt"], now_ms)),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The containers that hold most.
fn behind(violation: &Value) -> String {
    let all = violation["behind"].as_array().into_iter().flatten();
    let named: Vec<String> = all.map(|b| text(b, "container")).collect();
    match named.as_slice() {
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} and {} more", rest.len())
        }
        named => named.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_explained_with_what_would_help() {
        let decision = json!({
            "id": "d1", "at": "1970-01-01T00:00:01Z", "allowed": false, "user": "ada",
            "team": "ml", "action": "create", "host": "local",
            "requested": {"cpuCores": 1, "memoryGB": 6, "gpus": 0},
            "violations": [
                {"dimension": "memory", "text": "asked 6 GiB, 3 GiB of 8 GiB free for user ada",
                 "enforced": true, "neverFits": false},
                {"dimension": "cpu", "text": "t\u{1b}[1m", "enforced": false, "neverFits": true},
            ],
            "remedies": [{"text": "stop `nb`", "command": "docker stop nb"}, {"text": "ask root"}],
        });
        assert_eq!(
            page(&decision, 4000),
            "decision d1: refused 3s ago, at 1970-01-01T00:00:01Z\n\
             ada in team ml asked for create on host local: cpu 1, memory 6 GiB\n\
             \nin the way\n\
             \x20 memory: asked 6 GiB, 3 GiB of 8 GiB free for user ada\n\
             \x20 cpu: t\\u{1b}[1m (only watched)\n\
             \nto make it fit\n\
             \x20 - stop `nb`\n\
             \x20     docker stop nb\n\
             \x20 - ask root\n"
        );
        assert_eq!(outcome_of(&decision), "refused: memory");
    }
}
