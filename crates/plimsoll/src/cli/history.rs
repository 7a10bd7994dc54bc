//! `plimsoll history`: what was used over time, as a plot.

use std::fmt::Write as _;

use jiff::Timestamp;
use plimsoll_core::units::{Bytes, trim};
use serde_json::Value;

use super::amounts::text;
use super::answer::Answer;
use super::args::HistoryFlags;
use super::client::{Client, path, query};
use super::error::CliError;
use super::plot::{columns, plot};
use super::text::printable;
use super::who::Entity;

/// Columns and lines of the plot: with its scale it fits 80 by 24.
const COLUMNS: usize = 66;
const LINES: usize = 8;

pub(super) async fn run(
    client: &Client,
    flags: &HistoryFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let subject = match (&flags.container, &flags.project, &flags.host) {
        (Some(id), ..) => path(&["usage", "container", id]),
        (_, Some(project), _) => path(&["usage", "project", project]),
        (.., Some(host)) => path(&["usage", "host", host]),
        _ => Entity::of(client, &flags.who).await?.path("usage"),
    };
    let from_ms = flags.since.before(now_ms).unwrap_or(0);
    let from = time(from_ms);
    let asked = query(&[
        ("metric", Some(&flags.metric)),
        ("from", Some(&from)),
        ("step", flags.step.as_deref()),
        ("format", flags.csv.then_some("csv")),
    ]);
    let path = format!("{subject}/history{asked}");
    if flags.csv {
        let table = client.text(&path).await?;
        return Ok(Answer::new(Value::String(table.clone()), table));
    }
    let history = client.get(&path).await?;
    let page = page(&history, from_ms, now_ms);
    Ok(Answer::new(history, page))
}

pub(super) fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .unwrap_or_default()
        .to_string()
}

/// Time, average and maximum of each point.
fn points(history: &Value) -> Vec<(i64, f64, f64)> {
    let points = history["points"].as_array().into_iter().flatten();
    let read = |point: &Value| Some((point[0].as_i64()?, point[1].as_f64()?, point[2].as_f64()?));
    points.filter_map(read).collect()
}

fn page(history: &Value, from_ms: i64, to_ms: i64) -> String {
    let unit = text(history, "unit");
    let show = |value: f64| shown(value, &unit);
    let title = format!("{} of {}", text(history, "metric"), text(history, "name"));
    let points = points(history);
    let most = points.iter().map(|(_, _, max)| *max).fold(0.0, f64::max);
    if points.is_empty() {
        return format!("{}: nothing was measured\n", printable(&title));
    }
    let average = points.iter().map(|(_, value, _)| value).sum::<f64>() / points.len() as f64;
    let mut page = format!(
        "{}, a point each {}: average {}, maximum {}\n\n",
        printable(&title),
        span(history["stepSeconds"].as_f64().unwrap_or(0.0)),
        show(average),
        show(most)
    );
    let values = points.iter().map(|(at_ms, value, _)| (*at_ms, *value));
    let columns = columns(values, from_ms, to_ms, COLUMNS);
    let top = columns.iter().flatten().copied().fold(0.0, f64::max);
    for (index, line) in plot(&columns, top, LINES).iter().enumerate() {
        let scale = match index {
            0 => show(top),
            _ if index == LINES - 1 => "0".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(page, "{scale:>11} {line}");
    }
    let minute = |ms: i64| time(ms / 60_000 * 60_000).replace(":00Z", "Z");
    let (from, to) = (minute(from_ms), minute(to_ms));
    let _ = writeln!(
        page,
        "{:11} {from}{to:>width$}",
        "",
        width = COLUMNS - from.len()
    );
    page
}

fn span(seconds: f64) -> String {
    match seconds {
        day if day >= 86_400.0 => format!("{} d", trim(day / 86_400.0, 1)),
        hour if hour >= 3600.0 => format!("{} h", trim(hour / 3600.0, 1)),
        minute if minute >= 60.0 => format!("{} min", trim(minute / 60.0, 1)),
        second => format!("{} s", trim(second, 1)),
    }
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => Bytes(value as u64).to_string(),
        "bytes/s" => format!("{}/s", Bytes(value as u64)),
        _ => trim(value, 2),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_a_scale_and_both_ends() {
        let hour = 3_600_000;
        let history = json!({
            "metric": "memory", "name": "ada", "unit": "bytes", "stepSeconds": 3600.0,
            "points": [[0, 1073741824.0, 2147483648.0], [hour, 536870912.0, 536870912.0]],
        });
        let page = page(&history, 0, 2 * hour);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(
            lines[0],
            "memory of ada, a point each 1 h: average 768 MiB, maximum 2 GiB"
        );
        assert_eq!(lines[2], "      1 GiB █");
        assert_eq!(lines[9].chars().filter(|c| *c == '█').count(), 2);
        assert!(
            lines[10].trim().starts_with("1970-01-01T00:00Z"),
            "{}",
            lines[10]
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        let empty = json!({"metric": "cpu", "name": "a\u{1b}", "points": []});
        assert!(super::page(&empty, 0, hour).starts_with("cpu of a\\u{1b}: nothing"));
    }
}
