//! What the gateway costs where much goes through it: lists of many containers, exec, logs, images,
//! many clients at once. Each figure on the bare engine and through the gateway, in turn.
//!
//! ```text
//! cargo run --release -p plimsoll --example gateway_bench PLIMSOLL_BINARY [CONTAINERS] [CLIENTS]
//! ```
//!
//! Runs as root on a Docker Engine that has the image `plimsoll/example`; `PLIMSOLL_ENGINE` says
//! where the engine listens. Prints one JSON object a line.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own that measures time"
)]

mod site;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use plimsoll_host::engine::{Engine, empty};
use serde_json::{Value, json};
use site::{PATIENCE, Result, Server, ask, median_ms, print};

/// How often each pair is measured.
const ROUNDS: usize = 20;
/// What one container writes to its log; less than where logs turn over.
const LOG_MIB: usize = 8;
/// Of an image that is saved.
const IMAGE_MIB: usize = 200;

/// The bare engine, and the gateway.
type Sides = [Engine; 2];

async fn post(engine: &Engine, path: &str, body: Option<&Value>) -> Result<Value> {
    Ok(ask(engine, Method::POST, path, body).await?.1)
}

async fn create(engine: &Engine, name: &str, cpu: f64, command: &[&str]) -> Result<String> {
    let body = json!({
        "Image": "plimsoll/example",
        "Cmd": command,
        "HostConfig": {"NanoCpus": (cpu * 1e9) as u64, "Memory": 16 << 20, "MemorySwap": 16 << 20,
                       "PidsLimit": 16, "NetworkMode": "none"},
    });
    let path = format!("/containers/create?name={name}");
    let made = post(engine, &path, Some(&body)).await?;
    Ok(made["Id"].as_str().ok_or("no id")?.to_owned())
}

async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let path = format!("/containers/{id}?force=true");
    ask(engine, Method::DELETE, &path, None).await.map(drop)
}

/// Medians of both sides, what the gateway adds, and the ratio.
fn pair(name: &str, n: usize, took: &mut [Vec<Duration>; 2]) {
    let [bare, gate] = took;
    let (bare, gate) = (median_ms(bare), median_ms(gate));
    print(&format!("{name}, bare engine"), n, bare, "ms");
    print(&format!("{name}, through the gateway"), n, gate, "ms");
    print(&format!("{name}, ratio"), n, gate / bare, "x");
}

async fn lists(sides: &Sides, n: usize) -> Result<()> {
    let mut ids = Vec::new();
    let listed = listed(sides, n, &mut ids).await;
    // Whatever came of it, nothing stays.
    for id in ids {
        remove(&sides[0], &id).await?;
    }
    listed
}

async fn listed(sides: &Sides, n: usize, ids: &mut Vec<String>) -> Result<()> {
    for index in 0..n {
        ids.push(create(&sides[1], &format!("ps-{index}"), 0.01, &["true"]).await?);
    }
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, took) in sides.iter().zip(&mut took) {
            let (time, listed) = ask(side, Method::GET, "/containers/json?all=true", None).await?;
            let listed = listed.as_array().map_or(0, Vec::len);
            if listed < n {
                return Err(format!("{listed} of {n} containers are listed").into());
            }
            took.push(time);
        }
    }
    pair("ps", n, &mut took);
    Ok(())
}

async fn execs(sides: &Sides, id: &str) -> Result<()> {
    let mut took = [Vec::new(), Vec::new()];
    let body = json!({"AttachStdout": true, "Cmd": ["true"]});
    for _ in 0..ROUNDS {
        for (side, took) in sides.iter().zip(&mut took) {
            let began = Instant::now();
            let made = post(side, &format!("/containers/{id}/exec"), Some(&body)).await?;
            let exec = made["Id"].as_str().ok_or("no id")?;
            // Answered when it has ended.
            let path = format!("/exec/{exec}/start");
            post(side, &path, Some(&json!({"Detach": false}))).await?;
            took.push(began.elapsed());
        }
    }
    pair("exec", ROUNDS, &mut took);
    Ok(())
}

/// How many bytes come, and in which time; they are not kept.
async fn read(engine: &Engine, path: &str) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let answer = engine
        .send(Method::GET, path, &[], empty(), Some(PATIENCE))
        .await?;
    if !answer.status().is_success() {
        return Err(format!("{path}: {}", answer.status()).into());
    }
    let (mut body, mut size) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, hyper::body::Bytes::len);
    }
    Ok((began.elapsed(), size))
}

async fn throughput(name: &str, sides: &Sides, paths: [&str; 2], least_mib: usize) -> Result<()> {
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS / 4 {
        for ((side, path), rates) in sides.iter().zip(paths).zip(&mut rates) {
            let (time, size) = read(side, path).await?;
            if size < least_mib << 20 {
                return Err(format!("{path}: {size} bytes").into());
            }
            rates.push((size >> 10) as f64 / 1024.0 / time.as_secs_f64());
        }
    }
    let [bare, gate] = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    print(&format!("{name}, bare engine"), least_mib, bare, "MiB/s");
    print(
        &format!("{name}, through the gateway"),
        least_mib,
        gate,
        "MiB/s",
    );
    print(&format!("{name}, ratio"), least_mib, gate / bare, "x");
    Ok(())
}

async fn streams(sides: &Sides, id: &str) -> Result<()> {
    let logs = format!("/containers/{id}/logs?stdout=true");
    throughput("logs", sides, [&logs, &logs], LOG_MIB).await?;
    let path = format!("/commit?container={id}&repo=big");
    let image = post(&sides[1], &path, None).await?;
    let image = image["Id"].as_str().ok_or("no id")?;
    let save = format!("/images/{image}/get");
    let saved = throughput("save", sides, [&save, &save], IMAGE_MIB).await;
    ask(&sides[1], Method::DELETE, "/images/big", None).await?;
    saved
}

/// One client's work: what a person does who looks around and tries something.
async fn client(gateway: &Engine, index: usize) -> Result<()> {
    for path in ["/version", "/images/json", "/containers/json?all=true"] {
        ask(gateway, Method::GET, path, None).await?;
    }
    let id = create(gateway, &format!("client-{index}"), 0.01, &["true"]).await?;
    let path = format!("/containers/{id}/json");
    let looked = ask(gateway, Method::GET, &path, None).await;
    remove(gateway, &id).await?;
    looked.map(drop)
}

async fn clients(server: &Server, gateway: &Engine, n: usize) -> Result<()> {
    let began = Instant::now();
    let done = join_all((0..n).map(|index| client(gateway, index))).await;
    let took = began.elapsed();
    let failed = done.iter().filter(|done| done.is_err()).count();
    if let Some(Err(error)) = done.into_iter().find(Result::is_err) {
        eprintln!("of {n} clients {failed} failed: {error}");
    }
    print("clients at once, failed", n, failed as f64, "");
    print("clients at once, all done", n, took.as_secs_f64(), "s");
    let most = server.resident_mib("VmHWM:")?;
    print("resident memory at most", n, most, "MiB");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut given = std::env::args().skip(1);
    let binary = PathBuf::from(given.next().ok_or("name the plimsoll binary")?);
    let containers = given.next().map_or(Ok(500), |text| text.parse())?;
    let at_once = given.next().map_or(Ok(200), |text| text.parse())?;
    let engine =
        std::env::var("PLIMSOLL_ENGINE").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let (server, _) = Server::start(&binary, &engine, tempfile::tempdir()?).await?;
    server.admit_me().await?;
    let everything = json!({
        "maxCpuCores": 64, "maxMemoryGB": 64, "maxStorageGB": 2048, "maxContainers": 2000,
        "maxConcurrentContainers": 1000, "maxTempStorageGB": 512,
        "overcommit": 10,
    });
    let system = json!({"overcommit": 10});
    server
        .must(Method::PUT, "/api/quotas/system", system)
        .await?;
    server
        .must(Method::PUT, "/api/quotas/user/bench", everything)
        .await?;
    let sides = [Engine::new(engine), Engine::new(server.path("docker.sock"))];

    lists(&sides, containers).await?;
    let script = format!(
        "dd if=/dev/urandom of=/big bs=1M count={IMAGE_MIB} 2>/dev/null;
         yes 0123456789012345678901234567890123456789012345678901234567890123456789 |
         head -c {}; touch /done; sleep 600",
        LOG_MIB << 20
    );
    let body_id = create(&sides[1], "work", 1.0, &["sh", "-c", &script]).await?;
    post(&sides[1], &format!("/containers/{body_id}/start"), None).await?;
    while ask(
        &sides[0],
        Method::HEAD,
        &format!("/containers/{body_id}/archive?path=/done"),
        None,
    )
    .await
    .is_err()
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let measured = async {
        execs(&sides, &body_id).await?;
        streams(&sides, &body_id).await
    }
    .await;
    remove(&sides[0], &body_id).await?;
    measured?;
    clients(&server, &sides[1], at_once).await
}
