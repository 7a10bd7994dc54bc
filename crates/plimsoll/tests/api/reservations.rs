//! `/api/reservations`, `/api/containers`, `/api/decisions`

use std::time::Duration;

use serde_json::{Value, json};

use crate::site::{Site, claim};

fn at(reservation: &Value, step: &str) -> String {
    format!(
        "/api/reservations/{}{step}",
        reservation["id"].as_str().unwrap()
    )
}

#[tokio::test]
async fn reserve_commit_release() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let made = site.reserve("ada", 2.0).await.is(201);
    assert_eq!(
        (&made["state"], &made["origin"]),
        (&json!("pending"), &json!("api"))
    );
    assert_eq!(made["claim"]["memoryGB"], 2.0);
    let used = async || site.get("/api/usage/user/ada").await["reservedMemoryGB"].clone();
    assert_eq!(used().await, 2.0);

    let container = json!({"containerId": "c".repeat(64)});
    let short = json!({"containerId": "c".repeat(12)});
    site.ask("POST", &at(&made, "/commit"), short)
        .await
        .fails(422, "invalid_field");
    let bound = site
        .ask("POST", &at(&made, "/commit"), container.clone())
        .await
        .is(200);
    assert_eq!(
        (&bound["state"], &bound["expiresAt"]),
        (&json!("active"), &Value::Null)
    );
    site.ask("POST", &at(&made, "/commit"), container.clone())
        .await
        .is(200);
    let other = json!({"containerId": "d".repeat(64)});
    site.ask("POST", &at(&made, "/commit"), other)
        .await
        .fails(409, "conflict");
    let second = site.reserve("ada", 0.5).await.is(201);
    site.ask("POST", &at(&second, "/commit"), container)
        .await
        .fails(409, "conflict");
    site.ask("POST", &at(&made, "/void"), Value::Null)
        .await
        .fails(409, "conflict");

    let listed = site.get("/api/containers?user=ada&state=active").await;
    assert_eq!(listed["items"][0]["containerId"], "c".repeat(64));
    let released = site
        .ask("DELETE", &at(&made, ""), Value::Null)
        .await
        .is(200);
    assert_eq!(released["state"], "released");
    site.ask("DELETE", &at(&made, ""), Value::Null)
        .await
        .is(200);
    assert_eq!(used().await, 0.5);
    site.ask("POST", &at(&second, "/void"), Value::Null)
        .await
        .is(200);
    site.ask("POST", &at(&second, "/void"), Value::Null)
        .await
        .is(200);
    assert_eq!(used().await, 0.0);
    assert_eq!(site.app.store.check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_same_key_is_charged_once_and_means_one_request() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    let mut body = claim("ada", 2.0);
    body["idempotencyKey"] = json!("k1");
    let first = site
        .ask("POST", "/api/reservations", body.clone())
        .await
        .is(201);
    let again = site
        .ask("POST", "/api/reservations", body.clone())
        .await
        .is(200);
    assert_eq!(first["id"], again["id"]);

    // The same request in other words.
    let mut same = claim("ada", 2.0);
    same["resourceRequest"]["cpuCores"] = json!(0.1000);
    same["resourceRequest"]["gpus"] = json!(0);
    same["idempotencyKey"] = json!("k1");
    site.ask("POST", "/api/reservations", same).await.is(200);

    let mut other = claim("ada", 3.0);
    other["idempotencyKey"] = json!("k1");
    site.ask("POST", "/api/reservations", other)
        .await
        .fails(409, "conflict");
    assert_eq!(
        site.get("/api/usage/user/ada").await["reservedMemoryGB"],
        2.0
    );
    // Another caller's key is another key, also where the name was somebody else's before.
    site.by(&ada, "POST", "/api/reservations", Some(body))
        .await
        .is(201);
}

#[tokio::test]
async fn many_requests_at_once_with_one_key_are_one_reservation() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let mut body = claim("ada", 2.0);
    body["idempotencyKey"] = json!("k1");
    let asked = (0..20).map(|_| site.ask("POST", "/api/reservations", body.clone()));
    let answers = futures_util::future::join_all(asked).await;
    let made = answers.iter().filter(|answer| answer.status == 201);
    assert_eq!(made.count(), 1);
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 201), "{:#}", answer.body);
        assert_eq!(answer.body["id"], answers[0].body["id"]);
    }
    assert_eq!(
        site.get("/api/usage/user/ada").await["reservedMemoryGB"],
        2.0
    );
}

#[tokio::test]
async fn a_hundred_at_once_get_exactly_what_fits() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let limits = json!({"maxMemoryGB": 1, "maxContainers": 100, "maxConcurrentContainers": 100,
                        "maxCpuCores": null, "maxCpuPercent": null, "maxStorageGB": null});
    site.ask("PUT", "/api/quotas/user/ada", limits)
        .await
        .is(200);
    let body = json!({"user": "ada", "resourceRequest": {"memoryGB": 0.125}});
    let asked = (0..100).map(|_| site.ask("POST", "/api/reservations", body.clone()));
    let answers = futures_util::future::join_all(asked).await;
    let admitted = answers.iter().filter(|a| a.status == 201).count();
    let refused = answers.iter().filter(|a| a.status == 403).count();
    assert_eq!((admitted, refused), (8, 92));
    assert_eq!(site.app.store.check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refusal_says_what_how_much_and_what_would_help() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    let refusal = site
        .by(&ada, "POST", "/api/reservations", Some(claim("ada", 9.0)))
        .await;
    let problem = refusal.fails(403, "quota_exceeded");
    let violation = &problem["violations"][0];
    for (field, expected) in [
        ("level", json!("user")),
        ("entity", json!("ada")),
        ("dimension", json!("memory")),
        ("requested", json!(9.0)),
        ("reserved", json!(0.0)),
        ("limit", json!(8.0)),
        ("shortBy", json!(1.0)),
        ("neverFits", json!(true)),
    ] {
        assert_eq!(violation[field], expected, "{field}");
    }
    assert!(!problem["remedies"].as_array().unwrap().is_empty());
    let id = problem["decision"].as_str().unwrap();
    let kept = site
        .by(&ada, "GET", &format!("/api/decisions/{id}"), None)
        .await
        .is(200);
    assert_eq!(
        (&kept["allowed"], &kept["violations"]),
        (&json!(false), &problem["violations"])
    );
}

#[tokio::test]
async fn decisions_are_paged() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    for _ in 0..3 {
        site.reserve("ada", 9.0).await.fails(403, "quota_exceeded");
    }
    site.reserve("ada", 1.0).await.is(201);
    let mut seen = Vec::new();
    let mut path = "/api/decisions?user=ada&outcome=refused&limit=2".to_owned();
    let first = site.get(&path).await;
    seen.extend(first["items"].as_array().unwrap().clone());
    path = format!("{path}&cursor={}", first["nextCursor"].as_str().unwrap());
    let rest = site.get(&path).await;
    seen.extend(rest["items"].as_array().unwrap().clone());
    assert_eq!(rest["nextCursor"], Value::Null);
    let ids: std::collections::BTreeSet<String> =
        seen.iter().map(|d| d["id"].to_string()).collect();
    assert_eq!((seen.len(), ids.len()), (3, 3));
}

#[tokio::test]
async fn a_reservation_waits_as_long_as_it_says() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let mut body = claim("ada", 1.0);
    body["ttlSeconds"] = json!(60);
    let made = site.ask("POST", "/api/reservations", body).await.is(201);
    let time = |field: &str| {
        made[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let waits = time("expiresAt").duration_since(time("createdAt"));
    assert_eq!(waits.as_secs(), 60);
    site.app.clock.advance(Duration::from_secs(5));
    let later = site.reserve("ada", 1.0).await.is(201);
    assert!(later["createdAt"].as_str() > made["createdAt"].as_str());
}

#[tokio::test]
async fn only_administrators_bind_and_what_is_bound_is_not_let_go_by_its_user() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    let made = site
        .by(&ada, "POST", "/api/reservations", Some(claim("ada", 1.0)))
        .await
        .is(201);
    let container = json!({"containerId": "e".repeat(64)});
    let commit = at(&made, "/commit");
    site.by(&ada, "POST", &commit, Some(container.clone()))
        .await
        .fails(403, "forbidden");
    site.ask("POST", &commit, container).await.is(200);
    site.by(&ada, "DELETE", &at(&made, ""), None)
        .await
        .fails(403, "forbidden");
    let own = site
        .by(&ada, "POST", "/api/reservations", Some(claim("ada", 1.0)))
        .await
        .is(201);
    site.by(&ada, "DELETE", &at(&own, ""), None).await.is(200);
}
