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

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use plimsoll_host::engine::{Engine, empty, full};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const PATIENCE: Duration = Duration::from_secs(30);
/// Memory is read once what ran at the start has settled.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// A server of its own, ended and swept up when dropped.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
    instance: String,
}

impl Server {
    /// Starts one on `data` and waits until it is ready; says how long that took.
    async fn start(
        binary: &Path,
        engine: &str,
        dir: tempfile::TempDir,
    ) -> Result<(Self, Duration)> {
        let instance = format!("bench{}", std::process::id());
        let path = |name: &str| dir.path().join(name);
        let url = |path: PathBuf| format!("unix://{}", path.display());
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(path("data"))
            .args(["--listen", "127.0.0.1:0", "--engine", engine])
            .args(["--instance", &instance])
            .args(["--gateway", &url(path("docker.sock"))])
            .arg("--api-socket")
            .arg(path("api.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log"))?);
        let began = Instant::now();
        let process = command.spawn()?;
        let server = Self {
            process,
            dir,
            instance,
        };
        while !server.is_ready().await {
            if began.elapsed() > PATIENCE {
                return Err(std::fs::read_to_string(server.path("log"))?.into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok((server, began.elapsed()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn is_ready(&self) -> bool {
        let asked = self.api(Method::GET, "/readyz", None).await;
        asked.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let stream = tokio::net::UnixStream::connect(self.path("api.sock")).await?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(body.map_or_else(empty, |body| full(body.to_string())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        ))
    }

    async fn must(&self, method: Method, path: &str, body: Value) -> Result<()> {
        let (status, answer) = self.api(method, path, Some(body)).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{path}: {status} {answer}").into())
        }
    }

    /// Resident memory in KiB.
    fn resident_kib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no VmRSS")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.process.wait();
        let roots = std::fs::read_dir("/sys/fs/cgroup");
        let roots = roots.into_iter().flatten().flatten();
        let roots = roots.map(|root| root.path().join(&self.instance));
        for root in roots.chain([Path::new("/sys/fs/cgroup").join(&self.instance)]) {
            remove_tree(&root);
        }
    }
}

fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

fn print(name: &str, n: usize, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","n":{n},"value":{value:.3},"unit":"{unit}"}}"#);
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// One request that must succeed; how long it took and what was answered.
async fn ask(
    engine: &Engine,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(Duration, Value)> {
    let began = Instant::now();
    let (headers, body) = match body {
        Some(body) => (
            vec![(CONTENT_TYPE, "application/json")],
            full(body.to_string()),
        ),
        None => (Vec::new(), empty()),
    };
    let response = engine
        .send(method, path, &headers, body, Some(PATIENCE))
        .await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    let took = began.elapsed();
    if !status.is_success() {
        return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&bytes)).into());
    }
    Ok((took, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

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
    let person = json!({"name": "bench", "osUid": rustix::process::getuid().as_raw()});
    server.must(Method::POST, "/api/users", person).await?;
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
        server.resident_kib()? / 1024.0,
        "MiB",
    );
    gateway(&server, &engine, rounds).await?;
    tokio::time::sleep(IDLE_AFTER).await;
    print(
        "resident memory after the gateway's rounds",
        rounds,
        server.resident_kib()? / 1024.0,
        "MiB",
    );
    Ok(())
}
