//! `/api/users/{user}/certs` and `/api/certs`. That they open the gateway is in `tests/tls.rs`.

use plimsoll::ca::{Authority, new_request};
use serde_json::{Value, json};

use crate::site::Site;

const PATH: &str = "/api/users/ada/certs";

fn request() -> Value {
    json!({"csr": new_request("somebody else").unwrap().1})
}

async fn site() -> Site {
    let site = Site::new().await;
    let authority = Authority::of(&site.app.config.data_dir);
    authority.init(&[], site.app.clock.now_ms()).unwrap();
    site.user("ada", "member").await;
    site
}

#[tokio::test]
async fn without_an_authority_there_are_no_certificates() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let problem = site
        .ask("POST", PATH, request())
        .await
        .fails(409, "conflict");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("plimsoll ca init"), "{detail}");
}

#[tokio::test]
async fn a_certificate_is_signed_listed_and_revoked() {
    let site = site().await;
    let mut new = request();
    new["days"] = json!(1);
    let issued = site.ask("POST", PATH, new).await.is(201);
    let pem = issued["certificate"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    assert_eq!(
        issued["endpoint"],
        Value::Null,
        "there is no gateway over TLS"
    );
    let listed = site.get(PATH).await;
    assert_eq!(listed["items"][0]["serial"], issued["serial"]);
    assert_eq!(listed["items"][0]["revokedAt"], Value::Null);

    let serial = issued["serial"].as_str().unwrap();
    // As openssl prints it, without hyphens, it is the same.
    let path = format!("/api/certs/{}", serial.replace('-', ""));
    site.ask("DELETE", &path, Value::Null).await.is(204);
    let listed = site.get(PATH).await;
    assert_ne!(listed["items"][0]["revokedAt"], Value::Null);
    for absent in [uuid::Uuid::now_v7().to_string(), "x".to_owned()] {
        let path = format!("/api/certs/{absent}");
        let answer = site.ask("DELETE", &path, Value::Null).await;
        answer.fails(404, "not_found");
    }
    let audit = site.get("/api/audit?limit=2").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().collect();
    assert_eq!(actions[0]["action"], "cert.revoke");
    assert_eq!(actions[1]["action"], "cert.issue");
    assert_eq!(actions[1]["after"], json!({"user": "ada"}));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_nothing_is_kept() {
    let site = site().await;
    let key = new_request("ada").unwrap().0;
    for (field, new) in [
        ("csr", json!({"csr": ""})),
        ("csr", json!({"csr": key})),
        ("csr", json!({"days": 1})),
        ("days", json!({"csr": request()["csr"], "days": 0})),
        ("days", json!({"csr": request()["csr"], "days": 731})),
        ("name", json!({"csr": request()["csr"], "name": "root"})),
    ] {
        let problem = site
            .ask("POST", PATH, new)
            .await
            .fails(422, "invalid_field");
        assert_eq!(problem["field"], field, "{problem:#}");
    }
    assert_eq!(site.get(PATH).await["items"], json!([]));
}
