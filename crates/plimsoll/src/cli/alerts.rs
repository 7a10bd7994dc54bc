//! `plimsoll alert ...` and `plimsoll notify ...`

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::amounts::{ago, items, text};
use super::answer::Answer;
use super::client::{Client, path, query};
use super::error::CliError;
use super::table::{Align, Table};
use super::text::printable;
use super::users::{gone, put};
use super::when::When;

/// `alert ...`
#[derive(Debug, Subcommand)]
pub(super) enum AlertCommand {
    /// List what is pending or fires.
    #[command(visible_alias = "ls")]
    List,
    /// List what is watched.
    Rules,
    /// Add a rule, or replace the one of this name.
    Set(RuleFlags),
    /// Remove a rule.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name.
        rule: String,
    },
    /// Tell nobody of what it means, for a while.
    Silence(SilenceFlags),
    /// List silences that last.
    Silences,
    /// End a silence.
    Unsilence {
        /// Its id.
        silence: String,
    },
}

/// Flags of `alert set`.
#[derive(Debug, Args)]
pub(super) struct RuleFlags {
    /// Its name.
    rule: String,
    /// quota, pool, promised, unmanaged, trouble, disk, violation, or a metric of histories.
    #[arg(long)]
    metric: String,
    /// It fires from here on, percent or in the metric's unit; with where it goes on down to: 80:75.
    #[arg(long = "step", required = true, value_name = "AT[:CLEAR]", value_parser = step)]
    steps: Vec<Step>,
    /// Of users, teams or the system only.
    #[arg(long, value_parser = ["user", "team", "system"])]
    level: Option<String>,
    /// In this dimension only.
    #[arg(long, value_name = "NAME")]
    dimension: Option<String>,
    /// It has to last so long, seconds [default: 300].
    #[arg(long = "for", value_name = "SECONDS")]
    for_s: Option<f64>,
    /// It goes on for so long when it is calm, seconds [default: 900].
    #[arg(long = "keep", value_name = "SECONDS")]
    keep_s: Option<f64>,
    /// Keep it, but watch nothing.
    #[arg(long)]
    off: bool,
}

/// Flags of `alert silence`.
#[derive(Debug, Args)]
pub(super) struct SilenceFlags {
    /// Of this rule; of any unless named.
    #[arg(long)]
    rule: Option<String>,
    /// Of the user, team or host of this name.
    #[arg(long)]
    name: Option<String>,
    /// In this dimension, of this task.
    #[arg(long)]
    part: Option<String>,
    /// Until then: a time, a day, or a span from now (2h).
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    until: When,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
}

/// `notify ...`
#[derive(Debug, Subcommand)]
pub(super) enum NotifyCommand {
    /// Send a message to see whether it arrives.
    Test {
        /// To whom; yourself unless named, the administrators where you are no user.
        #[arg(long)]
        user: Option<String>,
    },
    /// List what goes over channels, what became of it, and what went wrong last.
    Deliveries {
        /// Those in this state only.
        #[arg(long, value_parser = ["waiting", "sent", "failed"])]
        state: Option<String>,
        /// The most.
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Step {
    at: f64,
    clear: Option<f64>,
}

fn step(text: &str) -> Result<Step, String> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| "must be like 80 or 80:75".to_owned())
    };
    let (at, clear) = match text.split_once(':') {
        Some((at, clear)) => (at, Some(number(clear)?)),
        None => (text, None),
    };
    let at = number(at)?;
    Ok(Step { at, clear })
}

pub(super) async fn run(
    client: &Client,
    command: AlertCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        AlertCommand::List => list(client, now_ms).await,
        AlertCommand::Rules => rules(client).await,
        AlertCommand::Set(flags) => set(client, flags).await,
        AlertCommand::Remove { rule } => {
            let status = client.delete(&path(&["alerts", "rules", &rule])).await?;
            Ok(gone("rule", &rule, status))
        }
        AlertCommand::Silence(flags) => silence(client, flags, now_ms).await,
        AlertCommand::Silences => silences(client).await,
        AlertCommand::Unsilence { silence } => {
            let all = path(&["alerts", "silences", &silence]);
            let status = client.delete(&all).await?;
            Ok(gone("silence", &silence, status))
        }
    }
}

async fn list(client: &Client, now_ms: i64) -> Result<Answer, CliError> {
    let alerts = client.get(&path(&["alerts"])).await?;
    let mut table = Table::new(&[
        ("STATE", Align::Left),
        ("RULE", Align::Left),
        ("OF", Align::Left),
        ("WHAT", Align::Left),
        ("HOW MUCH", Align::Left),
        ("SINCE", Align::Left),
    ]);
    for alert in items(&alerts) {
        let silenced = if alert["silenced"] == true {
            ", silenced"
        } else {
            ""
        };
        table.row([
            format!("{}{silenced}", text(alert, "state")),
            text(alert, "rule"),
            text(&alert["about"], "name"),
            text(alert, "title"),
            text(alert, "amount"),
            ago(&alert["since"], now_ms),
        ]);
    }
    Ok(rendered(alerts, &table, "nothing fires\n"))
}

fn rendered(json: Value, table: &Table, none: &str) -> Answer {
    match table.is_empty() {
        true => Answer::new(json, none.to_owned()),
        false => Answer::new(json, table.render()),
    }
}

async fn rules(client: &Client) -> Result<Answer, CliError> {
    let rules = client.get(&path(&["alerts", "rules"])).await?;
    let mut table = Table::new(&[
        ("RULE", Align::Left),
        ("METRIC", Align::Left),
        ("OF", Align::Left),
        ("STEPS", Align::Left),
        ("FOR", Align::Right),
        ("KEEP", Align::Right),
    ]);
    for rule in items(&rules) {
        let steps = rule["steps"].as_array().into_iter().flatten();
        let steps: Vec<String> = steps
            .map(|s| format!("{}:{}", s["at"], s["clear"]))
            .collect();
        let off = if rule["enabled"] == false {
            " (off)"
        } else {
            ""
        };
        table.row([
            format!("{}{off}", text(rule, "name")),
            text(rule, "metric"),
            format!("{} {}", text(rule, "level"), text(rule, "dimension")),
            steps.join(" "),
            format!("{} s", rule["forSeconds"]),
            format!("{} s", rule["keepSeconds"]),
        ]);
    }
    Ok(rendered(rules, &table, "nothing is watched\n"))
}

async fn set(client: &Client, flags: RuleFlags) -> Result<Answer, CliError> {
    let step = |step: &Step| json!({"at": step.at, "clear": step.clear});
    let steps: Vec<Value> = flags.steps.iter().map(step).collect();
    let mut body = Map::from_iter([
        ("metric".to_owned(), json!(flags.metric)),
        ("steps".to_owned(), json!(steps)),
        ("enabled".to_owned(), json!(!flags.off)),
    ]);
    put(&mut body, "level", flags.level);
    put(&mut body, "dimension", flags.dimension);
    put(&mut body, "forSeconds", flags.for_s);
    put(&mut body, "keepSeconds", flags.keep_s);
    let one = path(&["alerts", "rules", &flags.rule]);
    let rule = client
        .send(Method::PUT, &one, Some(&Value::Object(body)))
        .await?;
    Ok(Answer::new(
        rule,
        format!("set rule {}\n", printable(&flags.rule)),
    ))
}

async fn silence(client: &Client, flags: SilenceFlags, now_ms: i64) -> Result<Answer, CliError> {
    let mut body = Map::new();
    put(&mut body, "rule", flags.rule);
    put(&mut body, "name", flags.name);
    put(&mut body, "part", flags.part);
    put(&mut body, "until", flags.until.text(now_ms));
    put(&mut body, "reason", flags.reason);
    let all = path(&["alerts", "silences"]);
    let made = client
        .send(Method::POST, &all, Some(&Value::Object(body)))
        .await?;
    let said = format!(
        "silent until {}: {}\n",
        text(&made, "until"),
        text(&made, "id")
    );
    Ok(Answer::new(made, said))
}

async fn silences(client: &Client) -> Result<Answer, CliError> {
    let silences = client.get(&path(&["alerts", "silences"])).await?;
    let names = ["rule", "name", "part", "until", "by", "reason", "id"];
    let columns = ["RULE", "NAME", "PART", "UNTIL", "BY", "REASON", "ID"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for silence in items(&silences) {
        table.row(names.map(|name| text(silence, name)));
    }
    Ok(rendered(silences, &table, "nothing is silenced\n"))
}

pub(super) async fn notify(
    client: &Client,
    command: NotifyCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        NotifyCommand::Test { user } => {
            let mut body = Map::new();
            put(&mut body, "user", user);
            let test = path(&["notifications", "test"]);
            let body = Value::Object(body);
            let told = client.send(Method::POST, &test, Some(&body)).await?;
            let said = "on its way: see plimsoll notify deliveries, and the inbox\n";
            Ok(Answer::new(told, said.to_owned()))
        }
        NotifyCommand::Deliveries { state, limit } => {
            let limit = limit.map(|limit| limit.to_string());
            let which = query(&[("state", state.as_deref()), ("limit", limit.as_deref())]);
            let all = path(&["notifications", "deliveries"]) + &which;
            deliveries(client.get(&all).await?, now_ms)
        }
    }
}

fn deliveries(found: Value, now_ms: i64) -> Result<Answer, CliError> {
    let mut table = Table::new(&[
        ("WHEN", Align::Left),
        ("CHANNEL", Align::Left),
        ("TO", Align::Left),
        ("WHAT", Align::Left),
        ("STATE", Align::Left),
        ("TRIES", Align::Right),
        ("ERROR", Align::Left),
    ]);
    for delivery in items(&found) {
        table.row([
            ago(&delivery["at"], now_ms),
            text(delivery, "channel"),
            text(delivery, "user"),
            text(delivery, "title"),
            text(delivery, "state"),
            text(delivery, "tries"),
            text(delivery, "error"),
        ]);
    }
    Ok(rendered(found, &table, "nothing goes over any channel\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_its_end_or_not() {
        let read = |text| step(text).map(|s| (s.at, s.clear)).ok();
        for (text, known) in [
            ("80", Some((80.0, None))),
            ("80:75", Some((80.0, Some(75.0)))),
            ("0.5", Some((0.5, None))),
            ("80:", None),
            ("much", None),
        ] {
            assert_eq!(read(text), known, "{text}");
        }
    }
}
