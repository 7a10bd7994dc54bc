//! The other side of a channel: a real server that keeps what it takes.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::{free_port, make_authority, wait_for};

/// Signs what a webhook is sent.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub struct Sink {
    script: &'static str,
    args: Vec<String>,
    dir: tempfile::TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Sink {
    /// A mail server, not started yet.
    pub fn mail(args: &[&str]) -> Self {
        Self::new("mail.py", args)
    }

    /// A web server, not started yet.
    pub fn web(args: &[&str]) -> Self {
        let sink = Self::new("web.py", &[&[SECRET], args].concat());
        sink.answers("200");
        std::fs::write(sink.path("secret"), SECRET).unwrap();
        sink
    }

    fn new(script: &'static str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_authority(dir.path());
        for name in ["ca.pem", "server.pem", "server.key"] {
            let made = dir.path().join("tls").join(name);
            std::fs::copy(made, dir.path().join(name)).unwrap();
        }
        Self {
            script,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            dir,
            port: free_port(),
            process: None,
        }
    }

    pub fn start(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = script.join("tests/channels").join(self.script);
        // Debian's own, which has its packages.
        let child = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(self.dir.path())
            .arg(self.port.to_string())
            .args(&self.args)
            // It ends with its input.
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.process = Some(child);
        let server = (Ipv4Addr::LOCALHOST, self.port);
        wait_for("the sink to listen", || TcpStream::connect(server).ok());
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How a web server answers from now on.
    pub fn answers(&self, mode: &str) {
        std::fs::write(self.path("mode.new"), mode).unwrap();
        std::fs::rename(self.path("mode.new"), self.path("mode")).unwrap();
    }

    /// What is in one of its files.
    pub fn kept(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Waits until a file has so many lines.
    pub fn wait(&self, name: &str, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} lines in {name}"), || {
            let kept = self.kept(name);
            (kept.len() >= count).then_some(kept)
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The ids of what was kept, sorted.
pub fn ids(kept: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = kept.iter().map(|k| k["id"].to_string()).collect();
    ids.sort();
    ids
}
