//! `plimsoll token ...`

use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::amounts::{items, text};
use super::answer::Answer;
use super::args::TokenCommand;
use super::client::{Client, path};
use super::error::CliError;
use super::projects::owner_names;
use super::table::{Align, Table};
use super::users::{gone, put, word};

pub(super) async fn run(
    client: &Client,
    command: TokenCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        TokenCommand::Add {
            user,
            role,
            admin,
            label,
            expires,
        } => {
            let mut body = Map::new();
            put(&mut body, "user", user);
            put(&mut body, "role", role.map(|role| word(&role)));
            if admin {
                body.insert("role".to_owned(), json!("admin"));
            }
            put(&mut body, "label", label);
            put(
                &mut body,
                "expiresAt",
                expires.and_then(|when| when.text(now_ms)),
            );
            let body = Value::Object(body);
            let token = client
                .send(Method::POST, &path(&["tokens"]), Some(&body))
                .await?;
            // The secret alone on stdout, so that it can go straight into a file.
            let said = format!("{}\n", text(&token, "token"));
            let remark = format!(
                "token {} ({}); this is the only time its secret is shown",
                text(&token, "id"),
                text(&token, "role"),
            );
            Ok(Answer::new(token, said).remarking(remark))
        }
        TokenCommand::List => {
            let tokens = client.get(&path(&["tokens"])).await?;
            let names = owner_names(client).await;
            let mut table = Table::new(&[
                ("ID", Align::Left),
                ("ROLE", Align::Left),
                ("OF", Align::Left),
                ("STATE", Align::Left),
                ("LABEL", Align::Left),
            ]);
            for token in items(&tokens) {
                let owner = token["user"].as_str().map(|id| {
                    let name = names.get(id).and_then(|name| name.strip_prefix("user "));
                    name.unwrap_or(id).to_owned()
                });
                table.row([
                    text(token, "id"),
                    text(token, "role"),
                    owner.unwrap_or_else(|| "-".to_owned()),
                    state(token, now_ms),
                    text(token, "label"),
                ]);
            }
            Ok(Answer::new(tokens, table.render()))
        }
        TokenCommand::Revoke { id } => {
            let status = client.delete(&path(&["tokens", &id])).await?;
            Ok(gone("token", &id, status))
        }
    }
}

pub(super) fn state(token: &Value, now_ms: i64) -> String {
    let time = |name: &str| token[name].as_str()?.parse::<Timestamp>().ok();
    if time("revokedAt").is_some() {
        return "revoked".to_owned();
    }
    match time("expiresAt") {
        Some(at) if at.as_millisecond() <= now_ms => "expired".to_owned(),
        Some(at) => format!("to {}", &at.to_string()[..10]),
        None => "valid".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_token_is_valid_until_it_is_not() {
        let at = "1970-01-02T00:00:00Z";
        for (token, state_is) in [
            (json!({"expiresAt": null, "revokedAt": null}), "valid"),
            (json!({"expiresAt": at, "revokedAt": null}), "to 1970-01-02"),
            (json!({"expiresAt": "1970-01-01T00:00:00Z"}), "expired"),
            (json!({"expiresAt": at, "revokedAt": at}), "revoked"),
        ] {
            assert_eq!(state(&token, 1000), state_is, "{token}");
        }
    }
}
