//! What clients get wrong: each is an error that names what is wrong, and nothing is half-done.

use axum::body::Body;
use hyper::header::{CONTENT_TYPE, HOST};
use serde_json::{Value, json};

use crate::site::Site;

/// Method, path, body as text; status, code, the field it names, words of the detail.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("POST", "/api/users", r#"{"name": "bo"#, 400, "malformed_json", "", "EOF"),
    ("POST", "/api/users", r#"{"name": "bo"} x"#, 400, "malformed_json", "", "trailing"),
    ("POST", "/api/users", r#"{"name": NaN}"#, 400, "malformed_json", "", "expected"),
    ("POST", "/api/users", r#"{"name": "bo", "name": "bob"}"#, 400, "malformed_json", "", "given twice"),
    ("POST", "/api/users", "", 400, "malformed_json", "", "EOF"),
    ("POST", "/api/users", "[]", 422, "invalid_field", "body", "must be an object, not a list"),
    ("POST", "/api/users", "{}", 422, "invalid_field", "name", "is missing"),
    ("POST", "/api/users", r#"{"name": 7}"#, 422, "invalid_field", "name", "must be a string, not 7"),
    ("POST", "/api/users", r#"{"name": null}"#, 422, "invalid_field", "name", "not null"),
    ("POST", "/api/users", r#"{"name": "Bo"}"#, 422, "invalid_field", "name", "1 to 63 characters"),
    ("POST", "/api/users", r#"{"name": "019a0000-0000-7000-8000-000000000000"}"#, 422, "invalid_field", "name", "UUID"),
    ("POST", "/api/users", r#"{"name": "bo", "osUid": -1}"#, 422, "invalid_field", "osUid", "not negative"),
    ("POST", "/api/users", r#"{"name": "bo", "osUid": 1.5}"#, 422, "invalid_field", "osUid", "whole number"),
    ("POST", "/api/users", r#"{"name": "bo", "osUid": 5000000000}"#, 422, "invalid_field", "osUid", ""),
    ("POST", "/api/users", r#"{"name": "bo", "osuid": 1}"#, 422, "invalid_field", "osuid", "did you mean osUid?"),
    ("POST", "/api/users", r#"{"name": "bo", "role": "root"}"#, 422, "invalid_field", "role", "member, viewer or admin"),
    ("POST", "/api/users", r#"{"name": "bo", "email": "a\nb"}"#, 422, "invalid_field", "email", "mail address"),
    ("POST", "/api/users", r#"{"name": "bo", "email": "bo"}"#, 422, "invalid_field", "email", "mail address"),
    ("POST", "/api/users", r#"{"name": "bo", "class": "golden"}"#, 404, "not_found", "", "no class named golden"),
    ("POST", "/api/users", r#"{"name": "ada"}"#, 409, "conflict", "", "ada exists"),
    ("POST", "/api/users", r#"{"name": "bo", "osUid": 1001}"#, 409, "conflict", "", "uid 1001 is taken"),
    ("POST", "/api/teams", r#"{"name": "ml"}"#, 409, "conflict", "", "ml is taken"),
    ("PATCH", "/api/users/ada", r#"{"suspended": "yes"}"#, 422, "invalid_field", "suspended", "true or false"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGb": 1}"#, 422, "invalid_field", "maxMemoryGb", "did you mean maxMemoryGB?"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxCpu": 1}"#, 422, "invalid_field", "maxCpu", "did you mean maxCpu"),
    ("PUT", "/api/quotas/user/ada", r#"{"colour": 1}"#, 422, "invalid_field", "colour", "is not a known field"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": -1}"#, 422, "invalid_field", "maxMemoryGB", "must not be negative"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": "8"}"#, 422, "invalid_field", "maxMemoryGB", "must be a number, not text"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": "NaN"}"#, 422, "invalid_field", "maxMemoryGB", "must be a number"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": NaN}"#, 400, "malformed_json", "", "expected"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": Infinity}"#, 400, "malformed_json", "", "expected"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": true}"#, 422, "invalid_field", "maxMemoryGB", "not true"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": [8]}"#, 422, "invalid_field", "maxMemoryGB", "not a list"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": 1e300}"#, 422, "invalid_field", "maxMemoryGB", "too large"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": 1e400}"#, 400, "malformed_json", "", "out of range"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxContainers": 1.5}"#, 422, "invalid_field", "maxContainers", "whole number"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxContainers": 18446744073709551615}"#, 422, "invalid_field", "maxContainers", "too large"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxCpuPercent": 101}"#, 422, "invalid_field", "maxCpuPercent", "at most 100"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxRuntimeHours": 25}"#, 422, "invalid_field", "maxRuntimeHours", "at most 24"),
    ("PUT", "/api/quotas/user/ada", r#"{"maxMemoryGB": 1, "maxMemoryGB": 2}"#, 400, "malformed_json", "", "given twice"),
    ("PUT", "/api/quotas/user/ada", r#"{"mode": "strict"}"#, 422, "invalid_field", "mode", "enforce, shadow, off"),
    ("PUT", "/api/quotas/user/ada", r#"{"overcommit": 0}"#, 422, "invalid_field", "overcommit", "from 0.001 to 100"),
    ("PUT", "/api/quotas/user/ada", r#"{"sharedPool": {}}"#, 422, "invalid_field", "sharedPool", "only a team has one"),
    ("PUT", "/api/quotas/team/ml", r#"{"sharedPool": {"maxCpu": 1}}"#, 422, "invalid_field", "sharedPool.maxCpu", "did you mean"),
    ("PUT", "/api/quotas/team/ml", r#"{"sharedPool": {"maxMemoryGB": 1, "maxMemoryGB": 2}}"#, 400, "malformed_json", "", "given twice"),
    ("PUT", "/api/quotas/team/ml", r#"{"sharedPool": {"maxRuntimeHours": 1}}"#, 422, "invalid_field", "sharedPool.maxRuntimeHours", "not shared"),
    ("PUT", "/api/quotas/team/ml", r#"{"maxMemoryGB": 1, "sharedPool": {"maxMemoryGB": 1}}"#, 422, "invalid_field", "sharedPool", "either"),
    ("PUT", "/api/quotas/user/nobody", r#"{"maxMemoryGB": 1}"#, 404, "not_found", "", "no user named nobody"),
    ("PUT", "/api/teams/ml/members/ada", r#"{"allotment": {"maxMemoryGB": null}}"#, 422, "invalid_field", "allotment.maxMemoryGB", "always bounded"),
    ("PUT", "/api/teams/ml/members/ada", r#"{"role": "owner"}"#, 422, "invalid_field", "role", "lead, member"),
    ("PUT", "/api/teams/ml/members/nobody", "{}", 404, "not_found", "", "no user named nobody"),
    ("POST", "/api/tokens", r#"{"user": "ada", "role": "admin"}"#, 403, "forbidden", "", "more than its user"),
    ("POST", "/api/tokens", r#"{"user": "ada", "expiresAt": "2001-01-01T00:00:00Z"}"#, 422, "invalid_field", "expiresAt", "in the future"),
    ("POST", "/api/tokens", r#"{"user": "ada", "expiresAt": "tomorrow"}"#, 422, "invalid_field", "expiresAt", ""),
    ("POST", "/api/quotas/validate", r#"{"entityType": "host", "entityId": "x", "resourceRequest": {}}"#, 422, "invalid_field", "entityType", "user, team"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada"}"#, 422, "invalid_field", "resourceRequest", "is missing"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"memoryGb": 1}}"#, 422, "invalid_field", "resourceRequest.memoryGb", "did you mean memoryGB?"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"cpuCores": -1}}"#, 422, "invalid_field", "resourceRequest.cpuCores", "must not be negative"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"cpuCores": "1"}}"#, 422, "invalid_field", "resourceRequest.cpuCores", "must be a number"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"cpuCores": 0.001}}"#, 422, "invalid_field", "resourceRequest.cpuCores", "at least 0.01"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"memoryGB": 1e300}}"#, 422, "invalid_field", "resourceRequest.memoryGB", "too large"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"gpus": 0.5}}"#, 422, "invalid_field", "resourceRequest.gpus", "whole number"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "resourceRequest": {"containers": 0}}"#, 422, "invalid_field", "resourceRequest.containers", "at least 1"),
    ("POST", "/api/quotas/validate", r#"{"entityType": "user", "entityId": "ada", "team": "ml", "resourceRequest": {"cpuCores": 1}}"#, 403, "forbidden", "", "not a member of team ml"),
    ("POST", "/api/reservations", r#"{"user": "ada", "resourceRequest": {}, "ttlSeconds": 0}"#, 422, "invalid_field", "ttlSeconds", "from 1 to 86400"),
    ("POST", "/api/reservations", r#"{"user": "ada", "resourceRequest": {}, "ttlSeconds": 1e9}"#, 422, "invalid_field", "ttlSeconds", "whole number"),
    ("POST", "/api/reservations", r#"{"user": "ada", "resourceRequest": {}, "idempotencyKey": ""}"#, 422, "invalid_field", "idempotencyKey", "1 to 128"),
    ("POST", "/api/reservations", r#"{"user": "ada", "resourceRequest": {}, "containerName": "a b"}"#, 422, "invalid_field", "containerName", "a-zA-Z0-9"),
    ("POST", "/api/reservations", r#"{"user": "ada", "resourceRequest": {}, "project": "A/B"}"#, 422, "invalid_field", "project", "1 to 63"),
    ("POST", "/api/reservations", r#"{"user": "nobody", "resourceRequest": {}}"#, 404, "not_found", "", "no user named nobody"),
    ("GET", "/api/containers?state=running", "", 422, "invalid_field", "state", "active, stopped"),
    ("GET", "/api/containers?usr=ada", "", 422, "invalid_field", "usr", "did you mean user?"),
    ("GET", "/api/containers?user=ada&user=ada", "", 422, "invalid_field", "user", "given twice"),
    ("GET", "/api/decisions?outcome=maybe", "", 422, "invalid_field", "outcome", "allowed or refused"),
    ("GET", "/api/decisions?limit=0", "", 422, "invalid_field", "limit", "from 1 to 1000"),
    ("GET", "/api/decisions?limit=many", "", 422, "invalid_field", "limit", "whole number"),
    ("GET", "/api/decisions/no-id", "", 404, "not_found", "", "no decision named no-id"),
    ("GET", "/api/quotas/violations?since=yesterday", "", 422, "invalid_field", "since", ""),
    ("DELETE", "/api/users/ada?drain=perhaps", "", 422, "invalid_field", "drain", "true or false"),
    ("GET", "/api/nothing", "", 404, "no_route", "", "/api/docs"),
    ("POST", "/api/audit", "{}", 405, "no_method", "", "POST"),
];

#[tokio::test]
async fn every_mistake_is_named_and_changes_nothing() {
    let site = Site::new().await;
    let ada = json!({"name": "ada", "osUid": 1001});
    site.ask("POST", "/api/users", ada).await.is(201);
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    let before = site.get("/api/audit").await;
    for (method, path, body, status, code, field, words) in ROWS {
        let mut request = site.request(method, path, &site.admin, None);
        if *method != "GET" && *method != "DELETE" {
            let json = "application/json".parse().unwrap();
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Body::from(*body);
        }
        let answer = site.send(request).await;
        let at = format!("{method} {path} {body}");
        assert_eq!(answer.status, *status, "{at}: {:#}", answer.body);
        let problem = answer.body;
        assert_eq!(problem["code"], *code, "{at}: {problem:#}");
        let named = problem["field"].as_str().unwrap_or_default();
        assert_eq!(named, *field, "{at}: {problem:#}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{at}: {detail}");
        if let Some(nearest) = problem["nearest"].as_str() {
            assert!(detail.contains(nearest), "{at}: {detail}");
        }
    }
    assert_eq!(site.get("/api/audit").await, before, "nothing was changed");
}

#[tokio::test]
async fn a_body_says_that_it_is_json() {
    let site = Site::new().await;
    for (kind, status) in [
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json", 201),
        ("Application/JSON; charset=utf-8", 201),
    ] {
        let mut request = site.request("POST", "/api/teams", &site.admin, None);
        if !kind.is_empty() {
            request
                .headers_mut()
                .insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        let name = format!("t{}", kind.len());
        *request.body_mut() = Body::from(json!({"name": name}).to_string());
        assert_eq!(site.send(request).await.status, status, "{kind}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let site = Site::new().await;
    let own = format!("http://{}", site.address);
    for (origin, status) in [
        ("http://evil.example", 403),
        ("null", 403),
        (own.as_str(), 201),
    ] {
        let body = json!({"name": format!("t{}", origin.len())});
        let mut request = site.request("POST", "/api/teams", &site.admin, Some(&body));
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        let answer = site.send(request).await;
        assert_eq!(answer.status, status, "{origin}");
        for (header, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(header), value, "{origin}");
        }
    }
    // Reading shows nothing without a token, whatever the name in Host was made to resolve to.
    let mut request = site.request("GET", "/api/users", "", None);
    request
        .headers_mut()
        .insert(HOST, "evil.example".parse().unwrap());
    site.send(request).await.fails(401, "unauthenticated");
}

#[tokio::test]
async fn names_and_ids_are_one() {
    let site = Site::new().await;
    let ada = site
        .ask("POST", "/api/users", json!({"name": "ada"}))
        .await
        .is(201);
    let id = ada["id"].as_str().unwrap();
    let plain = id.replace('-', "");
    for by in ["ada", id, &id.to_uppercase(), &plain] {
        let seen: Value = site.get(&format!("/api/users/{by}")).await;
        assert_eq!(seen["name"], "ada", "{by}");
        assert_eq!(
            site.get(&format!("/api/quotas/user/{by}")).await["entityId"],
            id,
            "{by}"
        );
    }
}
