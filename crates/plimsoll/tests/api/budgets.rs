//! What is used up in a day, a week or a month, with the clock moved on.

use std::collections::HashMap;
use std::time::Duration;

use plimsoll::budget::follow;
use plimsoll::meter::{Reading, Usage, Whose};
use serde_json::{Value, json};

use crate::site::Site;

const HOUR_MS: u64 = 3_600_000;

/// As if ada had used so many hours of a core, running one container.
async fn used(site: &Site, hours: u64) {
    let ada = site.app.store.user("ada").unwrap().id;
    let usage = Usage {
        cpu_milli: 1000,
        containers: 1,
        total_runtime_ms: hours * HOUR_MS,
        total_cpu_ns: hours * HOUR_MS * 1_000_000,
        ..Usage::default()
    };
    site.app.meter.publish(Reading {
        entities: HashMap::from([(Whose::User(ada), usage)]),
        ..Reading::default()
    });
    follow(&site.app).await.unwrap();
}

/// Used, and left, of a budget.
async fn stands(site: &Site, dimension: &str) -> (f64, f64, Value) {
    let quota = site.get("/api/quotas/user/ada").await;
    let all = quota["budgets"].as_array().unwrap();
    let one = all.iter().find(|b| b["dimension"] == dimension).unwrap();
    let number = |field: &str| one[field].as_f64().unwrap();
    (number("used"), number("left"), one.clone())
}

async fn exceeded(site: &Site) -> Vec<String> {
    let open = site.get("/api/quotas/violations?user=ada").await;
    let open = open["items"].as_array().unwrap().iter();
    let mut names: Vec<_> = open
        .map(|v| v["dimension"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_budget_is_used_up_told_of_and_begins_anew() {
    let site = Site::new().await;
    let token = site.user("ada", "member").await;
    let limits = json!({"maxRuntimeHours": 10, "maxCoreHoursPerMonth": 25});
    site.ask("PUT", "/api/quotas/user/ada", limits)
        .await
        .is(200);
    // What was used before counts for nothing.
    used(&site, 100).await;
    used(&site, 107).await;
    let (has_used, left, budget) = stands(&site, "runtime").await;
    assert_eq!((has_used, left), (7.0, 3.0));
    // Three hours from now, unless the day ends before.
    let time = |v: &Value| {
        v.as_str()
            .map(|t| t.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    };
    let until = time(&budget["until"]).unwrap();
    let safe = site.app.clock.now_ms() + 3 * 3_600_000;
    match time(&budget["lastsUntil"]) {
        Some(lasts) => assert!((lasts - safe).abs() < 60_000 && lasts < until, "{budget}"),
        None => assert!(safe >= until - 60_000, "{budget}"),
    }
    let told = async || {
        let inbox = site
            .by(&token, "GET", "/api/notifications", None)
            .await
            .is(200);
        inbox["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|n| n["kind"] == "threshold")
            .map(|n| n["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    used(&site, 108).await;
    used(&site, 108).await;
    assert_eq!(told().await, ["80 % of the runtime of ada is used"]);
    assert!(exceeded(&site).await.is_empty());
    used(&site, 110).await;
    assert_eq!(exceeded(&site).await, ["runtime"]);

    site.app.clock.advance(Duration::from_secs(86_400));
    used(&site, 110).await;
    assert!(exceeded(&site).await.is_empty(), "another day");
    assert_eq!(stands(&site, "runtime").await.0, 0.0);
    site.app.clock.advance(Duration::from_secs(40 * 86_400));
    used(&site, 110).await;
    assert_eq!(stands(&site, "core_hours_month").await.0, 0.0);
    used(&site, 135).await;
    assert_eq!(exceeded(&site).await, ["core_hours_month", "runtime"]);
    let more = json!({"maxCoreHoursPerMonth": 26, "maxRuntimeHours": 24});
    site.ask("PUT", "/api/quotas/user/ada", more).await.is(200);
    follow(&site.app).await.unwrap();
    assert!(exceeded(&site).await.is_empty(), "there is more");
}

#[tokio::test]
async fn days_begin_where_people_are() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let set = |zone| {
        site.ask(
            "PUT",
            "/api/quotas/user/ada",
            json!({"timeZone": zone, "maxRuntimeHours": 8}),
        )
    };
    set("Nowhere/Land").await.fails(422, "invalid_field");
    set("Asia/Tokyo").await.is(200);
    used(&site, 1).await;
    let (_, _, budget) = stands(&site, "runtime").await;
    assert!(
        budget["until"].as_str().unwrap().ends_with("T15:00:00Z"),
        "{budget}"
    );
    // The day that has begun ends as it was to.
    set("UTC").await.is(200);
    used(&site, 2).await;
    assert_eq!(stands(&site, "runtime").await.2["until"], budget["until"]);
    site.app.clock.advance(Duration::from_secs(86_400));
    used(&site, 2).await;
    let until = stands(&site, "runtime").await.2["until"].clone();
    assert!(until.as_str().unwrap().ends_with("T00:00:00Z"), "{until}");
}

#[tokio::test]
async fn a_team_that_was_given_no_budget_has_none() {
    let site = Site::new().await;
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    let quota = site.get("/api/quotas/team/ml").await;
    assert_eq!(quota["maxCoreHoursPerDay"], 0.0);
    assert_eq!(quota["budgets"], json!([]));
}
