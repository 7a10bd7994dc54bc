//! Requests that do not end, and a server that does.

use std::time::Duration;

use plimsoll::api::Bounds;
use plimsoll::config::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::{SHORT, Site};

/// Sends raw bytes and reads until the server is done with the connection.
async fn exchange(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut with bytes unread ends in a reset.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(site: &Site, more: &str) -> String {
    format!(
        "POST /api/teams HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n{more}\r\n",
        site.admin
    )
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let site = Site::within(SHORT).await;
    let started = format!("{}{{\"name\":", head(&site, "content-length: 50\r\n"));
    let answer = exchange(&site, started.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"timeout\""), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let site = Site::new().await;
    let mut endless = head(&site, "transfer-encoding: chunked\r\n").into_bytes();
    let chunk = vec![b' '; 64 * 1024];
    for _ in 0..20 {
        endless.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        endless.extend_from_slice(&chunk);
        endless.extend_from_slice(b"\r\n");
    }
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    // The server may answer before it has read all of it.
    let _ = stream.write_all(&endless).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_head_that_never_comes_is_given_up() {
    let site = Site::within(SHORT).await;
    let answer = exchange(&site, b"GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let site = Site::new().await;
    let answer = exchange(
        &site,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_server_does() {
    let mut site = Site::new().await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let body = r#"{"name": "late"}"#;
    let head = head(&site, &format!("content-length: {}\r\n", body.len()));
    stream.write_all(head.as_bytes()).await.unwrap();
    // Its head has been read once the server asks for more: a second request is answered meanwhile.
    site.get("/api/me").await;
    site.stop();
    while TcpStream::connect(site.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// A site where each caller may have two connections and three requests at once.
async fn narrow() -> Site {
    let limits = Limits {
        connections_per_user: 2,
        requests_per_s: 1,
        requests_burst: 3,
    };
    Site::limited(Bounds::default(), limits).await
}

#[tokio::test]
async fn requests_beyond_the_rate_are_told_when_to_come_back_and_only_their_callers() {
    let site = narrow().await;
    let ask = async |token: &str, path: &str| site.by(token, "GET", path, None).await;
    for _ in 0..3 {
        ask(&site.admin, "/api/me").await.is(200);
    }
    let answer = ask(&site.admin, "/api/me").await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.fails(429, "too_many");
    // Whoever shows no good token is the machine they come from.
    for token in ["", "plm_wrong", ""] {
        ask(token, "/api/me").await.fails(401, "unauthenticated");
    }
    ask("", "/healthz").await.fails(429, "too_many");
    site.app.clock.advance(Duration::from_secs(2));
    ask(&site.admin, "/api/me").await.is(200);
    ask("", "/healthz").await.is(200);
}

#[tokio::test]
async fn a_users_tokens_share_one_rate() {
    let site = narrow().await;
    let first = site.user("ada", "member").await;
    site.app.clock.advance(Duration::from_secs(9));
    let second = site.token("ada", serde_json::json!({})).await;
    for token in [&first, &second, &first] {
        site.by(token, "GET", "/api/me", None).await.is(200);
    }
    for token in [&first, &second] {
        let answer = site.by(token, "GET", "/api/me", None).await;
        answer.fails(429, "too_many");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let site = narrow().await;
    let first = TcpStream::connect(site.address).await.unwrap();
    let _second = TcpStream::connect(site.address).await.unwrap();
    let get = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(&site, get).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(answer.contains("\"code\":\"too_many\""), "{answer}");
    drop(first);
    // The server sees the end of a connection a moment after it.
    while !exchange(&site, get).await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
