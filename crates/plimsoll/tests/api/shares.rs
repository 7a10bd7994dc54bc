//! Grants, requests and redistribution over the API.

use serde_json::{Value, json};

use crate::site::Site;

/// A team with a pool of 4 GiB, led by ada, bob in it with one GiB.
async fn site() -> (Site, String, String) {
    let site = Site::new().await;
    let (ada, bob) = (
        site.user("ada", "member").await,
        site.user("bob", "member").await,
    );
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member("ml", "ada", json!({"role": "lead"})).await;
    let one = json!({"allotment": {"maxMemoryGB": 1}});
    site.member("ml", "bob", one).await;
    let pool = json!({"sharedPool": {"maxMemoryGB": 4}});
    site.ask("PUT", "/api/quotas/team/ml", pool).await.is(200);
    (site, ada, bob)
}

#[tokio::test]
async fn a_user_asks_and_a_lead_gives() {
    let (site, ada, bob) = site().await;
    let wish = json!({"add": {"maxMemoryGB": 2.5}, "until": "2999-01-01T00:00:00Z", "reason": "a deadline"});
    let asked = site
        .ask_as(&bob, "POST", "/api/requests", wish)
        .await
        .is(201);
    assert_eq!(
        (&asked["user"], &asked["team"], &asked["state"]),
        (&json!("bob"), &json!("ml"), &json!("open"))
    );
    let id = asked["id"].as_str().unwrap();
    let listed = site.ask_as(&ada, "GET", "/api/requests", Value::Null).await;
    assert_eq!(listed.is(200)["items"][0]["id"], id);
    let path = format!("/api/requests/{id}/approve");
    let told = json!({"reason": "good luck"});
    let answer = site.ask_as(&ada, "POST", &path, told).await.is(200);
    assert_eq!(answer["state"], "approved");
    assert_eq!(answer["answeredBy"], "user:ada");
    assert_eq!(answer["grant"]["until"], "2999-01-01T00:00:00Z");

    // It counts at once: three and a half GiB are bob's own, and the pool has the rest.
    let usage = site
        .ask_as(&bob, "GET", "/api/usage/user/bob", Value::Null)
        .await;
    let place = &usage.is(200)["teams"][0];
    assert_eq!(place["allotment"]["maxMemoryGB"], 1.0);
    assert_eq!(place["granted"], json!({"maxMemoryGB": 2.5}));
    assert_eq!(place["effectiveAllotment"]["maxMemoryGB"], 3.5);
    let quota = site
        .ask("GET", "/api/quotas/team/ml", Value::Null)
        .await
        .is(200);
    assert_eq!(quota["sharedPool"]["maxMemoryGB"], 1.5);
    let grants = site
        .ask_as(&bob, "GET", "/api/grants", Value::Null)
        .await
        .is(200);
    let grant = grants["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/grants/{grant}");
    site.ask_as(&ada, "DELETE", &path, Value::Null)
        .await
        .is(200);
    let quota = site
        .ask("GET", "/api/quotas/team/ml", Value::Null)
        .await
        .is(200);
    assert_eq!(quota["sharedPool"]["maxMemoryGB"], 4.0);
    // Who did what is in the log.
    let audit = site.ask("GET", "/api/audit", Value::Null).await.is(200);
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .take(4)
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "grant.revoke",
            "request.approved",
            "grant.give",
            "request.ask"
        ]
    );
}

#[tokio::test]
async fn a_lead_moves_within_what_the_team_has() {
    let (site, ada, _) = site().await;
    let path = "/api/teams/ml/redistribute";
    let moves = |from: &str, to: &str, gb: f64| json!({"moves": [{"from": from, "to": to, "memoryGB": gb}], "reason": "a paper"});
    let shares = |body: &Value| {
        (
            body["allotments"]["bob"]["maxMemoryGB"].as_f64().unwrap(),
            body["pool"]["maxMemoryGB"].as_f64().unwrap(),
        )
    };
    let made = site
        .ask_as(&ada, "POST", path, moves("pool", "bob", 3.5))
        .await
        .is(201);
    assert_eq!(shares(&made), (4.5, 0.5));
    let refused = site
        .ask_as(&ada, "POST", path, moves("pool", "bob", 1.0))
        .await;
    let problem = refused.is(422);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("shared pool of team ml"),
        "{problem}"
    );
    // Borrowing is told beforehand.
    site.reserve("bob", 4.0).await.is(201);
    let mut preview = moves("bob", "pool", 1.0);
    preview["dryRun"] = json!(true);
    let preview = site.ask_as(&ada, "POST", path, preview).await.is(200);
    assert_eq!(
        preview["over"],
        json!([{"user": "bob", "dimension": "memory", "reserved": 4.0, "allotment": 3.5}])
    );
    let undo = format!(
        "/api/teams/ml/redistributions/{}/undo",
        made["id"].as_str().unwrap()
    );
    let undone = site.ask_as(&ada, "POST", &undo, Value::Null).await.is(200);
    assert_eq!(shares(&undone), (1.0, 4.0));
    assert_eq!(undone["over"][0]["user"], "bob");
    let listed = site
        .ask("GET", "/api/teams/ml/redistributions", Value::Null)
        .await
        .is(200);
    assert_eq!(listed["items"][0]["state"], "undone");
}

#[tokio::test]
async fn what_makes_no_sense_names_its_field() {
    let (site, ada, bob) = site().await;
    let path = "/api/teams/ml/redistribute";
    for (moves, field) in [
        (json!([]), "moves"),
        (
            json!([{"from": "pool", "to": "eve", "memoryGB": 1}]),
            "moves[0].to",
        ),
        (
            json!([{"from": "pool", "to": "bob", "memoryGB": -1}]),
            "moves[0].memoryGB",
        ),
        (
            json!([{"from": "pool", "to": "bob", "cores": 1}]),
            "moves[0].cores",
        ),
    ] {
        let body = json!({"moves": moves, "reason": "a test"});
        let answer = site.ask_as(&ada, "POST", path, body).await.is(422);
        assert_eq!(answer["field"], field, "{answer}");
    }
    for (body, field) in [
        (
            json!({"add": {"maxMemoryGB": null}, "reason": "x"}),
            "add.maxMemoryGB",
        ),
        (json!({"add": {"maxMemoryGB": 1}, "reason": " "}), "reason"),
        (
            json!({"add": {"maxMemoryGB": 1}, "team": "ml", "user": "ada", "reason": "x"}),
            "user",
        ),
    ] {
        let answer = site.ask_as(&bob, "POST", "/api/requests", body).await;
        if field == "user" {
            answer.is(404);
        } else {
            assert_eq!(answer.is(422)["field"], field);
        }
    }
    let nothing = json!({"add": {}, "reason": "x"});
    site.ask_as(&bob, "POST", "/api/requests", nothing)
        .await
        .is(422);
    let nobody = json!({"add": {"maxMemoryGB": 1}});
    let answer = site.ask("POST", "/api/grants", nobody).await.is(422);
    assert_eq!(answer["field"], "user");
    site.ask("DELETE", "/api/grants/none", Value::Null)
        .await
        .is(404);
    site.ask("GET", "/api/requests/none", Value::Null)
        .await
        .is(404);
}
