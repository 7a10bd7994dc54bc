//! What changes hands for a time or for good: `quota request`, `quota grant`, `team redistribute` and
//! what belongs to them.

use http::Method;
use plimsoll_core::{Dimension, Limit};
use serde_json::{Map, Value, json};

use super::amounts::{charged, field_name, items, label, limit, shown, text};
use super::answer::Answer;
use super::args::{GrantFlags, RedistributeFlags, WishCommand, WishFlags};
use super::client::{Client, path, query};
use super::error::CliError;
use super::limits::max_fields;
use super::table::{Align, Table};
use super::text::printable;
use super::users::put;
use super::when::When;
use super::who;

pub(super) async fn wish(
    client: &Client,
    command: WishCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        WishCommand::Request(flags) => request(client, flags, now_ms).await,
        WishCommand::Requests { all } => requests(client, all).await,
        WishCommand::Withdraw { request } => {
            let done = client
                .send(Method::DELETE, &path(&["requests", &request]), None)
                .await?;
            Ok(Answer::new(done, "withdrawn\n".to_owned()))
        }
    }
}

async fn request(client: &Client, flags: WishFlags, now_ms: i64) -> Result<Answer, CliError> {
    let wanted = flags.limits.given();
    if wanted.is_empty() {
        return Err(CliError::Usage(
            "say how much you need, like --memory 16g".to_owned(),
        ));
    }
    let now = limits_now(client, flags.team.as_deref()).await?;
    let mut more = Vec::new();
    for (d, wanted) in wanted {
        let (Limit::AtMost(wanted), Limit::AtMost(has)) = (wanted, limit(&now, d)) else {
            return Err(CliError::Usage(format!(
                "{} cannot be asked for without a limit, or has none already",
                label(d)
            )));
        };
        if wanted <= has {
            return Err(CliError::Usage(format!(
                "you have {} of {} already: name how much you need in all",
                d.show(has),
                label(d)
            )));
        }
        more.push((d, Limit::AtMost(wanted - has)));
    }
    let mut body = Map::from_iter([("add".to_owned(), Value::Object(max_fields(&more)))]);
    put(&mut body, "team", flags.team);
    put(
        &mut body,
        "until",
        flags.until.and_then(|when| when.text(now_ms)),
    );
    put(&mut body, "reason", Some(flags.reason));
    let made = client
        .send(
            Method::POST,
            &path(&["requests"]),
            Some(&Value::Object(body)),
        )
        .await?;
    let whom = match made["team"].as_str() {
        Some(team) => format!("the leads of team {}", printable(team)),
        None => "the administrators".to_owned(),
    };
    let said = format!(
        "asked {whom} for {} more{} (request {})\n",
        added(&made["add"]),
        until(&made),
        text(&made, "id")
    );
    Ok(Answer::new(made, said))
}

/// What the caller may have now: their allotment in a team, or their own limits.
async fn limits_now(client: &Client, team: Option<&str>) -> Result<Value, CliError> {
    let Some(me) = who::me(client).await? else {
        return Err(CliError::Usage(
            "only users ask: plimsoll quota grant gives at once".to_owned(),
        ));
    };
    let user = client.get(&path(&["users", &me])).await?;
    let team = match team {
        None => user["defaultTeam"].as_str(),
        Some("-") => None,
        named => named,
    };
    let usage = client.get(&path(&["usage", "user", &me])).await?;
    match team {
        None => {
            let quota = client.get(&path(&["quotas", "user", &me])).await?;
            Ok(quota["effective"].clone())
        }
        Some(team) => usage["teams"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|place| place["team"] == team || place["teamId"] == team)
            .map(|place| place["effectiveAllotment"].clone())
            .ok_or_else(|| CliError::Usage(format!("you are not in team {team}"))),
    }
}

async fn requests(client: &Client, all: bool) -> Result<Answer, CliError> {
    let found = client.get(&(path(&["requests"]) + &every(all))).await?;
    let mut table = Table::new(&[
        ("REQUEST", Align::Left),
        ("USER", Align::Left),
        ("TEAM", Align::Left),
        ("MORE", Align::Left),
        ("UNTIL", Align::Left),
        ("STATE", Align::Left),
        ("REASON", Align::Left),
    ]);
    for request in items(&found) {
        table.row([
            text(request, "id"),
            text(request, "user"),
            text(request, "team"),
            added(&request["add"]),
            minute(request, "until"),
            text(request, "state"),
            text(request, "reason"),
        ]);
    }
    Ok(Answer::new(found, table.render()))
}

pub(super) async fn approve(
    client: &Client,
    request: &str,
    until_when: Option<When>,
    reason: Option<String>,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let mut body = Map::new();
    put(
        &mut body,
        "until",
        until_when.and_then(|when| when.text(now_ms)),
    );
    put(&mut body, "reason", reason);
    let to = path(&["requests", request, "approve"]);
    let done = client
        .send(Method::POST, &to, Some(&Value::Object(body)))
        .await?;
    let said = format!(
        "{} has {} more{}\n",
        printable(&text(&done, "user")),
        added(&done["add"]),
        until(&done["grant"])
    );
    Ok(Answer::new(done, said))
}

pub(super) async fn deny(
    client: &Client,
    request: &str,
    reason: Option<String>,
) -> Result<Answer, CliError> {
    let mut body = Map::new();
    put(&mut body, "reason", reason);
    let to = path(&["requests", request, "deny"]);
    let done = client
        .send(Method::POST, &to, Some(&Value::Object(body)))
        .await?;
    let said = format!("denied what {} asked\n", printable(&text(&done, "user")));
    Ok(Answer::new(done, said))
}

pub(super) async fn grant(
    client: &Client,
    flags: GrantFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let more = max_fields(&flags.limits.given());
    let mut body = Map::from_iter([("add".to_owned(), Value::Object(more))]);
    put(&mut body, "user", flags.user);
    put(&mut body, "team", flags.team);
    put(
        &mut body,
        "from",
        flags.from.and_then(|when| when.text(now_ms)),
    );
    put(
        &mut body,
        "until",
        flags.until.and_then(|when| when.text(now_ms)),
    );
    put(&mut body, "reason", flags.reason);
    let given = client
        .send(Method::POST, &path(&["grants"]), Some(&Value::Object(body)))
        .await?;
    let said = format!(
        "{} {} {} more{} (grant {})\n",
        whose(&given),
        if given["state"] == "planned" {
            "will have"
        } else {
            "has"
        },
        added(&given["add"]),
        until(&given),
        text(&given, "id")
    );
    Ok(Answer::new(given, said))
}

pub(super) async fn grants(client: &Client, all: bool) -> Result<Answer, CliError> {
    let found = client.get(&(path(&["grants"]) + &every(all))).await?;
    let mut table = Table::new(&[
        ("GRANT", Align::Left),
        ("WHOSE", Align::Left),
        ("MORE", Align::Left),
        ("FROM", Align::Left),
        ("UNTIL", Align::Left),
        ("STATE", Align::Left),
        ("BY", Align::Left),
        ("REASON", Align::Left),
    ]);
    for grant in items(&found) {
        table.row([
            text(grant, "id"),
            whose(grant),
            added(&grant["add"]),
            minute(grant, "from"),
            minute(grant, "until"),
            text(grant, "state"),
            text(grant, "givenBy"),
            text(grant, "reason"),
        ]);
    }
    Ok(Answer::new(found, table.render()))
}

pub(super) async fn revoke(client: &Client, grant: &str) -> Result<Answer, CliError> {
    let ended = client
        .send(Method::DELETE, &path(&["grants", grant]), None)
        .await?;
    let said = format!(
        "took {} back from {}\n",
        added(&ended["add"]),
        whose(&ended)
    );
    Ok(Answer::new(ended, said))
}

pub(super) async fn redistribute(
    client: &Client,
    flags: RedistributeFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let mut step = Map::from_iter([
        ("from".to_owned(), json!(flags.from)),
        ("to".to_owned(), json!(flags.to)),
    ]);
    for (d, amount) in flags.amounts.given() {
        let amount = amount.at_most().unwrap_or(0);
        step.insert(field_name("", d), json!(d.to_human(amount)));
    }
    let mut body = Map::from_iter([
        ("moves".to_owned(), json!([step])),
        ("reason".to_owned(), json!(flags.reason)),
        ("dryRun".to_owned(), json!(flags.dry_run)),
    ]);
    put(
        &mut body,
        "expiresAt",
        flags.until.and_then(|when| when.text(now_ms)),
    );
    let to = path(&["teams", &flags.team, "redistribute"]);
    let made = client
        .send(Method::POST, &to, Some(&Value::Object(body)))
        .await?;
    let done = if flags.dry_run { "would move" } else { "moved" };
    let said = format!("{done} {}\n{}", moves(&made), over(&made));
    let answer = Answer::new(made.clone(), said);
    if flags.dry_run {
        return Ok(answer);
    }
    Ok(answer.remarking(format!(
        "take it back: plimsoll team undo {} {}",
        flags.team,
        text(&made, "id")
    )))
}

pub(super) async fn redistributions(client: &Client, team: &str) -> Result<Answer, CliError> {
    let found = client
        .get(&path(&["teams", team, "redistributions"]))
        .await?;
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("MOVED", Align::Left),
        ("BY", Align::Left),
        ("WHEN", Align::Left),
        ("UNTIL", Align::Left),
        ("STATE", Align::Left),
        ("REASON", Align::Left),
    ]);
    for made in items(&found) {
        table.row([
            text(made, "id"),
            moves(made),
            text(made, "madeBy"),
            minute(made, "createdAt"),
            minute(made, "expiresAt"),
            text(made, "state"),
            text(made, "reason"),
        ]);
    }
    Ok(Answer::new(found, table.render()))
}

pub(super) async fn undo(client: &Client, team: &str, id: &str) -> Result<Answer, CliError> {
    let to = path(&["teams", team, "redistributions", id, "undo"]);
    let undone = client.send(Method::POST, &to, None).await?;
    let said = format!("took back {}\n{}", moves(&undone), over(&undone));
    Ok(Answer::new(undone, said))
}

fn every(all: bool) -> String {
    query(&[("all", all.then_some("true"))])
}

/// `cpu 2, memory 4 GiB`, of an object of `max*` fields.
fn added(add: &Value) -> String {
    let named = Dimension::ALL
        .into_iter()
        .filter_map(|d| Some(format!("{} {}", label(d), d.show(limit(add, d).at_most()?))));
    named.collect::<Vec<_>>().join(", ")
}

fn whose(grant: &Value) -> String {
    match (grant["team"].as_str(), grant["user"].as_str()) {
        (Some(team), Some(user)) => format!("{} in team {}", printable(user), printable(team)),
        (Some(team), None) => format!("the pool of team {}", printable(team)),
        (None, user) => printable(user.unwrap_or("-")),
    }
}

/// A time to the minute, or a dash.
fn minute(of: &Value, field: &str) -> String {
    of[field]
        .as_str()
        .and_then(|time| time.get(..16))
        .map_or_else(
            || "-".to_owned(),
            |time| format!("{}Z", time.replace('T', " ")),
        )
}

fn until(of: &Value) -> String {
    match minute(of, "until") {
        none if none == "-" => String::new(),
        time => format!(" until {time}"),
    }
}

fn moves(made: &Value) -> String {
    let told = made["moves"].as_array().into_iter().flatten().map(|step| {
        let parts: Vec<String> = Dimension::ALL
            .into_iter()
            .filter_map(|d| {
                Some(format!(
                    "{} {}",
                    label(d),
                    shown(d, Some(charged(step, "", d)?))
                ))
            })
            .collect();
        let (from, to) = (text(step, "from"), text(step, "to"));
        format!(
            "{} from {} to {}",
            parts.join(", "),
            printable(&from),
            printable(&to)
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

fn over(made: &Value) -> String {
    let told = made["over"].as_array().into_iter().flatten().map(|over| {
        format!(
            "{} holds more {} than their allotment then, and borrows\n",
            printable(&text(over, "user")),
            text(over, "dimension")
        )
    });
    told.collect()
}
