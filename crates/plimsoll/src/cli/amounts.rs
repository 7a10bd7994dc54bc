//! The API's numbers, as people read them.

use jiff::Timestamp;
use plimsoll_core::{Dimension, Limit};
use serde_json::Value;

/// A field of an answer in ledger units; `None` where it is missing, null or no amount.
#[must_use]
pub(super) fn amount(of: &Value, field: &str, dimension: Dimension) -> Option<u64> {
    let number = of[field].as_f64()?;
    dimension.from_human(number.max(0.0)).ok()
}

/// A charged amount: `cpuCores` in an object of amounts, or `reservedCpuCores` beside other fields.
#[must_use]
pub(super) fn charged(of: &Value, prefix: &str, dimension: Dimension) -> Option<u64> {
    amount(of, &field_name(prefix, dimension), dimension)
}

/// What the API calls an amount: `cpuCores`, or `reservedCpuCores` with a prefix.
#[must_use]
pub(super) fn field_name(prefix: &str, dimension: Dimension) -> String {
    let mut field = format!("{prefix}{}", dimension.field());
    if prefix.is_empty()
        && let Some(first) = field.get(..1).map(str::to_lowercase)
    {
        field.replace_range(..1, &first);
    }
    field
}

/// A `max*` field of an answer.
#[must_use]
pub(super) fn limit(of: &Value, dimension: Dimension) -> Limit {
    amount(of, &format!("max{}", dimension.field()), dimension).into()
}

/// An amount or a dash.
#[must_use]
pub(super) fn shown(dimension: Dimension, amount: Option<u64>) -> String {
    amount.map_or_else(|| "-".to_owned(), |amount| dimension.show(amount))
}

/// A limit.
#[must_use]
pub(super) fn shown_limit(dimension: Dimension, limit: Limit) -> String {
    limit
        .at_most()
        .map_or_else(|| "unlimited".to_owned(), |most| dimension.show(most))
}

/// What a row about a dimension is called.
#[must_use]
pub(super) fn label(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::TempStorage => "temp storage",
        Dimension::ConcurrentContainers => "running",
        Dimension::CpuPercent => "cpu, share of host",
        Dimension::MemoryPercent => "memory, share of host",
        Dimension::Runtime => "runtime a day",
        Dimension::CoreHoursDay => "core-hours a day",
        Dimension::CoreHoursWeek => "core-hours a week",
        Dimension::CoreHoursMonth => "core-hours a month",
        Dimension::GibHoursDay => "GiB-hours a day",
        Dimension::GibHoursWeek => "GiB-hours a week",
        Dimension::GibHoursMonth => "GiB-hours a month",
        Dimension::TransferMonth => "transfer a month",
        other => other.name(),
    }
}

/// A text field, or a dash.
#[must_use]
pub(super) fn text(of: &Value, field: &str) -> String {
    match &of[field] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

/// The entries of a list.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// How long ago a time was: `3s ago`, `2h 5m ago`.
#[must_use]
pub(super) fn ago(time: &Value, now_ms: i64) -> String {
    let Some(then) = time.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = now_ms.saturating_sub(then.as_millisecond()).max(0) / 1000;
    format!("{} ago", span(seconds))
}

/// How long it is until a time of the API's: `in 5m`.
pub(super) fn ahead(time: &Value, now_ms: i64) -> String {
    let Some(then) = time.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = then.as_millisecond().saturating_sub(now_ms).max(0) / 1000;
    format!("in {}", span(seconds))
}

/// Seconds in their two largest units.
fn span(seconds: i64) -> String {
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let Some(first) = parts.iter().position(|(n, _)| *n > 0) else {
        return "0s".to_owned();
    };
    let shown = parts[first..].iter().take(2).filter(|(n, _)| *n > 0);
    let words: Vec<String> = shown.map(|(n, unit)| format!("{n}{unit}")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_apis_numbers_become_amounts() {
        let answer = json!({"maxMemoryGB": 0.5, "maxCpuCores": null, "reservedCpuCores": 1.5,
                            "memoryGB": 2, "currentMemoryGB": 0.012_345});
        assert_eq!(limit(&answer, Dimension::Memory), Limit::AtMost(512 << 20));
        assert_eq!(limit(&answer, Dimension::Cpu), Limit::Unlimited);
        assert_eq!(charged(&answer, "reserved", Dimension::Cpu), Some(1500));
        assert_eq!(charged(&answer, "", Dimension::Memory), Some(2 << 30));
        assert_eq!(charged(&answer, "", Dimension::Pids), None);
        let used = charged(&answer, "current", Dimension::Memory);
        assert_eq!(shown(Dimension::Memory, used), "12.64 MiB");
        assert_eq!(shown(Dimension::Pids, None), "-");
        assert_eq!(shown_limit(Dimension::Cpu, Limit::Unlimited), "unlimited");
    }

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (7500, "2h 5m"),
            (86_400 * 3 + 59, "3d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(ago(&json!("1970-01-01T00:00:01Z"), 4000), "3s ago");
        assert_eq!(ago(&Value::Null, 4000), "-");
    }
}
