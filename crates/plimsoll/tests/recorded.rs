//! What the command line says of series in files.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn plimsoll(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that is refused at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(args: &[&str], input: &str) -> String {
    let output = plimsoll(args, input);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str], input: &str) -> Value {
    let args = [args, &["--csv", "-", "--json"]].concat();
    serde_json::from_str(&said(&args, input)).unwrap()
}

/// Hours with a rhythm of days, each day by `growth` more.
fn hours(count: i32, growth: f64) -> String {
    let row = |hour: i32| {
        let busy = if (9..18).contains(&(hour % 24)) {
            4.0
        } else {
            1.0
        };
        let value = busy + growth * f64::from(hour) / 24.0 + f64::from(hour * 37 % 11) / 20.0;
        format!("{},{value}\n", 1_700_006_400 + hour * 3600)
    };
    "timestamp,value\n".to_owned() + &(0..count).map(row).collect::<String>()
}

#[test]
fn a_forecast_goes_on_where_the_file_ends() {
    let forecast = json(&["forecast", "--horizon", "2d"], &hours(24 * 30, 0.0));
    let points = forecast["points"].as_array().unwrap();
    assert_eq!(points.len(), 48);
    assert_eq!(points[0]["timestamp"], "2023-12-15T00:00:00Z");
    for (hour, point) in points.iter().enumerate() {
        let [value, low, high] = ["value", "lower", "upper"].map(|k| point[k].as_f64().unwrap());
        let busy = if (9..18).contains(&(hour % 24)) {
            4.25
        } else {
            1.25
        };
        assert!((value - busy).abs() < 0.5, "{hour}: {point}");
        assert!(low <= value && value <= high && high - low < 2.0, "{point}");
    }
    let weights = forecast["methods"].as_object().unwrap().values();
    let total: f64 = weights.map(|w| w.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6);
    let page = said(
        &["forecast", "--csv", "-", "--horizon", "2d"],
        &hours(24 * 30, 0.0),
    );
    assert!(
        page.contains("on average") && page.contains("2023-12-16"),
        "{page}"
    );
}

#[test]
fn exhaustion_spikes_and_sizes_are_told() {
    let growing = hours(24 * 30, 2.0);
    let found = json(&["exhaustion", "--limit", "80"], &growing);
    assert_eq!(found["alert"], true, "{found}");
    assert!(
        (5.0..12.0).contains(&found["days"].as_f64().unwrap()),
        "{found}"
    );
    let found = json(&["exhaustion", "--limit", "80"], &hours(24 * 30, 0.0));
    assert_eq!(
        (&found["alert"], &found["date"]),
        (&Value::Bool(false), &Value::Null)
    );

    let mut odd = hours(24 * 30, 0.0);
    odd.push_str("1702599000,90\n");
    let found = json(&["spikes"], &odd);
    assert_eq!(found["spikes"].as_array().unwrap().len(), 1, "{found}");
    assert!(found["spikes"][0]["score"].as_f64().unwrap() > 6.0);

    let found = json(&["rightsize"], &hours(24 * 30, 0.0));
    let target = found["target"].as_f64().unwrap();
    assert!((5.0..5.8).contains(&target), "{found}");
}

#[test]
fn many_series_are_answered_one_a_line_and_one_without_values_keeps_nobody() {
    let mut rows = "series,timestamp,value\n".to_owned();
    for hour in 0..200 {
        rows.push_str(&format!("b,{},{}\n", hour * 3600, hour % 7));
        rows.push_str(&format!("a,{},2\n", hour * 3600));
    }
    rows.push_str("empty,0,\n");
    let text = said(&["rightsize", "--csv", "-", "--json"], &rows);
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let names: Vec<&Value> = lines.iter().map(|l| &l["series"]).collect();
    assert_eq!(names, ["b", "a", "empty"]);
    assert!(
        (lines[1]["target"].as_f64().unwrap() - 2.3).abs() < 0.01,
        "{text}"
    );
    assert_eq!(lines[2]["error"], "there is no value in it");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (args, input, what) in [
        (
            &["forecast"][..],
            "timestamp,value\n0,1\nsoon,2\n",
            "line 3: timestamp \"soon\"",
        ),
        (
            &["forecast"],
            "time,value\n0,1\n",
            "has no column timestamp",
        ),
        (
            &["forecast"],
            "timestamp,value\n",
            "there is no value in it",
        ),
        (
            &["forecast", "--horizon", "tomorrow"],
            "",
            "must be a span like 14d",
        ),
        (
            &["forecast", "--horizon", "9y"],
            "",
            "must be a span like 14d",
        ),
        (
            &["forecast", "--horizon", "520w"],
            "timestamp,value\n0,1\n",
            "10000 is the most",
        ),
        (&["forecast", "--level", "100"], "", "1..=99"),
        (&["exhaustion"], "", "--limit"),
        (&["exhaustion", "--limit", "nan"], "", "must be a number"),
        (
            &["exhaustion", "--limit", "5"],
            "timestamp,value\n0,1\n",
            "fewer than 4 days",
        ),
        (&["spikes", "--far", "0"], "", "above zero"),
        (
            &["rightsize"],
            "timestamp,value\n0,1\n",
            "fewer than 100 values",
        ),
    ] {
        let output = plimsoll(&[args, &["--csv", "-"]].concat(), input);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(what), "{args:?}: {error}");
    }
    let output = plimsoll(&["spikes", "--csv", "/nonexistent/x.csv"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read /nonexistent/x.csv"));
}
