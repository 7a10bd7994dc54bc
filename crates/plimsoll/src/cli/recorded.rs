//! `plimsoll forecast`, `exhaustion`, `spikes` and `rightsize` over series in a file: the same judgement
//! that the server makes, for anybody to check on data of their own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use plimsoll_core::analysis::exhaustion::{DAYS_MIN, Outlook, SOON_DAYS};
use plimsoll_core::analysis::forecast::{Forecast, HORIZON_MAX};
use plimsoll_core::analysis::rightsize::{SAMPLES_MIN, Sizing};
use plimsoll_core::analysis::series::{DAY_MS, HOUR_MS};
use plimsoll_core::analysis::spikes::{FAR, Spike};
use plimsoll_core::analysis::{Series, exhaustion as outlook, forecast as ahead};
use plimsoll_core::analysis::{rightsize as sizing, spikes as odd};
use plimsoll_core::units::trim;
use serde_json::{Map, Value, json};

use super::answer::{Answer, put};
use super::args::{ExhaustionFlags, ForecastFlags, RecordedFlags, SpikesFlags};
use super::error::CliError;
use super::history::time;
use super::text::printable;

pub(super) fn forecast(flags: &ForecastFlags, as_json: bool) -> Result<Answer, CliError> {
    let level = f64::from(flags.level) / 100.0;
    each(&flags.recorded, as_json, |series| {
        // Steps shorter than an hour would forecast noise.
        let series = series.coarsened(HOUR_MS);
        let ahead_ms = flags.horizon.saturating_mul(1000).unsigned_abs();
        let steps = ahead_ms.div_ceil(series.step_ms().unsigned_abs());
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        if steps > HORIZON_MAX {
            return Err(format!(
                "{steps} steps ahead are too many: {HORIZON_MAX} is the most"
            ));
        }
        let forecast = ahead::forecast(&series, steps, level);
        Ok(of_forecast(&series, &forecast, flags.level))
    })
}

pub(super) fn exhaustion(flags: &ExhaustionFlags, as_json: bool) -> Result<Answer, CliError> {
    if !flags.limit.is_finite() {
        return Err(CliError::Usage("--limit must be a number".to_owned()));
    }
    let level = f64::from(flags.level) / 100.0;
    each(&flags.recorded, as_json, |series| {
        let few = || format!("fewer than {DAYS_MIN} days say nothing about growth");
        let found = outlook::exhaustion(series, flags.limit, level).ok_or_else(few)?;
        Ok(of_outlook(series, &found, flags))
    })
}

pub(super) fn spikes(flags: &SpikesFlags, as_json: bool) -> Result<Answer, CliError> {
    let far = flags.far.unwrap_or(FAR);
    if !(far.is_finite() && far > 0.0) {
        return Err(CliError::Usage(
            "--far must be a number above zero".to_owned(),
        ));
    }
    each(&flags.recorded, as_json, |series| {
        Ok(of_spikes(&odd::spikes(series, far)))
    })
}

pub(super) fn rightsize(flags: &RecordedFlags, as_json: bool) -> Result<Answer, CliError> {
    each(flags, as_json, |series| {
        let few = || format!("fewer than {SAMPLES_MIN} values are no ground for advice");
        let found = sizing::rightsize(series, &[]).ok_or_else(few)?;
        Ok(of_sizing(&found))
    })
}

/// What is said of one series: for programs, and for people.
type Said = (Map<String, Value>, String);

/// Answers for each series of the file, in the order in which they first appear. Many are written as they
/// are answered, one a line; what cannot be answered for one does not keep the others from being.
fn each(
    flags: &RecordedFlags,
    as_json: bool,
    answer: impl Fn(&Series) -> Result<Said, String>,
) -> Result<Answer, CliError> {
    let answer = |points: &[(i64, f64)]| {
        let series = Series::of(points, None).map_err(|error| error.to_string())?;
        answer(&series)
    };
    match read(&flags.csv)? {
        Recorded::One(points) => {
            let (json, said) = answer(&points).map_err(CliError::Usage)?;
            Ok(Answer::new(Value::Object(json), said))
        }
        Recorded::Many(all) => {
            for (name, points) in all {
                let (mut json, mut said) = answer(&points)
                    .unwrap_or_else(|why| (object(json!({"error": why})), format!("{why}\n")));
                json.insert("series".to_owned(), json!(name));
                said.insert_str(0, &format!("{}: ", printable(&name)));
                let line = if as_json {
                    format!("{}\n", Value::Object(json))
                } else {
                    said
                };
                put(&line)?;
            }
            Ok(Answer::silent())
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn of_forecast(series: &Series, forecast: &Forecast, level: u8) -> Said {
    let points: Vec<Value> = forecast
        .points
        .iter()
        .map(|point| {
            json!({
                "timestamp": time(point.at_ms),
                "value": point.value,
                "lower": point.between.map(|b| b.0),
                "upper": point.between.map(|b| b.1),
            })
        })
        .collect();
    let methods: Map<String, Value> = forecast
        .methods
        .iter()
        .map(|(m, weight)| (m.name().to_owned(), json!(weight)))
        .collect();
    let sentence = forecast_in_words(forecast, level);
    let mut page = format!("{sentence}\n");
    let days = forecast
        .points
        .chunk_by(|a, b| a.at_ms.div_euclid(DAY_MS) == b.at_ms.div_euclid(DAY_MS));
    for day in days {
        let mean = day.iter().map(|p| p.value).sum::<f64>() / day.len() as f64;
        let edge = |of: fn((f64, f64)) -> f64, pick: fn(f64, f64) -> f64| {
            day.iter()
                .filter_map(|p| p.between.map(of))
                .reduce(pick)
                .map_or("?".to_owned(), number)
        };
        let (low, high) = (edge(|b| b.0, f64::min), edge(|b| b.1, f64::max));
        let date = &time(day[0].at_ms)[..10];
        let _ = writeln!(page, "  {date}  {:>10}  {low} to {high}", number(mean));
    }
    let json = json!({
        "stepSeconds": series.step_ms() / 1000,
        "level": level,
        "values": forecast.known,
        "folds": forecast.folds,
        "methods": methods,
        "points": points,
        "sentence": sentence,
    });
    (object(json), page)
}

fn forecast_in_words(forecast: &Forecast, level: u8) -> String {
    let (Some(first), Some(last)) = (forecast.points.first(), forecast.points.last()) else {
        return "nothing is asked".to_owned();
    };
    let mean = forecast.points.iter().map(|p| p.value).sum::<f64>() / forecast.points.len() as f64;
    let mut words = format!(
        "From {} to {} it will be {} on average",
        time(first.at_ms),
        time(last.at_ms),
        number(mean)
    );
    match last.between {
        Some((low, high)) => {
            let _ = write!(
                words,
                ", and at the end between {} and {} in {level} of 100 cases",
                number(low),
                number(high)
            );
        }
        None => words.push_str("; one value does not say how far it moves"),
    }
    if forecast.folds == 0 {
        words.push_str(". This is a guess: there is too little history to judge it by");
    }
    words.push('.');
    words
}

fn of_outlook(series: &Series, found: &Outlook, flags: &ExhaustionFlags) -> Said {
    let end_ms = series.at_ms(series.values().len());
    let date = |days: Option<f64>| days.map(|days| time(end_ms + (days * DAY_MS as f64) as i64));
    let sentence = outlook_in_words(found, flags);
    let json = json!({
        "limit": flags.limit,
        "level": flags.level,
        "probability": found.soon,
        "withinDays": SOON_DAYS,
        "alert": found.is_sure(),
        "days": found.days,
        "daysLower": found.between.0,
        "daysUpper": found.between.1,
        "date": date(found.days),
        "dateLower": date(found.between.0),
        "dateUpper": date(found.between.1),
        "current": found.level,
        "growthPerDay": found.growth,
        "stalled": found.stalled,
        "daysKnown": found.known,
        "sentence": sentence,
    });
    (object(json), format!("{sentence}\n"))
}

fn outlook_in_words(found: &Outlook, flags: &ExhaustionFlags) -> String {
    let limit = number(flags.limit);
    if found.days == Some(0.0) {
        return format!(
            "{limit} has been reached: it is at {}.",
            number(found.level)
        );
    }
    let percent = (found.soon * 100.0).round();
    let soon = format!("{percent} % that it is within {SOON_DAYS} days");
    let Some(days) = found.days else {
        return format!("{limit} is not expected to be reached; {soon}.");
    };
    let late = found
        .between
        .1
        .map_or("never".to_owned(), |late| format!("{late:.0}"));
    let early = found.between.0.unwrap_or(0.0);
    format!("{limit} is reached in {days:.0} days, between {early:.0} and {late}; {soon}.")
}

fn of_spikes(found: &[Spike]) -> Said {
    let mut page = match found.len() {
        0 => "Nothing was odd.\n".to_owned(),
        1 => "Once it was odd:\n".to_owned(),
        count => format!("{count} times it was odd:\n"),
    };
    for spike in found {
        let _ = writeln!(
            page,
            "  {}  {}, usually {} ({:+.1} deviations)",
            time(spike.at_ms),
            number(spike.value),
            number(spike.usual),
            spike.score
        );
    }
    let spikes = found.iter().map(|spike| {
        json!({
            "timestamp": time(spike.at_ms),
            "value": spike.value,
            "expected": spike.usual,
            "score": spike.score,
        })
    });
    let spikes: Vec<Value> = spikes.collect();
    (
        object(json!({"spikes": spikes, "sentence": page.lines().next()})),
        page,
    )
}

fn of_sizing(found: &Sizing) -> Said {
    let sentence = format!(
        "Give it {}: 99 of 100 values were below {}, the most of nine days in ten below {}.",
        number(found.target),
        number(found.p99),
        number(found.peaks)
    );
    let changes: Vec<Value> = found
        .changes
        .iter()
        .map(|change| json!({"timestamp": time(change.at_ms), "target": change.target}))
        .collect();
    let json = json!({
        "target": found.target,
        "p99": found.p99,
        "peaksP90": found.peaks,
        "trendPerWeek": found.trend,
        "samples": found.samples,
        "over": found.over,
        "changes": changes,
        "sentence": sentence,
    });
    (object(json), format!("{sentence}\n"))
}

/// Four digits that mean something.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    trim(value, usize::try_from(digits.clamp(0, 9)).unwrap_or(0))
}

type Points = Vec<(i64, f64)>;

/// What a file holds.
#[derive(Debug, PartialEq)]
enum Recorded {
    One(Points),
    /// By name, in the order in which they first appear.
    Many(Vec<(String, Points)>),
}

fn read(path: &Path) -> Result<Recorded, CliError> {
    let io = |source| CliError::Io {
        verb: "read",
        path: path.display().to_string(),
        source,
    };
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(io)?),
    };
    parse(input).map_err(|why| CliError::Usage(format!("{}: {why}", path.display())))
}

fn parse(input: impl Read) -> Result<Recorded, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(input);
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| {
        let plain = |text: &str| {
            text.trim_start_matches('\u{feff}')
                .eq_ignore_ascii_case(name)
        };
        header.iter().position(plain)
    };
    let needed = |name| column(name).ok_or_else(|| format!("has no column {name}"));
    let (at, value) = (needed("timestamp")?, needed("value")?);
    let name = column("series");
    let mut all: Vec<(String, Points)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut row = csv::StringRecord::new();
    while reader
        .read_record(&mut row)
        .map_err(|error| error.to_string())?
    {
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let wrong =
            |column, text: &str, what| format!("line {line}: {column} {text:?} is not {what}");
        let at_ms = instant(cell(at)).ok_or_else(|| wrong("timestamp", cell(at), "a time"))?;
        let number =
            quantity(cell(value)).ok_or_else(|| wrong("value", cell(value), "a number"))?;
        let name = name.map_or("", cell);
        let place = match places.get(name) {
            Some(place) => *place,
            None => {
                all.push((name.to_owned(), Vec::new()));
                places.insert(name.to_owned(), all.len() - 1);
                all.len() - 1
            }
        };
        all[place].1.push((at_ms, number));
    }
    match (name, all.pop()) {
        (Some(_), last) => {
            all.extend(last);
            Ok(Recorded::Many(all))
        }
        (None, one) => Ok(Recorded::One(one.unwrap_or_default().1)),
    }
}

/// Unix milliseconds; a time without an offset is UTC.
fn instant(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        // Seconds this large would be in the year 5138.
        let ms = if number.abs() < 1e11 {
            number * 1000.0
        } else {
            number
        };
        return (number.is_finite() && ms.abs() < 1e17).then_some(ms.round() as i64);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_millisecond());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond())
}

/// A number; a gap, however it is written, is `NaN`.
fn quantity(text: &str) -> Option<f64> {
    let gap = ["", "null", "na", "n/a", "none"];
    match gap.iter().any(|gap| text.eq_ignore_ascii_case(gap)) {
        true => Some(f64::NAN),
        false => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [
            ("0", 0),
            ("1700000000", 1_700_000_000_000),
            ("1700000000.5", 1_700_000_000_500),
            ("1700000000000", 1_700_000_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14 22:13:20", 1_700_000_000_000),
            ("2023-11-14", 1_699_920_000_000),
        ] {
            assert_eq!(instant(text), Some(ms), "{text}");
        }
        for wrong in ["", "yesterday", "2023-13-01", "nan", "inf", "1e300"] {
            assert_eq!(instant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_is_one_series_or_many() {
        let one = parse("timestamp,value\n0,1\n3600,\n7200,x".as_bytes());
        assert_eq!(one.unwrap_err(), "line 4: value \"x\" is not a number");
        let Ok(Recorded::One(points)) = parse("value,Timestamp\n1, 0\n,3600\n".as_bytes()) else {
            panic!("one series");
        };
        assert_eq!((points.len(), points[0]), (2, (0, 1.0)));
        assert!(points[1].1.is_nan());
        let many = "series,timestamp,value\nb,0,1\na,0,2\nb,3600,3\n";
        let Ok(Recorded::Many(all)) = parse(many.as_bytes()) else {
            panic!("many series");
        };
        assert_eq!(all[0], ("b".to_owned(), vec![(0, 1.0), (3_600_000, 3.0)]));
        assert_eq!(all[1], ("a".to_owned(), vec![(0, 2.0)]));
        for (text, why) in [
            ("", "has no column timestamp"),
            ("timestamp,v\n", "has no column value"),
            (
                "timestamp,value\nnever,1\n",
                "line 2: timestamp \"never\" is not a time",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), why);
        }
        assert!(parse("timestamp,value\n1,2,3\n".as_bytes()).is_err());
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (2.718_49, "2.718"),
            (0.000_123_456, "0.0001235"),
            (123_456.7, "123457"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
