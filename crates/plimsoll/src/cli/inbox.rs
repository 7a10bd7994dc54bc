//! `plimsoll inbox`

use std::fmt::Write as _;

use http::Method;
use serde_json::Value;

use super::amounts::{ago, items, text};
use super::answer::Answer;
use super::args::InboxFlags;
use super::client::{Client, path, query};
use super::error::CliError;
use super::text::printable;

pub(super) async fn run(
    client: &Client,
    flags: &InboxFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let which = query(&[("unread", (!flags.all).then_some("true"))]);
    let inbox = client.get(&(path(&["notifications"]) + &which)).await?;
    if flags.read {
        let all = path(&["notifications", "read"]);
        client.send(Method::POST, &all, None).await?;
    }
    let mut page = String::new();
    for told in items(&inbox) {
        page.push_str(&shown(told, now_ms));
    }
    if page.is_empty() {
        page.push_str("nothing new\n");
    }
    Ok(Answer::new(inbox, page))
}

/// What is unread, in a line; nothing where nothing is, or the server does not say.
pub(super) async fn line(client: &Client) -> String {
    let which = query(&[("unread", Some("true")), ("limit", Some("1"))]);
    let inbox = client.get(&(path(&["notifications"]) + &which)).await;
    match inbox.map(|inbox| inbox["unread"].as_u64().unwrap_or(0)) {
        Ok(0) | Err(_) => String::new(),
        Ok(unread) => format!("{unread} unread: plimsoll inbox\n"),
    }
}

fn shown(told: &Value, now_ms: i64) -> String {
    let mark = if told["readAt"].is_null() { "* " } else { "  " };
    let mut page = format!(
        "{mark}{} ({})\n",
        printable(&text(told, "title")),
        ago(&told["at"], now_ms)
    );
    for figure in told["figures"].as_array().into_iter().flatten() {
        let (name, value) = (text(figure, "name"), text(figure, "value"));
        let _ = writeln!(page, "    {}: {}", printable(&name), printable(&value));
    }
    let by: Vec<&str> = told["by"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !by.is_empty() {
        let _ = writeln!(page, "    by {}", printable(&by.join(", ")));
    }
    if let Some(advice) = told["advice"].as_str() {
        let _ = writeln!(page, "    {}", printable(advice));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_notification_says_what_how_much_and_who() {
        let told = json!({
            "title": "The quota of ada has changed", "at": "1970-01-01T00:00:00Z", "readAt": null,
            "figures": [{"name": "cpu", "value": "2, was 1"}], "by": ["root"],
            "advice": "look\u{1b}",
        });
        assert_eq!(
            shown(&told, 60_000),
            "* The quota of ada has changed (1m ago)\n    cpu: 2, was 1\n    by root\n    \
             look\\u{1b}\n"
        );
    }
}
