//! `plimsoll usage`, and what `docker quota` shows: used, reserved, limit, free.

use std::fmt::Write as _;

use plimsoll_core::{Dimension, Limit};
use serde_json::Value;

use super::amounts::{ago, amount, charged, label, limit, shown, shown_limit, text};
use super::answer::Answer;
use super::args::Who;
use super::client::{Client, path};
use super::error::CliError;
use super::inbox;
use super::room::Place;
use super::table::{Align, Table};
use super::teams::member_table;
use super::text::printable;
use super::who::Entity;

pub(super) async fn run(client: &Client, who: &Who, now_ms: i64) -> Result<Answer, CliError> {
    let entity = Entity::of(client, who).await?;
    of(client, &entity, now_ms).await
}

/// The use of an entity.
pub(super) async fn of(client: &Client, entity: &Entity, now_ms: i64) -> Result<Answer, CliError> {
    let usage = client.get(&entity.path("usage")).await?;
    let mut page = title(&usage, now_ms);
    let places = match entity {
        Entity::User(_) => usage["teams"].as_array().cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    if places.is_empty() {
        page.push_str(&limited(&usage, &usage, "reserved").render());
    } else {
        // Use is measured over all of a user's containers, limits are one per place.
        page.push_str(&measured(&usage).render());
        let own = &usage["outsideTeams"];
        let _ = write!(
            page,
            "\noutside teams\n{}",
            limited(&Value::Null, &merged(own, &usage["quota"]), "").render()
        );
        for place in &places {
            let team = text(place, "team");
            // Members may read their team; who may not sees the place without what is free.
            let quota = client
                .get(&path(&["quotas", "team", &team]))
                .await
                .unwrap_or(Value::Null);
            let _ = write!(
                page,
                "\nin team {}, as {}\n",
                printable(&team),
                text(place, "role")
            );
            page.push_str(&in_team(place, &quota).render());
        }
    }
    if *entity != Entity::System {
        let _ = write!(page, "\n{}", totals(&usage));
    }
    let members = usage["members"].as_array().cloned().unwrap_or_default();
    if !members.is_empty() {
        let _ = write!(page, "\n{}", member_table(members.iter()));
    }
    page.push_str(&inbox::line(client).await);
    Ok(Answer::new(usage, page))
}

fn merged(amounts: &Value, quota: &Value) -> Value {
    let mut all = amounts.clone();
    all["quota"] = quota.clone();
    all
}

fn title(usage: &Value, now_ms: i64) -> String {
    let kind = text(usage, "entityType");
    let name = text(usage, "name");
    let title = if kind == "system" {
        kind
    } else {
        format!("{kind} {name}")
    };
    let measured = match usage["lastUpdated"].as_str() {
        Some(_) => format!("measured {}", ago(&usage["lastUpdated"], now_ms)),
        None => "not measured yet".to_owned(),
    };
    format!("{}, {measured}\n\n", printable(&title))
}

/// What is measured of a dimension.
fn used(usage: &Value, dimension: Dimension) -> Option<u64> {
    let field = match dimension {
        Dimension::ConcurrentContainers => "currentRunningContainers".to_owned(),
        other => format!("current{}", other.field()),
    };
    amount(usage, &field, dimension)
}

fn measured(usage: &Value) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("USED", Align::Right),
        ("RESERVED", Align::Right),
    ]);
    for d in Dimension::CHARGED {
        let (used, held) = (used(usage, d), charged(usage, "reserved", d));
        if used.unwrap_or(0) > 0 || held.unwrap_or(0) > 0 {
            table.row([label(d).to_owned(), shown(d, used), shown(d, held)]);
        }
    }
    if table.is_empty() {
        table.row(["nothing".to_owned(), "0".to_owned(), "0".to_owned()]);
    }
    table
}

/// What is used and reserved under plain limits.
fn limited(usage: &Value, held: &Value, prefix: &str) -> Table {
    let with_use = !usage.is_null();
    let mut columns = vec![("", Align::Left)];
    if with_use {
        columns.push(("USED", Align::Right));
    }
    columns.extend([
        ("RESERVED", Align::Right),
        ("LIMIT", Align::Right),
        ("FREE", Align::Right),
    ]);
    let mut table = Table::new(&columns);
    for d in Dimension::CHARGED {
        let reserved = charged(held, prefix, d);
        let most = limit(&held["quota"], d);
        let seen = with_use && used(usage, d).unwrap_or(0) > 0;
        if most == Limit::Unlimited && reserved.unwrap_or(0) == 0 && !seen {
            continue;
        }
        let free = most
            .at_most()
            .map(|most| most.saturating_sub(reserved.unwrap_or(0)));
        let mut row = vec![label(d).to_owned()];
        if with_use {
            row.push(shown(d, used(usage, d)));
        }
        row.extend([
            shown(d, reserved),
            shown_limit(d, most),
            free.map_or_else(|| "-".to_owned(), |free| d.show(free)),
        ]);
        table.row(row);
    }
    table
}

/// What a member has in a team: their own part, what they may borrow, and what is free now.
fn in_team(place: &Value, quota: &Value) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("RESERVED", Align::Right),
        ("ALLOTMENT", Align::Right),
        ("BORROW", Align::Right),
        ("FREE", Align::Right),
    ]);
    for d in Dimension::CHARGED {
        let at = Place::read(place, quota, d);
        let empty = at.allotment == Limit::AtMost(0) && at.reserved == 0;
        if empty && at.borrow == Limit::AtMost(0) {
            continue;
        }
        let free = if quota.is_null() {
            "-".to_owned()
        } else {
            shown_limit(d, at.free())
        };
        table.row([
            label(d).to_owned(),
            d.show(at.reserved),
            shown_limit(d, at.allotment),
            shown_limit(d, at.borrow),
            free,
        ]);
    }
    table
}

fn totals(usage: &Value) -> String {
    let hours = |field: &str| {
        let hours = usage[field].as_f64().unwrap_or(0.0);
        plimsoll_core::units::trim(hours, 2)
    };
    let peak = |d: Dimension| shown(d, charged(usage, "peak", d));
    format!(
        "24 h peak  {} cores, {}, {} containers\n\
         in total   {} core-hours, {} GiB-hours, {} hours with something running\n",
        peak(Dimension::Cpu),
        peak(Dimension::Memory),
        peak(Dimension::Containers),
        hours("totalCpuCoreHours"),
        hours("totalMemoryGBHours"),
        hours("totalRuntimeHours"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn use_and_charges_stand_beside_the_limits() {
        let usage = json!({
            "currentCpuCores": 0.25, "currentMemoryGB": 0.5, "currentRunningContainers": 1,
            "reservedCpuCores": 1, "reservedMemoryGB": 2, "reservedConcurrentContainers": 1,
            "quota": {"maxCpuCores": 4, "maxMemoryGB": 1, "maxConcurrentContainers": null,
                      "maxGpus": 0},
        });
        assert_eq!(
            limited(&usage, &usage, "reserved").render(),
            "            USED  RESERVED      LIMIT  FREE\n\
             cpu         0.25         1          4     3\n\
             memory   512 MiB     2 GiB      1 GiB   0 B\n\
             running        1         1  unlimited     -\n\
             gpus           -         -          0     0\n"
        );
    }
}
