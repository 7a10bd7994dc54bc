//! `POST /api/quotas/validate`

use serde_json::{Value, json};

use crate::site::{Site, claim};

async fn validate(site: &Site, kind: &str, who: &str, more: Value) -> Value {
    let mut body = json!({"entityType": kind, "entityId": who});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    site.ask("POST", "/api/quotas/validate", body).await.is(200)
}

#[tokio::test]
async fn it_decides_as_a_reservation_would_and_charges_nothing() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let limits = json!({"maxMemoryGB": 4, "maxCpuCores": 1});
    site.ask("PUT", "/api/quotas/user/ada", limits)
        .await
        .is(200);
    site.reserve("ada", 3.0).await.is(201);

    let ask = json!({"resourceRequest": {"cpuCores": 0.5, "memoryGB": 1, "storageGB": 1}});
    let fits = validate(&site, "user", "ada", ask).await;
    assert_eq!(
        (&fits["allowed"], &fits["violations"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(fits["projectedUsage"]["memoryGB"], 4.0);
    assert_eq!(fits["projectedUsage"]["containers"], 2);
    assert_eq!(fits["currentUsage"]["reservedMemoryGB"], 3.0);
    assert_eq!(fits["currentUsage"]["currentMemoryGB"], 0.0, "nothing runs");
    assert_eq!(fits["quota"]["maxMemoryGB"], 4.0);

    let ask = json!({"resourceRequest": {"cpuCores": 2, "memoryGB": 2, "containers": 20}});
    let refused = validate(&site, "user", "ada", ask.clone()).await;
    assert_eq!(refused["allowed"], false);
    let seen: Vec<(&str, &Value, &Value)> = refused["violations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|v| v["level"] == "user")
        .map(|v| {
            (
                v["dimension"].as_str().unwrap(),
                &v["shortBy"],
                &v["neverFits"],
            )
        })
        .collect();
    let expected = [
        ("cpu", &json!(1.1), &json!(true)),
        ("memory", &json!(1.0), &json!(false)),
        ("containers", &json!(11), &json!(true)),
        ("concurrent_containers", &json!(16), &json!(true)),
    ];
    assert_eq!(seen, expected, "every dimension at once");
    assert!(!refused["remedies"].as_array().unwrap().is_empty());

    let mut create = claim("ada", 2.0);
    create["resourceRequest"] = ask["resourceRequest"].clone();
    let problem = site
        .ask("POST", "/api/reservations", create)
        .await
        .fails(403, "quota_exceeded");
    assert_eq!(
        problem["violations"], refused["violations"],
        "the same decision"
    );
    assert_eq!(
        site.get("/api/usage/user/ada").await["reservedMemoryGB"],
        3.0
    );
}

#[tokio::test]
async fn a_team_is_asked_as_a_whole_and_a_member_with_their_allotment() {
    let site = Site::new().await;
    for name in ["ada", "bob"] {
        site.user(name, "member").await;
    }
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    for name in ["ada", "bob"] {
        site.member("ml", name, json!({"allotment": {
            "maxMemoryGB": 2, "maxCpuCores": 2, "maxContainers": 5, "maxConcurrentContainers": 5,
        }})).await;
    }
    let ask =
        |gb: u32| json!({"resourceRequest": {"cpuCores": 0.1, "memoryGB": gb, "storageGB": 0}});
    let team = validate(&site, "team", "ml", ask(4)).await;
    assert_eq!(
        (&team["allowed"], &team["quota"]["maxMemoryGB"]),
        (&json!(true), &json!(4.0))
    );
    let member = validate(&site, "user", "ada", ask(4)).await;
    assert_eq!(member["allowed"], false);
    let violation = &member["violations"][0];
    assert_eq!(
        (&violation["level"], &violation["entity"]),
        (&json!("pool"), &json!("ml"))
    );
    assert_eq!(
        validate(&site, "user", "ada", ask(2)).await["allowed"],
        true
    );
    assert_eq!(
        validate(&site, "team", "ml", ask(5)).await["violations"][0]["level"],
        "team"
    );

    let mut alone = ask(4);
    alone["team"] = json!("-");
    let alone = validate(&site, "user", "ada", alone).await;
    assert_eq!(
        (&alone["allowed"], &alone["quota"]["maxMemoryGB"]),
        (&json!(true), &json!(8.0))
    );
}

#[tokio::test]
async fn services_fit_together_or_not_at_all() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 2, "maxStorageGB": 5});
    let limited = site.ask("PUT", "/api/quotas/user/ada", limits).await;
    limited.is(200);
    let of = |services: Value| json!({"services": services, "volumes": ["p_data"]});
    let half = json!({"memoryGB": 0.5, "cpuCores": 0.5});
    let two = validate(&site, "user", "ada", of(json!({"web": half, "db": half}))).await;
    assert_eq!(two["allowed"], true, "{two}");
    assert_eq!(two["projectedUsage"]["memoryGB"], 1.0);
    // Two writable layers and a volume.
    assert_eq!(two["projectedUsage"]["storageGB"], 3.0);
    let names: Vec<_> = two["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["db", "web"]);

    // Each fits by itself, and all of them do not.
    let three = of(json!({"web": {"memoryGB": 0.5, "cpuCores": 0.5, "replicas": 2}, "db": half}));
    let three = validate(&site, "user", "ada", three).await;
    assert_eq!(three["allowed"], false);
    assert!(
        three["services"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["allowed"] == true),
        "{three}"
    );
    assert_eq!(three["violations"][0]["dimension"], "memory");
    assert!(!three["remedies"].as_array().unwrap().is_empty());
    // One is too large, and says so.
    let big = validate(
        &site,
        "user",
        "ada",
        of(json!({"web": half, "db": {"memoryGB": 2}})),
    )
    .await;
    let verdicts: Vec<_> = big["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["allowed"])
        .collect();
    assert_eq!(
        (&big["allowed"], verdicts),
        (&json!(false), vec![&json!(false), &json!(true)])
    );
    // What is not named is filled in; nothing is charged.
    let plain = validate(&site, "user", "ada", of(json!({"web": {}}))).await;
    let asks = &plain["services"][0]["request"];
    assert!(
        asks["memoryGB"].as_f64() > Some(0.0) && asks["pids"].as_f64() > Some(0.0),
        "{asks}"
    );
    assert_eq!(plain["currentUsage"]["reservedMemoryGB"], 0.0);

    for (body, field) in [
        (json!({"services": {}}), "services"),
        (json!({"volumes": ["x"], "resourceRequest": {}}), "volumes"),
        (
            json!({"services": {"a": {}}, "resourceRequest": {}}),
            "resourceRequest",
        ),
        (json!({}), "resourceRequest"),
        (
            json!({"services": {"a": {"memoryGB": -1}}}),
            "services.a.memoryGB",
        ),
        (
            json!({"services": {"a": {"memoryGB": 0.001}}}),
            "services.a",
        ),
        (
            json!({"services": {"a": {"cpuCores": 0.0001}}}),
            "services.a",
        ),
        (
            json!({"services": {"a": {"replicas": 100_000}}}),
            "services.a.replicas",
        ),
        (
            json!({"services": {"a": {"tmpfsGB": [1e300]}}}),
            "services.a.tmpfsGB",
        ),
        (json!({"services": {"a": {"evil": 1}}}), "services.a.evil"),
    ] {
        let mut body = body;
        body["entityType"] = json!("user");
        body["entityId"] = json!("ada");
        let refused = site.ask("POST", "/api/quotas/validate", body).await.is(422);
        assert!(
            refused["detail"].as_str().unwrap().starts_with(field),
            "{field}: {refused}"
        );
    }
    let team = site.ask("POST", "/api/teams", json!({"name": "ml"})).await;
    team.is(201);
    let body = json!({"entityType": "team", "entityId": "ml", "services": {"a": {}}});
    site.ask("POST", "/api/quotas/validate", body).await.is(422);
}
