//! `plimsoll user ...`

use std::fmt::Write as _;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::amounts::{items, text};
use super::answer::Answer;
use super::args::{Role, UserCommand};
use super::certs;
use super::client::{Client, path, query};
use super::error::CliError;
use super::table::{Align, Table};
use super::text::printable;

/// The word of a value that clap read.
pub(super) fn word<T: clap::ValueEnum>(value: &T) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

pub(super) async fn run(
    client: &Client,
    command: UserCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        UserCommand::Add {
            name,
            uid,
            email,
            class,
            role,
        } => {
            let mut body = Map::from_iter([("name".to_owned(), json!(name))]);
            put(&mut body, "osUid", uid);
            put(&mut body, "email", email);
            put(&mut body, "class", class);
            put(&mut body, "role", role.map(|role: Role| word(&role)));
            let user = client
                .send(Method::POST, &path(&["users"]), Some(&Value::Object(body)))
                .await?;
            let said = format!("added user {}\n", printable(&name));
            let answer = Answer::new(user, said);
            Ok(match uid {
                Some(_) => answer,
                None => answer.remarking(format!(
                    "without a uid they cannot use the gateway's socket: plimsoll user set {name} \
                     --uid UID; over TLS, plimsoll user cert {name}"
                )),
            })
        }
        UserCommand::List => {
            let users = client.get(&path(&["users"])).await?;
            let mut table = Table::new(&[
                ("NAME", Align::Left),
                ("UID", Align::Right),
                ("ROLE", Align::Left),
                ("STATE", Align::Left),
                ("PORTS", Align::Left),
                ("EMAIL", Align::Left),
            ]);
            for user in items(&users) {
                table.row([
                    text(user, "name"),
                    text(user, "osUid"),
                    text(user, "role"),
                    state(user).to_owned(),
                    text(user, "ports"),
                    text(user, "email"),
                ]);
            }
            Ok(Answer::new(users, table.render()))
        }
        UserCommand::Show { user } => {
            let user = client.get(&path(&["users", &user])).await?;
            let shown = shown(&user);
            Ok(Answer::new(user, shown))
        }
        UserCommand::Set {
            user,
            uid,
            no_uid,
            email,
            no_email,
            mail,
            reason,
        } => {
            let mut body = Map::new();
            put(&mut body, "osUid", uid);
            put(&mut body, "email", email);
            put(&mut body, "mail", mail);
            if no_uid {
                body.insert("osUid".to_owned(), Value::Null);
            }
            if no_email {
                body.insert("email".to_owned(), Value::Null);
            }
            change(client, &user, body, reason, "changed").await
        }
        UserCommand::Suspend { user, reason } => {
            let body = Map::from_iter([("suspended".to_owned(), json!(true))]);
            change(client, &user, body, reason, "suspended").await
        }
        UserCommand::Resume { user, reason } => {
            let body = Map::from_iter([("suspended".to_owned(), json!(false))]);
            change(client, &user, body, reason, "resumed").await
        }
        UserCommand::Cert(flags) => certs::cert(client, flags, now_ms).await,
        UserCommand::RevokeCert { serial } => certs::revoke(client, &serial).await,
        UserCommand::Delete { user, drain } => {
            let how = query(&[("drain", drain.then_some("true"))]);
            let status = client.delete(&(path(&["users", &user]) + &how)).await?;
            Ok(gone("user", &user, status))
        }
    }
}

/// Puts a value that was given into a body.
pub(super) fn put<T: serde::Serialize>(
    body: &mut Map<String, Value>,
    name: &str,
    value: Option<T>,
) {
    if let Some(value) = value {
        body.insert(name.to_owned(), json!(value));
    }
}

async fn change(
    client: &Client,
    user: &str,
    mut body: Map<String, Value>,
    reason: Option<String>,
    done: &str,
) -> Result<Answer, CliError> {
    put(&mut body, "reason", reason);
    let body = Value::Object(body);
    let answer = client
        .send(Method::PATCH, &path(&["users", user]), Some(&body))
        .await?;
    let said = format!("{done} user {}\n", printable(user));
    Ok(Answer::new(answer, said))
}

/// What came of a deletion that may have become a drain.
pub(super) fn gone(what: &str, name: &str, status: StatusCode) -> Answer {
    let name = printable(name);
    let (word, said) = if status == StatusCode::ACCEPTED {
        (
            "draining",
            format!("{what} {name} is draining: no new claims, gone with the last container\n"),
        )
    } else {
        ("gone", format!("deleted {what} {name}\n"))
    };
    Answer::new(json!({ "state": word }), said)
}

/// One word for where a user or a team stands.
pub(super) fn state(of: &Value) -> &'static str {
    if of["draining"] == true {
        "draining"
    } else if of["suspended"] == true {
        "suspended"
    } else {
        "active"
    }
}

fn shown(user: &Value) -> String {
    let mut shown = String::new();
    for (label, value) in [
        ("name", text(user, "name")),
        ("id", text(user, "id")),
        ("uid", text(user, "osUid")),
        ("email", text(user, "email")),
        ("role", text(user, "role")),
        ("state", state(user).to_owned()),
        ("ports", text(user, "ports")),
        ("since", text(user, "createdAt")),
    ] {
        let _ = writeln!(shown, "{label:<7} {}", printable(&value));
    }
    let teams = user["teams"].as_array().cloned().unwrap_or_default();
    let mut table = Table::new(&[
        ("TEAM", Align::Left),
        ("ROLE", Align::Left),
        ("", Align::Left),
    ]);
    for team in &teams {
        let default = team["teamId"] == user["defaultTeam"];
        let note = if default { "default" } else { "" };
        table.row([text(team, "team"), text(team, "role"), note.to_owned()]);
    }
    if !table.is_empty() {
        let _ = write!(shown, "\n{}", table.render());
    }
    shown
}
