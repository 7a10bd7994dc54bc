//! Every route as every kind of caller.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::schema;
use crate::site::{Site, claim};

/// Nobody, a stranger to the team, a member, its lead, a viewer, an administrator; least first, so
/// that a change that succeeds hides no refusal.
const CALLERS: [&str; 6] = ["nobody", "stranger", "member", "lead", "viewer", "admin"];

/// Whoever may not see the thing is told 404, who may not do it 403.
const SEEN_BY_TEAM: [u16; 6] = [401, 404, 200, 200, 200, 200];
const DONE_BY_ADMIN: [u16; 6] = [401, 404, 403, 403, 403, 200];
const SYSTEM: [u16; 6] = [401, 403, 403, 403, 200, 200];
const ANYONE_KNOWN: [u16; 6] = [401, 200, 200, 200, 200, 200];
const ANYONE: [u16; 6] = [200; 6];

#[rustfmt::skip]
fn table() -> Vec<(&'static str, &'static str, Value, [u16; 6])> {
    let none = Value::Null;
    let commit = json!({"containerId": "c".repeat(64)});
    let moves = json!({"moves": [{"from": "pool", "to": "bob", "gpus": 1}], "dryRun": true, "reason": "a test"});
    let ask = json!({"entityType": "user", "entityId": "bob", "resourceRequest": {"cpuCores": 1}});
    vec![
        ("GET", "/api/quotas/user/bob", none.clone(), SEEN_BY_TEAM),
        ("PUT", "/api/quotas/user/bob", json!({"maxMemoryGB": 9}), DONE_BY_ADMIN),
        ("GET", "/api/quotas/team/ml", none.clone(), SEEN_BY_TEAM),
        ("PUT", "/api/quotas/team/ml", json!({"sharedPool": {"maxMemoryGB": 9}}), DONE_BY_ADMIN),
        ("GET", "/api/quotas/system", none.clone(), SYSTEM),
        ("PUT", "/api/quotas/system", json!({"maxMemoryPercent": 80}), [401, 403, 403, 403, 403, 200]),
        ("GET", "/api/quotas/shadow", none.clone(), SYSTEM),
        ("POST", "/api/quotas/enforce", json!({"entityType": "user", "entityId": "bob", "dryRun": true}), [401, 403, 403, 403, 403, 200]),
        ("POST", "/api/quotas/validate", ask, SEEN_BY_TEAM),
        ("GET", "/api/quotas/violations", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/usage/user/bob", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/team/ml", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/system", none.clone(), SYSTEM),
        ("GET", "/api/usage/user/bob/history?metric=cpu", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/team/ml/history?metric=cpu", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/container/{container}/history?metric=cpu", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/system/history?metric=cpu", none.clone(), SYSTEM),
        ("GET", "/api/usage/project/{project}/history?metric=cpu", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/usage/host/bench/history?metric=cpu", none.clone(), SYSTEM),
        ("GET", "/api/usage/analytics?groupBy=user&metric=cpu", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/usage/export", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/events", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/me", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/users", none.clone(), SYSTEM),
        ("POST", "/api/users", json!({"name": "zoe"}), [401, 403, 403, 403, 403, 201]),
        ("GET", "/api/users/bob", none.clone(), SEEN_BY_TEAM),
        ("PATCH", "/api/users/bob", json!({"email": "bob@example.org"}), [401, 404, 200, 403, 403, 200]),
        ("PATCH", "/api/users/bob", json!({"suspended": false}), DONE_BY_ADMIN),
        ("GET", "/api/users/bob/certs", none.clone(), [401, 404, 200, 403, 200, 200]),
        ("POST", "/api/users/bob/certs", json!({"csr": request()}), [401, 404, 403, 403, 403, 201]),
        ("DELETE", "/api/certs/{cert}", none.clone(), [401, 404, 204, 404, 403, 204]),
        ("DELETE", "/api/users/fay", none.clone(), [401, 404, 404, 404, 403, 204]),
        ("GET", "/api/teams", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/teams", json!({"name": "ops"}), [401, 403, 403, 403, 403, 201]),
        ("GET", "/api/teams/ml", none.clone(), SEEN_BY_TEAM),
        ("DELETE", "/api/teams/empty", none.clone(), [401, 404, 404, 404, 403, 204]),
        ("GET", "/api/teams/ml/members", none.clone(), SEEN_BY_TEAM),
        ("PUT", "/api/teams/ml/members/cleo", json!({}), [401, 404, 403, 200, 403, 200]),
        ("DELETE", "/api/teams/ml/members/{spare}", none.clone(), [401, 404, 403, 204, 403, 204]),
        ("POST", "/api/teams/ml/redistribute", moves, [401, 404, 403, 200, 403, 200]),
        ("GET", "/api/teams/ml/redistributions", none.clone(), SEEN_BY_TEAM),
        ("POST", "/api/teams/ml/redistributions/{moved}/undo", none.clone(), [401, 404, 403, 200, 403, 409]),
        ("GET", "/api/grants", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/grants", json!({"team": "ml", "user": "bob", "add": {"maxGpus": 1}}), [401, 404, 403, 201, 403, 201]),
        ("DELETE", "/api/grants/{grant}", none.clone(), [401, 404, 403, 200, 403, 409]),
        ("GET", "/api/requests", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/requests", json!({"user": "bob", "add": {"maxGpus": 1}, "reason": "a test"}), [401, 404, 201, 403, 403, 201]),
        ("GET", "/api/requests/{request}", none.clone(), SEEN_BY_TEAM),
        ("POST", "/api/requests/{request}/approve", json!({}), [401, 404, 403, 200, 403, 409]),
        ("POST", "/api/requests/{request}/deny", json!({}), [401, 404, 403, 409, 403, 409]),
        ("DELETE", "/api/requests/{request}", none.clone(), [401, 404, 409, 403, 403, 409]),
        ("GET", "/api/notifications", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/notifications/read", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/notifications/{told}/read", none.clone(), [401, 404, 200, 404, 404, 404]),
        ("POST", "/api/notifications/test", json!({"user": "bob"}), [401, 404, 202, 403, 403, 202]),
        ("GET", "/api/notifications/deliveries", none.clone(), SYSTEM),
        ("GET", "/api/alerts", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/alerts/rules", none.clone(), ANYONE_KNOWN),
        ("PUT", "/api/alerts/rules/busy", json!({"metric": "cpu", "steps": [{"at": 4}]}), [401, 403, 403, 403, 403, 201]),
        ("DELETE", "/api/alerts/rules/busy", none.clone(), [401, 403, 403, 403, 403, 204]),
        ("GET", "/api/alerts/silences", none.clone(), SYSTEM),
        ("POST", "/api/alerts/silences", json!({"until": "2100-01-01T00:00:00Z"}), [401, 403, 403, 403, 403, 201]),
        ("DELETE", "/api/alerts/silences/00000000-0000-7000-8000-000000000000", none.clone(), [401, 403, 403, 403, 403, 404]),
        ("GET", "/api/projects", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/projects", json!({"name": "{caller}", "team": "ml"}), [401, 404, 403, 201, 403, 201]),
        ("DELETE", "/api/projects/{project}", none.clone(), [401, 404, 403, 204, 403, 204]),
        ("GET", "/api/classes", none.clone(), ANYONE_KNOWN),
        ("PUT", "/api/classes/student", json!({"ladder": {"announceSeconds": 9}}), [401, 403, 403, 403, 403, 200]),
        ("GET", "/api/images", none.clone(), SYSTEM),
        ("PUT", "/api/images", json!({"reference": "tools:1", "private": true}), [401, 403, 403, 403, 403, 200]),
        ("GET", "/api/tokens", none.clone(), ANYONE_KNOWN),
        ("POST", "/api/tokens", json!({"user": "bob"}), [401, 404, 201, 403, 403, 201]),
        ("DELETE", "/api/tokens/{token}", none.clone(), [401, 404, 204, 404, 403, 204]),
        ("POST", "/api/reservations", claim("bob", 1.0), [401, 404, 201, 403, 403, 201]),
        ("GET", "/api/reservations/{reservation}", none.clone(), SEEN_BY_TEAM),
        ("POST", "/api/reservations/{reservation}/commit", commit, DONE_BY_ADMIN),
        ("POST", "/api/reservations/{reservation}/void", none.clone(), [401, 404, 200, 403, 403, 200]),
        ("DELETE", "/api/reservations/{reservation}", none.clone(), [401, 404, 200, 403, 403, 200]),
        ("GET", "/api/containers", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/decisions", none.clone(), ANYONE_KNOWN),
        ("GET", "/api/decisions/{decision}", none.clone(), SEEN_BY_TEAM),
        ("GET", "/api/audit", none.clone(), SYSTEM),
        ("GET", "/metrics", none.clone(), SYSTEM),
        ("GET", "/healthz", none.clone(), ANYONE),
        ("GET", "/readyz", none.clone(), [503; 6]),
        ("GET", "/api/openapi.json", none.clone(), ANYONE),
        ("GET", "/api/docs", none.clone(), ANYONE),
        ("GET", "/api/docs.css", none, ANYONE),
    ]
}

/// A request for a certificate.
fn request() -> String {
    plimsoll::ca::new_request("bob").unwrap().1
}

struct Cast {
    site: Site,
    tokens: HashMap<&'static str, String>,
    fill: HashMap<&'static str, String>,
}

/// A team `ml` led by ada with bob in it, and what the routes need to be asked about.
async fn cast() -> Cast {
    let site = Site::new().await;
    let mut tokens = HashMap::from([("nobody", String::new()), ("admin", site.admin.clone())]);
    for (caller, name, role) in [
        ("stranger", "eve", "member"),
        ("member", "bob", "member"),
        ("lead", "ada", "member"),
        ("viewer", "vic", "viewer"),
    ] {
        tokens.insert(caller, site.user(name, role).await);
    }
    for name in ["cleo", "dan", "dot", "fay"] {
        site.ask("POST", "/api/users", json!({"name": name}))
            .await
            .is(201);
    }
    for name in ["ml", "empty"] {
        site.ask("POST", "/api/teams", json!({"name": name}))
            .await
            .is(201);
    }
    site.member("ml", "ada", json!({"role": "lead"})).await;
    for name in ["bob", "dan", "dot"] {
        site.member("ml", name, json!({})).await;
    }
    let id = |body: &Value| body["id"].as_str().unwrap().to_owned();
    let project = json!({"name": "vision", "team": "ml"});
    let project = site.ask("POST", "/api/projects", project).await.is(201);
    let token = site
        .ask("POST", "/api/tokens", json!({"user": "bob"}))
        .await
        .is(201);
    let authority = plimsoll::ca::Authority::of(&site.app.config.data_dir);
    authority.init(&[], site.app.clock.now_ms()).unwrap();
    let new = json!({"csr": request()});
    let cert = site.ask("POST", "/api/users/bob/certs", new).await.is(201);
    let reservation = site.reserve("bob", 1.0).await.is(201);
    assert_eq!(reservation["team"], "ml", "his first team is his default");
    let pool = json!({"sharedPool": {"maxGpus": 9}});
    site.ask("PUT", "/api/quotas/team/ml", pool).await.is(200);
    let moves = json!({"moves": [{"from": "pool", "to": "bob", "gpus": 1}], "reason": "a test"});
    let path = "/api/teams/ml/redistribute";
    let moved = site.ask("POST", path, moves).await.is(201);
    let grant = json!({"team": "ml", "user": "bob", "add": {"maxGpus": 1}});
    let grant = site.ask("POST", "/api/grants", grant).await.is(201);
    let request = json!({"user": "bob", "add": {"maxGpus": 1}, "reason": "a test"});
    let request = site.ask("POST", "/api/requests", request).await.is(201);
    let running = site.reserve("bob", 0.01).await.is(201);
    let container = "d".repeat(64);
    let path = format!("/api/reservations/{}/commit", id(&running));
    let commit = json!({"containerId": container});
    site.ask("POST", &path, commit).await.is(200);
    let told = site
        .by(&tokens["member"], "GET", "/api/notifications", None)
        .await;
    let told = id(&told.is(200)["items"][0]);
    let fill = HashMap::from([
        ("told", told),
        ("moved", id(&moved)),
        ("grant", id(&grant)),
        ("request", id(&request)),
        ("container", container),
        ("project", id(&project)),
        ("token", id(&token)),
        ("cert", cert["serial"].as_str().unwrap().to_owned()),
        ("reservation", id(&reservation)),
        (
            "decision",
            reservation["decision"].as_str().unwrap().to_owned(),
        ),
    ]);
    Cast { site, tokens, fill }
}

#[tokio::test]
async fn every_route_answers_every_caller_as_the_table_says() {
    let mut covered = BTreeSet::new();
    let mut cast = cast().await;
    for (method, path, body, expected) in table() {
        for (caller, status) in CALLERS.into_iter().zip(expected) {
            let spare = if caller == "lead" { "dan" } else { "dot" };
            let mut path = path.replace("{spare}", spare);
            for (name, value) in &cast.fill {
                path = path.replace(&format!("{{{name}}}"), value);
            }
            let body = body.to_string().replace("{caller}", caller);
            let body: Value = serde_json::from_str(&body).unwrap();
            let body = (!body.is_null()).then_some(body);
            let token = &cast.tokens[caller];
            let answer = cast.site.by(token, method, &path, body).await;
            assert_eq!(
                answer.status, status,
                "{method} {path} as {caller}: {:#}",
                answer.body
            );
            covered.insert(
                schema::operation(method, path.split('?').next().unwrap()).unwrap()["operationId"]
                    .to_string(),
            );
            // A second one may be deleted by the next who may.
            if (method, status) == ("DELETE", 204) && path.starts_with("/api/projects") {
                let project = json!({"name": "vision", "team": "ml"});
                let made = cast
                    .site
                    .ask("POST", "/api/projects", project)
                    .await
                    .is(201);
                let id = made["id"].as_str().unwrap().to_owned();
                cast.fill.insert("project", id);
            }
            // So that each of these meets a reservation that waits for its container.
            if status == 200 && path.contains("/api/reservations/") && method != "GET" {
                let made = cast.site.reserve("bob", 0.01).await.is(201);
                let id = made["id"].as_str().unwrap().to_owned();
                cast.fill.insert("reservation", id);
            }
        }
    }
    let paths = schema::DOCUMENT["paths"].as_object().unwrap();
    let all: BTreeSet<String> = paths
        .values()
        .flat_map(|operations| operations.as_object().unwrap().values())
        .map(|operation| operation["operationId"].to_string())
        .collect();
    assert_eq!(all, covered, "every route is in the table");
}

#[tokio::test]
async fn what_one_may_not_see_is_as_absent_as_what_is_not_there() {
    let cast = cast().await;
    let stranger = &cast.tokens["stranger"];
    let bob = cast.site.get("/api/users/bob").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (there, absent) in [
        ("/api/users/bob".to_owned(), "/api/users/bxb".to_owned()),
        (
            format!("/api/users/{bob}"),
            format!("/api/users/{}", uuid::Uuid::now_v7()),
        ),
        ("/api/teams/ml".to_owned(), "/api/teams/mx".to_owned()),
    ] {
        let said = async |path: &str| {
            let problem = cast
                .site
                .by(stranger, "GET", path, None)
                .await
                .fails(404, "not_found");
            let name = path.rsplit('/').next().unwrap();
            problem.to_string().replace(name, "NAME")
        };
        assert_eq!(said(&there).await, said(&absent).await, "{there}");
    }
}

#[tokio::test]
async fn a_lead_stays_within_what_the_team_was_given() {
    let cast = cast().await;
    let (site, lead) = (&cast.site, &cast.tokens["lead"]);
    let put = async |user: &str, body: Value| {
        let path = format!("/api/teams/ml/members/{user}");
        site.by(lead, "PUT", &path, Some(body)).await
    };
    let before = site.get("/api/quotas/team/ml").await;
    put("cleo", json!({})).await.is(200);
    let cleo = put("cleo", json!({})).await.is(200);
    assert_eq!(
        cleo["allotment"]["maxMemoryGB"], 0.0,
        "a lead's addition starts from the pool"
    );
    put("cleo", json!({"allotment": {"maxMemoryGB": 1}}))
        .await
        .fails(422, "invalid");

    let pool = json!({"sharedPool": {"maxMemoryGB": 3}});
    site.ask("PUT", "/api/quotas/team/ml", pool).await.is(200);
    let total = site.get("/api/quotas/team/ml").await["maxMemoryGB"].clone();
    assert_ne!(before["maxMemoryGB"], total);
    put("cleo", json!({"allotment": {"maxMemoryGB": 1}}))
        .await
        .is(200);
    let after = site.get("/api/quotas/team/ml").await;
    assert_eq!(
        after["maxMemoryGB"], total,
        "moving within the team changes no sum"
    );
    assert_eq!(after["sharedPool"]["maxMemoryGB"], 2.0);

    put("cleo", json!({"role": "lead"}))
        .await
        .fails(403, "forbidden");
    put("cleo", json!({"default": false}))
        .await
        .fails(403, "forbidden");
    put("nobody", json!({})).await.fails(404, "not_found");
    site.member("ml", "cleo", json!({"role": "lead"})).await;
    put("cleo", json!({"role": "member"}))
        .await
        .fails(403, "forbidden");
    site.by(lead, "DELETE", "/api/teams/ml/members/cleo", None)
        .await
        .fails(403, "forbidden");

    // Which team is one's default one decides oneself.
    let own = "/api/teams/ml/members/bob";
    let member = &cast.tokens["member"];
    site.by(member, "PUT", own, Some(json!({"default": false})))
        .await
        .is(200);
    assert_eq!(site.get("/api/users/bob").await["defaultTeam"], Value::Null);
    let more = json!({"default": true, "allotment": {"maxMemoryGB": 9}});
    site.by(member, "PUT", own, Some(more))
        .await
        .fails(403, "forbidden");
}

#[tokio::test]
async fn a_lead_sees_of_a_member_what_is_in_the_team() {
    let cast = cast().await;
    let (site, lead) = (&cast.site, &cast.tokens["lead"]);
    let mut outside = claim("bob", 0.5);
    outside["team"] = json!("-");
    let private = site.ask("POST", "/api/reservations", outside).await.is(201);
    let path = format!("/api/reservations/{}", private["id"].as_str().unwrap());
    site.by(lead, "GET", &path, None)
        .await
        .fails(404, "not_found");
    for list in [
        "/api/containers?user=bob",
        "/api/containers?team=ml",
        "/api/decisions?user=bob",
    ] {
        let seen = site.by(lead, "GET", list, None).await.is(200);
        let items = seen["items"].as_array().unwrap();
        assert!(
            !items.is_empty() && items.iter().all(|i| i["team"] == "ml"),
            "{list}: {seen:#}"
        );
    }
    // A plain member sees their own.
    site.reserve("dan", 0.1).await.is(201);
    let seen = site
        .by(
            &cast.tokens["member"],
            "GET",
            "/api/containers?team=ml",
            None,
        )
        .await
        .is(200);
    let items = seen["items"].as_array().unwrap();
    assert!(
        !items.is_empty() && items.iter().all(|i| i["user"] == "bob"),
        "{seen:#}"
    );
}
