//! How many `POST /api/quotas/validate` a second, and how long each takes: over real HTTP on
//! keep-alive connections, against a server in this process, sharing its cores. Prints one JSON
//! object a line.
//!
//! `cargo run --release --example validate_bench [CONNECTIONS] [SECONDS]`

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own that measures time"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::api;
use plimsoll::clock::Clock;
use plimsoll::config::{Config, Limits};
use plimsoll_core::entity::UserId;
use plimsoll_store::{Actor, NewUser, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut given = std::env::args().skip(1);
    let connections: usize = given.next().map_or(Ok(8), |text| text.parse())?;
    let seconds: u64 = given.next().map_or(Ok(5), |text| text.parse())?;

    let dir = tempfile::tempdir()?;
    let config = Config {
        data_dir: dir.path().to_owned(),
        // What is measured is the decision, not the limit.
        limits: Limits {
            connections_per_user: 10_000,
            requests_per_s: 1_000_000,
            requests_burst: 1_000_000,
        },
        ..Config::default()
    };
    let app = plimsoll::serve::build(config, Clock::default()).await?;
    let path = api::ensure_admin_token(&app).await?.ok_or("no token")?;
    let token = std::fs::read_to_string(path)?;
    let actor = Actor {
        name: "bench".into(),
        at_ms: 0,
        reason: None,
    };
    let user = NewUser {
        id: UserId(plimsoll::clock::new_id()),
        name: "ada".parse()?,
        email: None,
        os_uid: None,
        role: Role::Member,
        class: None,
    };
    app.store.add_user(user, actor).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(api::serve_tcp(
        Arc::clone(&app),
        listener,
        std::future::pending(),
    ));

    let body = r#"{"entityType":"user","entityId":"ada","resourceRequest":{"cpuCores":0.5,"memoryGB":1,"storageGB":1}}"#;
    let request = format!(
        "POST /api/quotas/validate HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(client(address, request.clone(), until)))
        .collect();
    let mut took: Vec<Duration> = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 1000];
    let per_second = took.len() as f64 / seconds as f64;
    print(
        "validate over HTTP throughput",
        connections,
        per_second,
        "1/s",
    );
    for (name, share) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        let us = at(share).as_secs_f64() * 1e6;
        print(&format!("validate over HTTP {name}"), connections, us, "us");
    }
    Ok(())
}

fn print(name: &str, n: usize, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","n":{n},"value":{value:.1},"unit":"{unit}"}}"#);
}

/// Asks again and again until the time is over.
async fn client(
    address: std::net::SocketAddr,
    request: String,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut took = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while Instant::now() < until {
        let start = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            filled += stream.read(&mut buffer[filled..]).await?;
            let text = std::str::from_utf8(&buffer[..filled])?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .ok_or("an answer without a length")?;
            if body.len() >= length.parse()? {
                if !head.starts_with("HTTP/1.1 200") {
                    return Err(text.into());
                }
                break;
            }
        }
        took.push(start.elapsed());
    }
    Ok(took)
}
