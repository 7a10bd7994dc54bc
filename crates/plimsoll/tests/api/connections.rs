//! Requests that do not end, and a server that does.

use std::time::Duration;

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
