//! `/api/users`, `/api/teams`, `/api/projects`, `/api/audit`

use serde_json::{Value, json};

use crate::site::{Site, claim};

#[tokio::test]
async fn a_user_comes_with_the_quota_of_their_class_and_goes_with_it() {
    let site = Site::new().await;
    let new = json!({"name": "ada", "email": "ada@example.org", "osUid": 1001, "class": "student"});
    let ada = site.ask("POST", "/api/users", new).await.is(201);
    assert_eq!(ada["role"], "member");
    let quota = site.get("/api/quotas/user/ada").await;
    assert_eq!(
        (&quota["quotaType"], &quota["maxCpuCores"]),
        (&json!("student"), &json!(2.0))
    );

    let change = json!({"suspended": true, "email": null, "reason": "away"});
    let changed = site.ask("PATCH", "/api/users/ada", change).await.is(200);
    assert_eq!(
        (&changed["suspended"], &changed["email"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(changed["osUid"], 1001, "what is not given stays");
    let refused = site.reserve("ada", 1.0).await.fails(403, "forbidden");
    assert!(refused["detail"].as_str().unwrap().contains("suspended"));

    site.ask("DELETE", "/api/users/ada", Value::Null)
        .await
        .is(204);
    site.ask("GET", "/api/users/ada", Value::Null)
        .await
        .fails(404, "not_found");
    site.ask("GET", "/api/quotas/user/ada", Value::Null)
        .await
        .fails(404, "not_found");

    let audit = site.get("/api/audit").await;
    let lines: Vec<(&str, &str)> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["entity"] == "ada")
        .map(|line| {
            (
                line["action"].as_str().unwrap(),
                line["actor"].as_str().unwrap(),
            )
        })
        .collect();
    let by = "token:first administrator";
    assert_eq!(
        lines,
        [("user.delete", by), ("user.change", by), ("user.add", by)]
    );
    let first = site.get("/api/audit?limit=1").await;
    let rest = site
        .get(&format!("/api/audit?cursor={}", first["nextCursor"]))
        .await;
    assert_eq!(rest["items"][0]["action"], "user.change");
    assert_eq!(rest["items"][0]["reason"], "away");
}

#[tokio::test]
async fn who_holds_something_is_drained_before_they_go() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let held = site.reserve("ada", 1.0).await.is(201);
    site.ask("DELETE", "/api/users/ada", Value::Null)
        .await
        .fails(409, "conflict");
    site.ask("DELETE", "/api/users/ada?drain=true", Value::Null)
        .await
        .is(202);
    assert_eq!(site.get("/api/users/ada").await["draining"], true);
    site.reserve("ada", 0.1).await.fails(403, "forbidden");
    let path = format!("/api/reservations/{}/void", held["id"].as_str().unwrap());
    site.ask("POST", &path, Value::Null).await.is(200);
    site.ask("DELETE", "/api/users/ada", Value::Null)
        .await
        .is(204);
}

#[tokio::test]
async fn a_member_has_an_allotment_and_the_team_the_sum() {
    let site = Site::new().await;
    for name in ["ada", "bob"] {
        site.user(name, "member").await;
    }
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member(
        "ml",
        "ada",
        json!({"role": "lead", "allotment": {"maxMemoryGB": 4, "maxCpuCores": 1,
        "maxStorageGB": 9, "maxContainers": 9, "maxConcurrentContainers": 9}}),
    )
    .await;
    site.member("ml", "bob", json!({})).await;
    let quota = site.get("/api/quotas/team/ml").await;
    let ada = &quota["members"][0];
    assert_eq!(
        (
            &ada["allotment"]["maxCpuCores"],
            &ada["allotment"]["maxPids"]
        ),
        (&json!(1.0), &quota["members"][1]["allotment"]["maxPids"]),
        "what is not named is a copy of her own quota, too"
    );
    assert_eq!(
        (&ada["user"], &ada["allotment"]["maxMemoryGB"]),
        (&json!("ada"), &json!(4.0))
    );
    assert_eq!(
        quota["members"][1]["allotment"]["maxMemoryGB"], 8.0,
        "a copy of his own quota"
    );
    assert_eq!(quota["promised"]["maxMemoryGB"], 12.0);
    assert_eq!(
        (&quota["teamMode"], &quota["maxMemoryGB"]),
        (&json!("aggregate"), &json!(12.0))
    );

    site.reserve("ada", 1.0).await.is(201);
    let members = "/api/teams/ml/members/ada";
    site.ask("DELETE", members, Value::Null)
        .await
        .fails(409, "conflict");
    site.ask("DELETE", &format!("{members}?drain=true"), Value::Null)
        .await
        .is(204);
    site.ask("DELETE", members, Value::Null)
        .await
        .fails(404, "not_found");
    let usage = site.get("/api/usage/team/ml").await;
    assert_eq!(
        usage["reservedMemoryGB"], 1.0,
        "what she holds there stays charged"
    );
    assert_eq!(usage["borrowed"]["memoryGB"], 1.0);
}

#[tokio::test]
async fn a_project_has_one_owner() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    let made = site
        .by(&ada, "POST", "/api/projects", Some(json!({"name": "mine"})))
        .await
        .is(201);
    assert!(made["team"].is_null() && made["user"].is_string());
    let again = json!({"name": "mine", "user": "ada"});
    site.ask("POST", "/api/projects", again)
        .await
        .fails(409, "conflict");
    let both = json!({"name": "ours", "user": "ada", "team": "ml"});
    site.ask("POST", "/api/projects", both)
        .await
        .fails(422, "invalid_field");
    site.ask("POST", "/api/projects", json!({"name": "ours"}))
        .await
        .fails(422, "invalid_field");
    site.ask(
        "POST",
        "/api/projects",
        json!({"name": "ours", "team": "ml"}),
    )
    .await
    .is(201);
    let seen = site.by(&ada, "GET", "/api/projects", None).await.is(200);
    assert_eq!(
        seen["items"].as_array().unwrap().len(),
        1,
        "the team's is not hers"
    );

    let mut asked = claim("ada", 0.5);
    asked["project"] = json!("mine");
    site.ask("POST", "/api/reservations", asked).await.is(201);
    site.reserve("ada", 0.1).await.is(201);
    let listed = site.get("/api/containers?project=mine").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}
