//! What the server itself costs: how soon it is ready, the memory it holds idle, and what the
//! gateway adds to a container's create, start and remove against the bare engine, in turn.
//!
//! ```text
//! cargo run --release -p plimsoll --example server_bench PLIMSOLL_BINARY [ROUNDS] [STARTS]
//! ```
//!
//! Runs as root on a Docker Engine that has the image `plimsoll/example`; `PLIMSOLL_ENGINE` says
//! where the engine listens. Prints one JSON object a line.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own that measures time"
)]

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use plimsoll_host::engine::Engine;
use serde_json::json;

mod site;

use site::{Result, Server, ask, median_ms, print};

/// Memory is read once what ran at the start has settled.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// How long each step of one container's life took: create, start, remove.
async fn life(engine: &Engine, name: &str) -> Result<[Duration; 3]> {
    // The same limits on both sides, so the engine and the kernel have the same work.
    let body = json!({
        "Image": "plimsoll/example",
        "Cmd": ["sleep", "60"],
        "HostConfig": {
            "Memory": 64 << 20, "MemorySwap": 64 << 20, "NanoCpus": 500_000_000, "PidsLimit": 64,
            "NetworkMode": "none",
        },
    });
    let path = format!("/containers/create?name={name}");
    let (create, made) = ask(engine, Method::POST, &path, Some(&body)).await?;
    let id = made["Id"].as_str().ok_or("no id")?;
    let (start, _) = ask(
        engine,
        Method::POST,
        &format!("/containers/{id}/start"),
        None,
    )
    .await?;
    let path = format!("/containers/{id}?force=true");
    let (remove, _) = ask(engine, Method::DELETE, &path, None).await?;
    Ok([create, start, remove])
}

async fn gateway(server: &Server, engine: &str, rounds: usize) -> Result<()> {
    server.admit_me().await?;
    let sides = [Engine::new(engine), Engine::new(server.path("docker.sock"))];
    let mut took: [[Vec<Duration>; 4]; 2] = Default::default();
    // The first round warms both sides up and does not count.
    for round in 0..=rounds {
        for (side, times) in sides.iter().zip(&mut took) {
            let steps = life(side, &format!("plimsoll-bench-{round}")).await?;
            if round > 0 {
                let all = steps.iter().sum();
                for (times, step) in times.iter_mut().zip(steps.into_iter().chain([all])) {
                    times.push(step);
                }
            }
        }
    }
    let [bare, gate] = &mut took;
    let steps = ["create", "start", "rm", "create + start + rm"];
    for ((step, bare), gate) in steps.into_iter().zip(bare).zip(gate) {
        let mut added: Vec<f64> = bare
            .iter()
            .zip(gate.iter())
            .map(|(b, g)| g.as_secs_f64() - b.as_secs_f64())
            .collect();
        added.sort_unstable_by(f64::total_cmp);
        let (bare, gate) = (median_ms(bare), median_ms(gate));
        print(&format!("{step}, bare engine"), rounds, bare, "ms");
        print(&format!("{step}, through the gateway"), rounds, gate, "ms");
        print(
            &format!("{step}, added by the gateway"),
            rounds,
            added[added.len() / 2] * 1e3,
            "ms",
        );
        print(&format!("{step}, ratio"), rounds, gate / bare, "x");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut given = std::env::args().skip(1);
    let binary = PathBuf::from(given.next().ok_or("name the plimsoll binary")?);
    let rounds = given.next().map_or(Ok(30), |text| text.parse())?;
    let starts: usize = given.next().map_or(Ok(5), |text| text.parse())?;
    let engine =
        std::env::var("PLIMSOLL_ENGINE").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let start = async |dir| Server::start(&binary, &engine, dir).await;

    let mut first = Vec::new();
    for _ in 0..starts {
        let (server, took) = start(tempfile::tempdir()?).await?;
        first.push(took);
        drop(server);
    }
    print(
        "start to ready, empty data dir",
        starts,
        median_ms(&mut first),
        "ms",
    );

    let (server, _) = start(tempfile::tempdir()?).await?;
    tokio::time::sleep(IDLE_AFTER).await;
    print(
        "idle resident memory",
        1,
        server.resident_mib("VmRSS:")?,
        "MiB",
    );
    gateway(&server, &engine, rounds).await?;
    tokio::time::sleep(IDLE_AFTER).await;
    print(
        "resident memory after the gateway's rounds",
        rounds,
        server.resident_mib("VmRSS:")?,
        "MiB",
    );
    Ok(())
}
