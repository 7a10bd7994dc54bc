//! `/api/quotas/user`, `/team`, `/system`, `/violations`

use hyper::header::IF_MATCH;
use serde_json::{Value, json};

use crate::site::Site;

#[tokio::test]
async fn only_the_given_fields_change_and_null_is_unlimited() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let before = site.get("/api/quotas/user/ada").await;
    let change = json!({"maxMemoryGB": 1.5, "maxGpus": null, "maxContainers": 0});
    let after = site
        .ask("PUT", "/api/quotas/user/ada", change)
        .await
        .is(200);
    for (field, expected) in [
        ("maxMemoryGB", json!(1.5)),
        ("maxGpus", Value::Null),
        ("maxContainers", json!(0)),
        ("maxCpuCores", before["maxCpuCores"].clone()),
        ("maxIdleTimeMinutes", json!(60.0)),
    ] {
        assert_eq!(after[field], expected, "{field}");
    }
    assert_eq!(site.get("/api/quotas/user/ada").await, after);
    site.reserve("ada", 1.0).await.fails(403, "quota_exceeded");
}

#[tokio::test]
async fn a_lost_update_is_412() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let path = "/api/quotas/user/ada";
    let tag = site
        .ask("GET", path, Value::Null)
        .await
        .header("etag")
        .to_owned();
    let put = async |tag: &str, memory_gb: f64| {
        let body = json!({"maxMemoryGB": memory_gb});
        let mut request = site.request("PUT", path, &site.admin, Some(&body));
        request.headers_mut().insert(IF_MATCH, tag.parse().unwrap());
        site.send(request).await
    };
    let first = put(&tag, 2.0).await;
    let new_tag = first.header("etag").to_owned();
    assert_ne!(new_tag, tag);
    first.is(200);
    let stale = put(&tag, 3.0).await.fails(412, "stale");
    assert_eq!(format!("\"{}\"", stale["version"]), new_tag);
    assert_eq!(site.get(path).await["maxMemoryGB"], 2.0);
    put(&new_tag, 3.0).await.is(200);
    put("*", 4.0).await.is(200);
    put("\"not-a-version\"", 5.0)
        .await
        .fails(422, "invalid_field");
}

#[tokio::test]
async fn a_team_has_a_limit_of_its_own_or_a_pool() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member("ml", "ada", json!({"allotment": {"maxMemoryGB": 4}}))
        .await;
    let path = "/api/quotas/team/ml";
    let pool = json!({"sharedPool": {"maxMemoryGB": 2}});
    let team = site.ask("PUT", path, pool).await.is(200);
    assert_eq!(
        (&team["teamMode"], &team["maxMemoryGB"]),
        (&json!("aggregate"), &json!(6.0))
    );
    let team = site
        .ask("PUT", path, json!({"maxMemoryGB": 3}))
        .await
        .is(200);
    assert_eq!(
        (&team["teamMode"], &team["maxMemoryGB"]),
        (&json!("fixed"), &json!(3.0))
    );
    assert_eq!(team["sharedPool"]["maxMemoryGB"], 0.0);
    let warning = team["warnings"][0].as_str().unwrap();
    assert!(warning.contains("promise 4 GiB of memory"), "{warning}");
    // Other fields do not change how the limit comes about.
    let team = site
        .ask(
            "PUT",
            path,
            json!({"maxRuntimeHours": 12, "mode": "shadow"}),
        )
        .await
        .is(200);
    assert_eq!(
        (&team["teamMode"], &team["mode"]),
        (&json!("fixed"), &json!("shadow"))
    );
}

#[tokio::test]
async fn lowering_a_limit_below_what_is_charged_opens_a_violation() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    let eve = site.user("eve", "member").await;
    let held = site.reserve("ada", 4.0).await.is(201);
    let lower = json!({"maxMemoryGB": 1});
    site.ask("PUT", "/api/quotas/user/ada", lower).await.is(200);
    let seen = site
        .by(&ada, "GET", "/api/quotas/violations", None)
        .await
        .is(200);
    let violation = &seen["items"][0];
    assert_eq!(
        (
            &violation["entity"],
            &violation["dimension"],
            &violation["current"],
            &violation["limit"]
        ),
        (&json!("ada"), &json!("memory"), &json!(4.0), &json!(1.0))
    );
    let hers = site
        .by(&eve, "GET", "/api/quotas/violations", None)
        .await
        .is(200);
    assert_eq!(hers["items"], json!([]), "not hers to see");
    let path = format!("/api/reservations/{}/void", held["id"].as_str().unwrap());
    site.ask("POST", &path, Value::Null).await.is(200);
    assert_eq!(site.get("/api/quotas/violations").await["items"], json!([]));
    let past = site
        .get("/api/quotas/violations?since=2001-01-01T00:00:00Z")
        .await;
    assert_eq!(past["items"][0]["open"], false);
}

#[tokio::test]
async fn the_system_starts_at_the_hosts_size() {
    let site = Site::new().await;
    let quota = site.get("/api/quotas/system").await;
    assert_eq!(quota["maxCpuCores"], Value::Null);
    assert_eq!(
        (&quota["maxCpuPercent"], &quota["maxMemoryPercent"]),
        (&json!(100.0), &json!(90.0))
    );
    assert!(quota["effective"]["maxCpuCores"].is_number());
    let usage = site.get("/api/usage/system").await;
    assert_eq!(
        usage["capacity"]["cpuCores"],
        quota["effective"]["maxCpuCores"]
    );
}
