//! A server in a process of its own, to be killed.
//!
//! It reads batches of operations, a JSON array a line, and prints `@N OUTCOME` as soon as the ledger
//! has answered operation N.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use plimsoll_store::Store;

use crate::op::{Op, Outcome, claim_host, perform_one};

pub(crate) const DIRECTORY: &str = "PLIMSOLL_SIM_DIRECTORY";

pub(crate) struct Server {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<(usize, Outcome)>,
}

impl Server {
    pub(crate) fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "server", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let requests = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (answered, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test harness has things to say as well.
                let Some((n, outcome)) = line.strip_prefix('@').and_then(|l| l.split_once(' '))
                else {
                    continue;
                };
                // A line that the kill cut in two was not an answer.
                if let (Ok(n), Ok(outcome)) = (n.parse(), serde_json::from_str(outcome)) {
                    let _ = answered.send((n, outcome));
                }
            }
        });
        Self {
            child,
            requests,
            answers,
        }
    }

    pub(crate) fn send<'a>(&mut self, batch: impl Iterator<Item = &'a Op>) {
        let batch: Vec<&Op> = batch.collect();
        let mut line = serde_json::to_string(&batch).expect("operations are plain");
        line.push('\n');
        self.requests
            .write_all(line.as_bytes())
            .expect("the server reads");
    }

    /// Kills the server after `count` answers and returns every answer it gave.
    pub(crate) fn kill_after(mut self, count: usize) -> Vec<(usize, Outcome)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.push(self.answers.recv().expect("the server answers everything"));
        }
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
        // What it said before it died and was not read yet.
        seen.extend(self.answers.iter());
        seen
    }
}

/// The server's side.
pub(crate) fn serve(dir: &Path) {
    let store = Store::open(dir, 0).expect("the ledger opens");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut numbered = 0;
    // Batches are taken in while earlier ones are under way, in the order they were sent.
    let (taken, mut batches) = tokio::sync::mpsc::unbounded_channel::<Vec<Op>>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let batch = serde_json::from_str(&line).expect("operations");
            if taken.send(batch).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        claim_host(&store).await;
        let mut under_way = tokio::task::JoinSet::new();
        while let Some(batch) = batches.recv().await {
            for op in batch {
                let (store, n) = (store.clone(), numbered);
                numbered += 1;
                under_way.spawn(async move {
                    let outcome = perform_one(&store, op).await;
                    let outcome = serde_json::to_string(&outcome).expect("plain");
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "@{n} {outcome}").expect("somebody listens");
                });
            }
            // So that each is queued before the next batch is.
            tokio::task::yield_now().await;
        }
        under_way.join_all().await;
    });
}
