//! `plimsoll team ...`

use std::fmt::Write as _;

use http::Method;
use plimsoll_core::{Dimension, Limit};
use serde_json::{Map, Value, json};

use super::amounts::{charged, items, label, limit, shown, shown_limit, text};
use super::answer::Answer;
use super::args::{MemberCommand, MemberFlags, TeamCommand};
use super::client::{Client, path, query};
use super::error::CliError;
use super::limits::max_fields;
use super::room::Place;
use super::shares;
use super::table::{Align, Table};
use super::text::printable;
use super::users::{gone, put, state, word};

pub(super) async fn run(
    client: &Client,
    command: TeamCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        TeamCommand::Add { name, class } => {
            let mut body = Map::from_iter([("name".to_owned(), json!(name))]);
            put(&mut body, "class", class);
            let team = client
                .send(Method::POST, &path(&["teams"]), Some(&Value::Object(body)))
                .await?;
            let said = format!("added team {}\n", printable(&name));
            Ok(Answer::new(team, said).remarking(format!(
                "give it members (plimsoll team member add {name} USER) or a limit \
                 (plimsoll quota set team {name} --memory 64g)"
            )))
        }
        TeamCommand::List => {
            let teams = client.get(&path(&["teams"])).await?;
            let mut table = Table::new(&[
                ("NAME", Align::Left),
                ("LIMIT IS", Align::Left),
                ("STATE", Align::Left),
            ]);
            for team in items(&teams) {
                let mode = match team["mode"].as_str() {
                    Some("fixed") => "fixed",
                    _ => "allotments + pool",
                };
                table.row([text(team, "name"), mode.to_owned(), state(team).to_owned()]);
            }
            Ok(Answer::new(teams, table.render()))
        }
        TeamCommand::Show { team } => {
            let team = client.get(&path(&["teams", &team])).await?;
            let mut shown = String::new();
            for (label, value) in [
                ("name", text(&team, "name")),
                ("id", text(&team, "id")),
                ("mode", text(&team, "mode")),
                ("state", state(&team).to_owned()),
                ("since", text(&team, "createdAt")),
            ] {
                let _ = writeln!(shown, "{label:<7} {}", printable(&value));
            }
            let members = team["members"].as_array().cloned().unwrap_or_default();
            let _ = write!(shown, "\n{}", member_table(members.iter()));
            Ok(Answer::new(team, shown))
        }
        TeamCommand::Delete { team, drain } => {
            let how = query(&[("drain", drain.then_some("true"))]);
            let status = client.delete(&(path(&["teams", &team]) + &how)).await?;
            Ok(gone("team", &team, status))
        }
        TeamCommand::Member(command) => member(client, command).await,
        TeamCommand::Redistribute(flags) => shares::redistribute(client, flags, now_ms).await,
        TeamCommand::Redistributions { team } => shares::redistributions(client, &team).await,
        TeamCommand::Undo { team, id } => shares::undo(client, &team, &id).await,
    }
}

async fn member(client: &Client, command: MemberCommand) -> Result<Answer, CliError> {
    match command {
        MemberCommand::Add(flags) => {
            if has(client, &flags).await? {
                return Err(CliError::Usage(format!(
                    "{} is a member of {} already; plimsoll team member set changes them",
                    flags.user, flags.team
                )));
            }
            put_member(client, flags, "added").await
        }
        MemberCommand::Set(flags) => {
            if !has(client, &flags).await? {
                return Err(CliError::Usage(format!(
                    "{} is no member of {}; plimsoll team member add makes them one",
                    flags.user, flags.team
                )));
            }
            put_member(client, flags, "changed").await
        }
        MemberCommand::Remove { team, user, drain } => {
            let how = query(&[("drain", drain.then_some("true"))]);
            let status = client
                .delete(&(path(&["teams", &team, "members", &user]) + &how))
                .await?;
            Ok(gone("member", &user, status))
        }
        MemberCommand::List { team } => {
            let members = client.get(&path(&["teams", &team, "members"])).await?;
            let table = member_table(items(&members));
            Ok(Answer::new(members, table))
        }
    }
}

/// The API has one verb for adding and changing; a person who means one of them is told where the
/// other would happen.
async fn has(client: &Client, flags: &MemberFlags) -> Result<bool, CliError> {
    let members = client
        .get(&path(&["teams", &flags.team, "members"]))
        .await?;
    let found = items(&members).any(|m| m["user"] == flags.user || m["userId"] == flags.user);
    Ok(found)
}

async fn put_member(client: &Client, flags: MemberFlags, done: &str) -> Result<Answer, CliError> {
    let mut body = Map::new();
    put(&mut body, "role", flags.role.map(|role| word(&role)));
    let allotment = flags.allotment.given();
    if !allotment.is_empty() {
        body.insert(
            "allotment".to_owned(),
            Value::Object(max_fields(&allotment)),
        );
    }
    if !flags.borrow.borrow.is_empty() {
        let fields = max_fields(&flags.borrow.borrow);
        body.insert("borrowLimit".to_owned(), Value::Object(fields));
    }
    put(&mut body, "default", flags.is_default);
    put(&mut body, "reason", flags.reason);
    let to = path(&["teams", &flags.team, "members", &flags.user]);
    let member = client
        .send(Method::PUT, &to, Some(&Value::Object(body)))
        .await?;
    let table = member_table(std::iter::once(&member));
    let (user, team) = (printable(&flags.user), printable(&flags.team));
    let said = format!("{done} member {user} of team {team}\n\n{table}");
    let quota = client.get(&path(&["quotas", "team", &flags.team])).await?;
    let lacking = lacking(&member, &quota);
    let answer = Answer::new(member, said);
    if lacking.is_empty() {
        return Ok(answer);
    }
    Ok(answer.remarking(format!(
        "{} cannot start a container in {}: there is no {} for them; name it (plimsoll team member \
         set), or give the team a pool (plimsoll quota set team {} --pool)",
        flags.user,
        flags.team,
        lacking.join(", "),
        flags.team,
    )))
}

/// What every container is charged for and a member has none of, neither alone nor from the pool. In a
/// second team, or added by a lead, people get only what is named, which is easy to miss.
fn lacking(member: &Value, quota: &Value) -> Vec<&'static str> {
    Dimension::CHARGED
        .into_iter()
        .filter(|d| *d != Dimension::Gpus)
        .filter(|d| {
            let place = Place::read(member, quota, *d);
            let none = Limit::AtMost(0);
            place.allotment == none && (place.pool == none || place.borrow == none)
        })
        .map(label)
        .collect()
}

/// Members with what they hold of their allotment.
pub(super) fn member_table<'a>(members: impl Iterator<Item = &'a Value>) -> String {
    let mut table = Table::new(&[
        ("MEMBER", Align::Left),
        ("ROLE", Align::Left),
        ("CPU", Align::Right),
        ("OF", Align::Right),
        ("MEMORY", Align::Right),
        ("OF", Align::Right),
        ("RUNNING", Align::Right),
        ("OF", Align::Right),
    ]);
    for member in members {
        let mut row = vec![text(member, "user"), text(member, "role")];
        for d in [
            Dimension::Cpu,
            Dimension::Memory,
            Dimension::ConcurrentContainers,
        ] {
            row.push(shown(d, charged(&member["reserved"], "", d)));
            row.push(shown_limit(d, limit(&member["effectiveAllotment"], d)));
        }
        table.row(row);
    }
    table.render()
}
