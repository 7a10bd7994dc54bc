//! A server of a benchmark's own, and requests to it and to the engine.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use plimsoll_host::engine::{Engine, empty, full};
use serde_json::{Value, json};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server of its own, ended and swept up when dropped.
pub(crate) struct Server {
    process: Child,
    dir: tempfile::TempDir,
    instance: String,
}

impl Server {
    /// Starts one on `data` and waits until it is ready; says how long that took.
    pub(crate) async fn start(
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
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

    pub(crate) async fn must(&self, method: Method, path: &str, body: Value) -> Result<()> {
        let (status, answer) = self.api(method, path, Some(body)).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{path}: {status} {answer}").into())
        }
    }

    /// The person who runs this becomes a user.
    pub(crate) async fn admit_me(&self) -> Result<()> {
        let person = json!({"name": "bench", "osUid": rustix::process::getuid().as_raw()});
        self.must(Method::POST, "/api/users", person).await
    }

    /// Resident memory now (`VmRSS`) or at most (`VmHWM`), in MiB.
    pub(crate) fn resident_mib(&self, which: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(which));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no such line")?.parse::<f64>()? / 1024.0)
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

pub(crate) fn print(name: &str, n: usize, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","n":{n},"value":{value:.3},"unit":"{unit}"}}"#);
}

pub(crate) fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// One request that must succeed; how long it took and what was answered.
pub(crate) async fn ask(
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
