//! Times on the command line: `2026-12-31T00:00:00Z`, `2026-12-31`, `friday`, `30d`.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// Longest span that can be given: ten years.
const SPAN_MAX_S: i64 = 3650 * 86_400;

/// A time to come, or one that has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// At a time.
    At(Timestamp),
    /// So many seconds from now.
    AfterSeconds(i64),
    /// When this day ends here.
    EndOf(Date),
    /// When the next such day ends here; today is one.
    EndOfNext(Weekday),
}

impl When {
    /// As a time, now being `now`, in the time zone `here`.
    #[must_use]
    pub(super) fn at(self, now: Timestamp, here: &TimeZone) -> Option<Timestamp> {
        let today = here.to_datetime(now).date();
        let end = |day: Date| midnight(day.checked_add(1.day()).ok()?, here);
        match self {
            Self::At(at) => Some(at),
            Self::AfterSeconds(span) => Timestamp::from_second(now.as_second() + span).ok(),
            Self::EndOf(day) => end(day),
            Self::EndOfNext(day) if today.weekday() == day => end(today),
            Self::EndOfNext(day) => end(today.nth_weekday(1, day).ok()?),
        }
    }

    /// As a time that has been: a span before `now`, the beginning of a day, the last such day's.
    #[must_use]
    fn since(self, now: Timestamp, here: &TimeZone) -> Option<Timestamp> {
        let today = here.to_datetime(now).date();
        let begin = |day: Date| midnight(day, here);
        match self {
            Self::At(at) => Some(at),
            Self::AfterSeconds(span) => Timestamp::from_second(now.as_second() - span).ok(),
            Self::EndOf(day) => begin(day),
            Self::EndOfNext(day) if today.weekday() == day => begin(today),
            Self::EndOfNext(day) => begin(today.nth_weekday(-1, day).ok()?),
        }
    }

    /// When it was, Unix milliseconds, now being `now_ms`, on this machine.
    #[must_use]
    pub(super) fn before(self, now_ms: i64) -> Option<i64> {
        let now = Timestamp::from_millisecond(now_ms).ok()?;
        let since = self.since(now, &TimeZone::system())?;
        Some(since.as_millisecond())
    }

    /// As the API takes it, now being `now_ms`, on this machine.
    #[must_use]
    pub(super) fn text(self, now_ms: i64) -> Option<String> {
        let now = Timestamp::from_millisecond(now_ms).ok()?;
        let at = self.at(now, &TimeZone::system())?;
        Some(at.to_string())
    }
}

/// When a day begins.
fn midnight(day: Date, here: &TimeZone) -> Option<Timestamp> {
    let midnight = day.to_datetime(jiff::civil::Time::midnight());
    here.to_timestamp(midnight).ok()
}

/// A span, in seconds.
///
/// # Errors
/// What it should have been.
pub(super) fn span(text: &str) -> Result<i64, String> {
    match parse(text) {
        Ok(When::AfterSeconds(seconds)) => Ok(seconds),
        _ => Err("must be a span like 14d or 12h, of ten years at most".to_owned()),
    }
}

/// A time, a day, or a span from now.
///
/// # Errors
/// What it should have been.
pub(super) fn parse(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(When::At(at));
    }
    if let Ok(day) = text.parse::<Date>() {
        return Ok(When::EndOf(day));
    }
    if let Some(day) = weekday(text) {
        return Ok(When::EndOfNext(day));
    }
    let wrong = || {
        "must be a time like 2026-12-31T00:00:00Z, a day like 2026-12-31 or friday, or a span like \
         30d, 12h"
            .to_owned()
    };
    let split = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(split).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(span) if (1..=SPAN_MAX_S).contains(&span) => Ok(When::AfterSeconds(span)),
        _ => Err("must be more than nothing and at most ten years".to_owned()),
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    let known = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.to_lowercase();
    let meant = |name: &str| text == name || text == name[..3];
    known
        .into_iter()
        .find(|(name, _)| meant(name))
        .map(|(_, day)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_spans_are_understood() {
        // A Tuesday, one hour into it two hours east of Greenwich.
        let now: Timestamp = "2026-11-23T23:00:00Z".parse().unwrap();
        let here = TimeZone::fixed(jiff::tz::offset(2));
        for (text, at) in [
            ("30d", "2026-12-23T23:00:00Z"),
            ("12h", "2026-11-24T11:00:00Z"),
            ("5m", "2026-11-23T23:05:00Z"),
            ("1s", "2026-11-23T23:00:01Z"),
            ("2w", "2026-12-07T23:00:00Z"),
            ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
            ("2026-12-31", "2026-12-31T22:00:00Z"),
            ("friday", "2026-11-27T22:00:00Z"),
            ("Fri", "2026-11-27T22:00:00Z"),
            ("tuesday", "2026-11-24T22:00:00Z"),
            ("monday", "2026-11-30T22:00:00Z"),
        ] {
            let when = parse(text).unwrap().at(now, &here).unwrap();
            assert_eq!(when.to_string(), at, "{text}");
        }
        for (text, at) in [
            ("12h", "2026-11-23T11:00:00Z"),
            ("2026-11-01", "2026-10-31T22:00:00Z"),
            ("monday", "2026-11-22T22:00:00Z"),
            ("tuesday", "2026-11-23T22:00:00Z"),
        ] {
            let when = parse(text).unwrap().since(now, &here).unwrap();
            assert_eq!(when.to_string(), at, "since {text}");
        }
        for wrong in [
            "",
            "d",
            "30",
            "-3d",
            "0d",
            "30y",
            "9999999d",
            "99999999999999999999d",
            "3ä",
            "fr",
            "2026-13-01",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
