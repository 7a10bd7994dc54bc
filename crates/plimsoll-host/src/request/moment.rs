//! Points in time as Docker's clients write them: `10m` ago, `2026-11-24`, seconds since 1970.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::json::short;
use super::refusal::BadRequest;

/// Nanoseconds of the units that Go's durations are made of; longer names first.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a point in time. A duration counts back from `now`; a date without a zone is UTC's.
///
/// # Errors
/// [`BadRequest`] on `field` when it is none of these.
pub fn moment(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, BadRequest> {
    let bad = || {
        let reason = format!(
            "{} is no point in time: write 24h, 2026-11-24, 2026-11-24T10:00:00Z or seconds since 1970",
            short(text)
        );
        BadRequest::new(field, reason)
    };
    if let Some(ago) = go_duration(text) {
        return now.checked_sub(ago).map_err(|_| bad());
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if digits && !text.is_empty() {
        let (seconds, _) = text.split_once('.').unwrap_or((text, ""));
        let seconds = seconds.parse().map_err(|_| bad())?;
        return Timestamp::from_second(seconds).map_err(|_| bad());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let civil: DateTime = text.parse().map_err(|_| bad())?;
    TimeZone::UTC.to_timestamp(civil).map_err(|_| bad())
}

/// A duration as Go writes one: `1h30m`, `1.5h`, `-10s`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let (name, unit) = UNITS.iter().find(|(name, _)| {
            let follows = |c: char| c.is_ascii_digit() || c == '.';
            after
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(follows))
        })?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || number.len() > 18 || part.contains('.') {
            return None;
        }
        let parsed = |digits: &str| match digits {
            "" => Some(0),
            digits => digits.parse::<i128>().ok(),
        };
        let scale = 10i128.pow(u32::try_from(part.len()).ok()?);
        nanos += parsed(whole)? * unit + parsed(part)? * unit / scale;
        rest = &after[name.len()..];
    }
    let nanos = nanos * sign;
    let second = 1_000_000_000;
    let seconds = i64::try_from(nanos / second).ok()?;
    Some(SignedDuration::new(
        seconds,
        i32::try_from(nanos % second).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_as_clients_write_them() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        for (text, read) in [
            ("1h", "2026-11-24T11:00:00Z"),
            ("1h30m", "2026-11-24T10:30:00Z"),
            ("1.5h", "2026-11-24T10:30:00Z"),
            ("90s", "2026-11-24T11:58:30Z"),
            ("1500ms", "2026-11-24T11:59:58.5Z"),
            ("-10s", "2026-11-24T12:00:10Z"),
            ("0", "2026-11-24T12:00:00Z"),
            ("2026-11-23", "2026-11-23T00:00:00Z"),
            ("2026-11-23T10:00:00", "2026-11-23T10:00:00Z"),
            ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23T10:00:00.5+01:00", "2026-11-23T09:00:00.5Z"),
            ("1136073845", "2006-01-01T00:04:05Z"),
            ("1136073845.000000001", "2006-01-01T00:04:05Z"),
        ] {
            let read: Timestamp = read.parse().unwrap();
            assert_eq!(moment("until", text, now), Ok(read), "{text}");
        }
        for text in [
            "",
            "-",
            "h",
            "1d",
            "1hh",
            "1h1",
            ".h",
            "1..5h",
            "yesterday",
            "99999999999999999999",
            "1e3s",
            "9999999999999999h",
            "1h 30m",
        ] {
            assert!(moment("until", text, now).is_err(), "{text}");
        }
    }
}
