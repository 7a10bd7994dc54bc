//! `/api/tokens`, `/api/me`, and the first token

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use plimsoll::api;
use serde_json::{Value, json};

use crate::site::Site;

#[tokio::test]
async fn the_first_token_is_made_once_and_is_for_its_reader_alone() {
    let site = Site::new().await;
    let path = site.dir().join("data/admin.token");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(site.get("/api/me").await["role"], "admin");
    assert!(api::ensure_admin_token(&site.app).await.unwrap().is_none());
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), site.admin);
    let kept = std::fs::read(site.dir().join("data/ledger.db-wal")).unwrap();
    let secret = site.admin.as_bytes();
    assert!(
        !kept.windows(secret.len()).any(|w| w == secret),
        "only a hash is kept"
    );
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_or_expires() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let later = jiff::Timestamp::from_millisecond(site.app.clock.now_ms() + 60_000).unwrap();
    let short = site
        .token("ada", json!({"expiresAt": later.to_string()}))
        .await;
    site.by(&short, "GET", "/api/me", None).await.is(200);
    // It cannot make one that outlives it.
    site.by(&short, "POST", "/api/tokens", Some(json!({})))
        .await
        .fails(422, "invalid_field");
    let same = json!({"expiresAt": later.to_string()});
    site.by(&short, "POST", "/api/tokens", Some(same))
        .await
        .is(201);
    site.app.clock.advance(Duration::from_secs(61));
    site.by(&short, "GET", "/api/me", None)
        .await
        .fails(401, "unauthenticated");

    let made = site
        .ask("POST", "/api/tokens", json!({"user": "ada"}))
        .await
        .is(201);
    let (secret, id) = (
        made["token"].as_str().unwrap(),
        made["id"].as_str().unwrap(),
    );
    assert!(secret.starts_with("plm_") && secret.len() == 4 + 64);
    site.by(secret, "DELETE", &format!("/api/tokens/{id}"), None)
        .await
        .is(204);
    site.by(secret, "GET", "/api/me", None)
        .await
        .fails(401, "unauthenticated");
    let listed = site.get("/api/tokens").await;
    assert!(
        !listed.to_string().contains(secret),
        "a secret is shown once"
    );
}

#[tokio::test]
async fn a_token_is_never_more_than_its_user() {
    let site = Site::new().await;
    let rows = [
        // User, token, what /api/me says; then whether it reads all and changes its own.
        ("admin", "admin", 201, "admin", true, true),
        ("admin", "viewer", 201, "viewer", true, false),
        ("admin", "member", 201, "member", false, true),
        ("viewer", "viewer", 201, "viewer", true, false),
        ("viewer", "member", 403, "", false, false),
        ("viewer", "admin", 403, "", false, false),
        ("member", "member", 201, "member", false, true),
        ("member", "viewer", 403, "", false, false),
        ("member", "admin", 403, "", false, false),
    ];
    for role in ["admin", "viewer", "member"] {
        let new = json!({"name": format!("{role}-user"), "role": role});
        site.ask("POST", "/api/users", new).await.is(201);
    }
    for (user, role, status, shown, reads_all, changes) in rows {
        let name = format!("{user}-user");
        let ask = json!({"user": name, "role": role});
        let made = site.ask("POST", "/api/tokens", ask).await;
        assert_eq!(made.status, status, "{user} {role}: {:#}", made.body);
        let Some(token) = made.body["token"].as_str() else {
            continue;
        };
        let me = site.by(token, "GET", "/api/me", None).await.is(200);
        assert_eq!(
            (&me["role"], &me["user"]["name"]),
            (&json!(shown), &json!(name))
        );
        let list = site.by(token, "GET", "/api/users", None).await;
        assert_eq!(list.status == 200, reads_all, "{user} {role}");
        let own = json!({"name": format!("p-{role}"), "user": name});
        let change = site.by(token, "POST", "/api/projects", Some(own)).await;
        assert_eq!(
            change.status == 201,
            changes,
            "{user} {role}: {:#}",
            change.body
        );
    }
}

#[tokio::test]
async fn whatever_is_no_valid_token_is_401() {
    let site = Site::new().await;
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer plm_00",
        "Basic YTpi",
        "plm_00",
        "bearer\tx",
    ] {
        let mut request = site.request("GET", "/api/me", "", None);
        if !header.is_empty() {
            request
                .headers_mut()
                .insert("authorization", header.parse().unwrap());
        }
        let answer = site.send(request).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{header}");
        answer.fails(401, "unauthenticated");
    }
    // The scheme's name is written in any case.
    let mut request = site.request("GET", "/api/me", "", None);
    let header = format!("bearer {}", site.admin).parse().unwrap();
    request.headers_mut().insert("authorization", header);
    assert_eq!(site.send(request).await.is(200)["user"], Value::Null);
}
