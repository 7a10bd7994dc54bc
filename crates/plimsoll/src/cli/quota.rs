//! `plimsoll quota ...`

use std::fmt::Write as _;

use http::Method;
use plimsoll_core::{Dimension, Limit};
use serde_json::{Value, json};

use super::amounts::{charged, label, limit, shown, shown_limit, text};
use super::answer::Answer;
use super::args::{QuotaCommand, QuotaSetFlags};
use super::client::Client;
use super::error::CliError;
use super::ladder;
use super::limits::max_fields;
use super::shares;
use super::table::{Align, Table};
use super::teams::member_table;
use super::text::printable;
use super::users::{put, word};
use super::who::Entity;

pub(super) async fn run(
    client: &Client,
    command: QuotaCommand,
    now_ms: i64,
) -> Result<Answer, CliError> {
    match command {
        QuotaCommand::Show(who) => {
            let entity = Entity::of(client, &who).await?;
            let quota = client.get(&entity.path("quotas")).await?;
            let shown = page(&quota);
            Ok(Answer::new(quota, shown))
        }
        QuotaCommand::Set(flags) => set(client, flags).await,
        QuotaCommand::Wish(command) => shares::wish(client, command, now_ms).await,
        QuotaCommand::Approve {
            request,
            until,
            reason,
        } => shares::approve(client, &request, until, reason, now_ms).await,
        QuotaCommand::Deny { request, reason } => shares::deny(client, &request, reason).await,
        QuotaCommand::Grant(flags) => shares::grant(client, flags, now_ms).await,
        QuotaCommand::Grants { all } => shares::grants(client, all).await,
        QuotaCommand::Revoke { grant } => shares::revoke(client, &grant).await,
    }
}

async fn set(client: &Client, flags: QuotaSetFlags) -> Result<Answer, CliError> {
    let entity = Entity::named(flags.kind, flags.name.as_deref())?;
    let limits = max_fields(&flags.limits.given());
    let changes_nothing = limits.is_empty()
        && flags.mode.is_none()
        && flags.overcommit.is_none()
        && flags.ladder.is_none()
        && flags.time_zone.is_none()
        && !flags.pool;
    if changes_nothing {
        return Err(CliError::Usage(
            "say what to change, like --memory 8g".to_owned(),
        ));
    }
    let mut body = if flags.pool {
        if !matches!(entity, Entity::Team(_)) {
            return Err(CliError::Usage("only a team has a pool".to_owned()));
        }
        serde_json::Map::from_iter([("sharedPool".to_owned(), Value::Object(limits))])
    } else {
        limits
    };
    put(&mut body, "mode", flags.mode.map(|mode| word(&mode)));
    put(&mut body, "overcommit", flags.overcommit);
    put(&mut body, "ladder", flags.ladder.map(|ladder| ladder.0));
    put(&mut body, "timeZone", flags.time_zone);
    put(&mut body, "reason", flags.reason);
    let body = json!(body);
    let quota = client
        .send(Method::PUT, &entity.path("quotas"), Some(&body))
        .await?;
    let shown = page(&quota);
    Ok(Answer::new(quota, shown))
}

/// A quota with what is charged to it.
fn page(quota: &Value) -> String {
    let mut page = String::new();
    let kind = text(quota, "entityType");
    let name = text(quota, "name");
    let title = if kind == "system" {
        kind
    } else {
        format!("{kind} {name}")
    };
    let _ = write!(page, "{}, mode {}", printable(&title), text(quota, "mode"));
    if let Some(class) = quota["quotaType"].as_str() {
        let _ = write!(page, ", class {}", printable(class));
    }
    if quota["overcommit"]
        .as_f64()
        .is_some_and(|factor| (factor - 1.0).abs() > f64::EPSILON)
    {
        let _ = write!(page, ", overcommit {}", text(quota, "overcommit"));
    }
    if let Some(ladder) = ladder::shown(&quota["ladder"]) {
        let _ = write!(page, ", ladder {ladder}");
    }
    page.push_str("\n\n");

    let team = quota["sharedPool"].is_object();
    let mut columns = vec![
        ("", Align::Left),
        ("RESERVED", Align::Right),
        ("LIMIT", Align::Right),
    ];
    let narrowed = |d: Dimension| limit(&quota["effective"], d) != limit(quota, d);
    let any_narrowed = Dimension::ALL.into_iter().any(narrowed);
    if any_narrowed {
        columns.push(("NOW", Align::Right));
    }
    if team {
        columns.push(("POOL", Align::Right));
        columns.push(("BORROWED", Align::Right));
    }
    let mut table = Table::new(&columns);
    for d in Dimension::ALL {
        let most = limit(quota, d);
        let held = charged(quota, "reserved", d);
        if most == Limit::Unlimited && held.unwrap_or(0) == 0 && !narrowed(d) {
            continue;
        }
        // Budgets that nobody gave the team; what containers are charged for is shown even at zero.
        let charged_for = Dimension::CHARGED.contains(&d);
        if team && most == Limit::AtMost(0) && !charged_for {
            continue;
        }
        let mut row = vec![label(d).to_owned(), shown(d, held), shown_limit(d, most)];
        if any_narrowed && narrowed(d) {
            row.push(shown_limit(d, limit(&quota["effective"], d)));
        } else if any_narrowed {
            row.push(String::new());
        }
        if team {
            let summed = d.is_summed();
            let pool = limit(&quota["sharedPool"], d);
            row.push(if summed {
                shown_limit(d, pool)
            } else {
                "-".to_owned()
            });
            row.push(shown(d, charged(&quota["borrowed"], "", d)));
        }
        table.row(row);
    }
    if table.is_empty() {
        page.push_str("no limits, and nothing reserved\n");
    } else {
        page.push_str(&table.render());
    }
    if any_narrowed {
        page.push_str("\nNOW is the limit where a share of the host or a grant changes it.\n");
    }
    let members = quota["members"].as_array().cloned().unwrap_or_default();
    if !members.is_empty() {
        let _ = write!(page, "\n{}", member_table(members.iter()));
    }
    for warning in quota["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(
            page,
            "\nwarning: {}",
            printable(warning.as_str().unwrap_or_default())
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_shows_what_is_limited_or_held_and_nothing_else() {
        let quota = json!({
            "entityType": "user", "name": "ada", "mode": "enforce", "quotaType": "standard",
            "overcommit": 1.0, "maxCpuCores": 4, "maxMemoryGB": 8, "maxPids": null,
            "reservedCpuCores": 1.5, "reservedMemoryGB": 0, "reservedPids": 0,
            "reservedContainers": 2, "maxContainers": null,
            "effective": {"maxCpuCores": 1.6, "maxMemoryGB": 8, "maxContainers": null},
        });
        let page = page(&quota);
        let expected = "user ada, mode enforce, class standard\n\n\
                        \x20           RESERVED      LIMIT  NOW\n\
                        cpu              1.5          4  1.6\n\
                        memory           0 B      8 GiB\n\
                        containers         2  unlimited\n\n\
                        NOW is the limit where a share of the host or a grant changes it.\n";
        assert_eq!(page, expected);
    }
}
