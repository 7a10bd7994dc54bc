//! A real server for a test: its own data, sockets and instance, over the real engine where the test
//! needs one. Everything it made is gone when it is dropped.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    reason = "each test file uses its part of it, outside the server"
)]

pub mod account;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The image every container of a test runs.
pub const IMAGE: &str = "plimsoll/example";

pub struct Server {
    dir: tempfile::TempDir,
    instance: String,
    engine: String,
    extra: Vec<String>,
    prefix: Vec<String>,
    process: Child,
}

/// The engine the tests run on.
pub fn engine() -> String {
    std::env::var("PLIMSOLL_ENGINE_SOCKET").map_or_else(
        |_| "unix:///var/run/docker.sock".to_owned(),
        |path| {
            if path.contains("://") {
                path
            } else {
                format!("unix://{path}")
            }
        },
    )
}

impl Server {
    /// A server over the real engine.
    pub fn start() -> Self {
        Self::start_with(&engine(), &[])
    }

    /// A server that has no engine.
    pub fn without_engine() -> Self {
        Self::start_with("unix:///nonexistent/docker.sock", &[])
    }

    pub fn start_with(engine: &str, extra: &[&str]) -> Self {
        Self::start_in(directory(), engine, extra, &[])
    }

    /// A server with an authority of its own and a gateway over TLS, and where that is.
    pub fn start_over_tls(extra: &[&str]) -> (Self, String) {
        let dir = directory();
        make_authority(&dir.path().join("data"));
        let endpoint = format!("tcp://127.0.0.1:{}", free_port());
        let extra = [&["--gateway", &endpoint], extra].concat();
        (Self::start_in(dir, &engine(), &extra, &[]), endpoint)
    }

    /// A server in `dir`, run by `prefix`: a program that becomes it.
    pub fn start_in(dir: tempfile::TempDir, engine: &str, extra: &[&str], prefix: &[&str]) -> Self {
        // Tenants reach the socket under their own uids.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let random = uuid::Uuid::now_v7().simple().to_string();
        let instance = format!("test{}", &random[20..]);
        let owned = |words: &[&str]| words.iter().map(|s| (*s).to_owned()).collect();
        let (extra, prefix): (Vec<String>, Vec<String>) = (owned(extra), owned(prefix));
        let process = spawn(dir.path(), &instance, engine, &extra, &prefix);
        let server = Self {
            dir,
            instance,
            engine: engine.to_owned(),
            extra,
            prefix,
            process,
        };
        server.wait_ready();
        server
    }

    fn wait_ready(&self) {
        let wants_engine = !self.engine.contains("nonexistent");
        wait_for("the server to be ready", || {
            let answer = self.try_api("GET", "/readyz", None).ok()?;
            (answer.0 == 200 || (!wants_engine && answer.0 == 503)).then_some(())
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the process as a power cut would, and starts another on what it left.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    pub fn crash(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends the process as a service manager does; returns how long it took.
    pub fn terminate(&mut self) -> Duration {
        let pid = self.process.id().to_string();
        let began = Instant::now();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
        began.elapsed()
    }

    pub fn restart(&mut self) {
        self.respawn();
        self.wait_ready();
    }

    /// Starts another while its engine is away.
    pub fn restart_without_its_engine(&mut self) {
        self.respawn();
        wait_for("the server to answer", || {
            let answer = self.try_api("GET", "/healthz", None).ok()?;
            (answer.0 == 200).then_some(())
        });
    }

    fn respawn(&mut self) {
        self.process = spawn(
            self.dir.path(),
            &self.instance,
            &self.engine,
            &self.extra,
            &self.prefix,
        );
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The command line, as root.
    pub fn plimsoll(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.env("PLIMSOLL_API_SOCKET", self.path("api.sock"));
        said(&command.args(args).output().unwrap())
    }

    /// Asks the API as root.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_api(method, path, body).expect("the API answers")
    }

    fn try_api(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<(u16, Value)> {
        let body = body.map(Value::to_string);
        let (status, text) = http(&self.path("api.sock"), method, path, &[], body.as_deref())?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    /// Asks the API with headers of one's own and a body that need not be JSON.
    pub fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> (u16, Value) {
        let (status, text) = http(&self.path("api.sock"), method, path, headers, body).unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.api("GET", path, None);
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.api("POST", path, Some(&body));
        assert!((200..300).contains(&status), "POST {path}: {answer}");
        answer
    }

    pub fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.api("PUT", path, Some(&body));
        assert_eq!(status, 200, "PUT {path}: {answer}");
        answer
    }

    /// A user with a uid of their own and these limits.
    pub fn tenant(&self, name: &str, uid: u32, limits: Value) -> Tenant {
        self.post("/api/users", json!({"name": name, "osUid": uid}));
        self.put(&format!("/api/quotas/user/{name}"), limits);
        Tenant {
            uid,
            host: format!("unix://{}", self.path("docker.sock").display()),
        }
    }

    pub fn usage(&self, user: &str) -> Value {
        self.get(&format!("/api/usage/user/{user}"))
    }

    /// The container of this name as the ledger has it.
    pub fn container(&self, user: &str, name: &str) -> Option<Value> {
        let all = self.get(&format!("/api/containers?user={user}"));
        let items = all["items"].as_array().unwrap().clone();
        items.into_iter().find(|c| c["containerName"] == name)
    }

    /// The docker CLI past Plimsoll, as the host's administrator.
    pub fn docker(&self, args: &[&str]) -> Output {
        Command::new("docker")
            .args(["-H", &self.engine])
            .args(args)
            .output()
            .expect("docker runs")
    }

    pub fn full_id(&self, user: &str, name: &str) -> String {
        let container = self
            .container(user, name)
            .expect("the container is in the ledger");
        container["containerId"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let label = format!("label=plimsoll.instance={}", self.instance);
        if !self.engine.contains("nonexistent") {
            let listed = self.docker(&["ps", "-aq", "--filter", &label]);
            let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
            for id in ids.split_whitespace() {
                self.docker(&["rm", "-f", id]);
            }
            let listed = self.docker(&["network", "ls", "-q", "--filter", &label]);
            let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
            for id in ids.split_whitespace() {
                self.docker(&["network", "rm", id]);
            }
        }
        if !self.engine.contains("nonexistent") {
            let listed = self.docker(&["volume", "ls", "-q", "--filter", &label]);
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            for name in names.split_whitespace() {
                self.docker(&["volume", "rm", name]);
            }
        }
        let _ = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
        remove_cgroups(&self.instance);
        clear_mounts(&Path::new("/run/plimsoll-mounts").join(&self.instance));
    }
}

/// Mounts that outlive their server. Never a recursive removal: what is mounted there is somebody's.
fn clear_mounts(dir: &Path) {
    for container in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        for mount in std::fs::read_dir(container.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = Command::new("umount").arg("-l").arg(mount.path()).output();
            let _ = std::fs::remove_dir(mount.path());
        }
        let _ = std::fs::remove_dir(container.path());
    }
    let _ = std::fs::remove_dir(dir);
}

pub fn make_authority(data_dir: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["ca", "init", "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A port that nobody listens on, below those that the kernel gives to connections meanwhile, and another
/// one each time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 80).unwrap() * 100;
    let try_next = || {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .is_ok()
            .then_some(port)
    };
    (0..1000).find_map(|_| try_next()).expect("a free port")
}

fn spawn(dir: &Path, instance: &str, engine: &str, extra: &[String], prefix: &[String]) -> Child {
    let port = free_port();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    let mut words = prefix.iter().map(String::as_str).collect::<Vec<_>>();
    words.extend([env!("CARGO_BIN_EXE_plimsoll"), "serve"]);
    Command::new(words[0])
        .args(&words[1..])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen", &format!("127.0.0.1:{port}"), "--engine", engine])
        .args(["--instance", instance])
        .arg("--gateway")
        .arg(format!("unix://{}", dir.join("docker.sock").display()))
        .arg("--api-socket")
        .arg(dir.join("api.sock"))
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the server starts")
}

/// Cgroups that outlive their containers on v1, deepest first.
fn remove_cgroups(instance: &str) {
    let roots = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    for root in roots {
        remove_tree(&root.path().join(instance));
    }
}

fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// One HTTP request over a unix socket, on a connection of its own.
pub fn http(
    socket: &Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> std::io::Result<(u16, String)> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let typed = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if body.is_some() && !typed {
        head.push_str("Content-Type: application/json\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    head.push_str(body.unwrap_or_default());
    exchange(socket, head.as_bytes())
}

/// Sends bytes as they are; reads one response.
pub fn exchange(socket: &Path, bytes: &[u8]) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server that has refused may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Ok((
        status,
        if chunked {
            dechunk(rest)
        } else {
            rest.to_owned()
        },
    ))
}

fn dechunk(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        if size == 0 || after.len() < size {
            break;
        }
        out.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    out
}

/// Sends bytes to a socket under another uid, by a process of its own: who calls is the process.
pub fn as_uid_raw(uid: u32, socket: &Path, bytes: &[u8]) -> (u16, String) {
    let script = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX)\ns.settimeout(30)\ns.connect(sys.argv[1])\n\
        data=sys.stdin.buffer.read()\n\
        try:\n    s.sendall(data)\nexcept OSError:\n    pass\n\
        while True:\n\
        \x20   try:\n        b=s.recv(65536)\n    except OSError:\n        break\n\
        \x20   if not b: break\n    sys.stdout.buffer.write(b)\n";
    let mut child = Command::new("/usr/bin/env")
        .args(["python3", "-c", script])
        .arg(socket)
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    (status, text)
}

pub fn as_uid(
    uid: u32,
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> (u16, Value) {
    let body = body.unwrap_or_default();
    let typed = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{typed}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, text) = as_uid_raw(uid, socket, request.as_bytes());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Waits until `found` gives something.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A person at the host with a uid and the ordinary docker CLI.
pub struct Tenant {
    pub uid: u32,
    pub host: String,
}

/// A file system of its own and of this size, gone with the value. Declared before the server on it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "plimsoll"])
            .arg(at)
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Self(at.to_owned())
    }

    /// Leaves no room at all.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Tenant {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .uid(self.uid)
            .gid(self.uid)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("DOCKER_HOST", &self.host)
            .current_dir("/")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub fn docker(&self, args: &[&str]) -> Said {
        said(&self.command(args).output().expect("docker runs"))
    }

    /// Runs docker and expects it to succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.docker(args);
        assert_eq!(said.code, 0, "docker {args:?}: {} {}", said.out, said.err);
        said.out.trim().to_owned()
    }

    /// Runs docker and expects it to fail; returns what it complained about.
    pub fn refused(&self, args: &[&str]) -> String {
        let said = self.docker(args);
        assert_ne!(
            said.code, 0,
            "docker {args:?} was not refused: {}",
            said.out
        );
        said.err
    }

    pub fn with_input(&self, args: &[&str], input: &str) -> Said {
        fed(&mut self.command(args), input.as_bytes())
    }

    /// Runs docker under a terminal of 31 lines of 101 characters.
    pub fn in_terminal(&self, args: &str) -> Said {
        let mut command = Command::new("script");
        command
            .args([
                "-qec",
                &format!("stty rows 31 cols 101; docker {args}"),
                "/dev/null",
            ])
            .uid(self.uid)
            .gid(self.uid)
            .env("HOME", "/nonexistent")
            .env("DOCKER_HOST", &self.host)
            .current_dir("/")
            .stdin(Stdio::null());
        said(&command.output().expect("script runs"))
    }
}

/// Runs a command with bytes at its input.
pub fn fed(command: &mut Command, input: &[u8]) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that has refused may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    said(&output)
}

pub fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `docker events`, read as they come. The engine itself keeps only the last 256.
pub struct Following {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    pub fn start(tenant: &Tenant, format: &str) -> Self {
        let mut command = tenant.command(&[
            "events",
            "--since",
            "1m",
            "--filter",
            "type=container",
            "--format",
            format,
        ]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Everything up to and including `last`.
    pub fn until(&mut self, last: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line| line != last) {
            seen.push(self.lines.next().expect("events go on").unwrap());
        }
        seen
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
