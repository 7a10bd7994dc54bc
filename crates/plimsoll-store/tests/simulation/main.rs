//! Thousands of random operations on a ledger, alone and many at once, against a model of what it
//! should hold; the server is stopped, or killed in the middle of its work, again and again.
//!
//! After a kill, what was answered must be there, and what was not is there as a whole or not at all:
//! the ledger must equal the model after some prefix of the operations under way, none shorter than
//! what was answered. After every restart the ledger must be sound, its balances must equal sums over
//! the model's reservations, and a limit may be exceeded only where a violation says so.
//!
//! A failure prints the seed. `PLIMSOLL_SIM_SEED` runs one seed again, `PLIMSOLL_SIM_ROUNDS` makes a run
//! longer or shorter. Operations and their order follow from the seed; the moment of a kill does not.
#![allow(
    clippy::disallowed_methods,
    reason = "the test's own settings come from its environment"
)]

mod crash;
mod model;
mod op;
mod plan;

use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use plimsoll_store::Store;
use tempfile::TempDir;

use crate::crash::Server;
use crate::model::Model;
use crate::op::{Op, Outcome, perform, snapshot};
use crate::plan::{Planner, Random};

/// How many ledgers are made, and how often each is stopped or killed.
const LEDGERS: u64 = 6;
const ROUNDS: u64 = 16;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn the_ledger_is_its_model_whatever_happens() {
    let rounds = setting("PLIMSOLL_SIM_ROUNDS").unwrap_or(ROUNDS);
    if let Some(seed) = setting("PLIMSOLL_SIM_SEED") {
        return one_ledger(seed, rounds);
    }
    let first = std::hash::RandomState::new().build_hasher().finish();
    for n in 0..LEDGERS {
        one_ledger(first.wrapping_add(n), rounds);
    }
}

/// Says how to repeat a failure.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nto repeat: PLIMSOLL_SIM_SEED={}", self.0);
        }
    }
}

fn one_ledger(seed: u64, rounds: u64) {
    let _repeat = Repeat(seed);
    let dir = TempDir::new().expect("a directory");
    let mut random = Random::new(seed);
    let mut planner = Planner::new(seed);
    let mut model = Model::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for round in 0..rounds {
        if round % 2 == 0 {
            stopped(&runtime, dir.path(), &mut random, &mut planner, &mut model);
        } else {
            killed(dir.path(), &mut random, &mut planner, &mut model);
        }
        let store = Store::open(dir.path(), model.now_ms()).expect("the ledger opens again");
        runtime.block_on(check(&store, &model));
    }
}

/// A round that ends as servers should: every answer is seen.
fn stopped(
    runtime: &tokio::runtime::Runtime,
    dir: &Path,
    random: &mut Random,
    planner: &mut Planner,
    model: &mut Model,
) {
    let store = Store::open(dir, model.now_ms()).expect("the ledger opens");
    runtime.block_on(async {
        op::claim_host(&store).await;
        for _ in 0..random.below(12) {
            let batch = planner.batch(model, random.upto(24));
            let answers = perform(&store, batch.iter().map(|(op, _)| op.clone())).await;
            for ((op, expected), answer) in batch.iter().zip(answers) {
                assert_eq!(answer, *expected, "{op:?}");
            }
        }
        check(&store, model).await;
    });
}

/// A round that ends with SIGKILL, somewhere in the middle of the work that was asked for.
fn killed(dir: &Path, random: &mut Random, planner: &mut Planner, model: &mut Model) {
    let mut server = Server::start(dir);
    // What the ledger may hold afterwards: the model after each operation that was sent.
    let mut history = vec![model.clone()];
    let mut sent: Vec<(Op, Outcome)> = Vec::new();
    for _ in 0..random.upto(8) {
        let size = random.upto(24);
        for _ in 0..size {
            sent.push(planner.next(model));
            history.push(model.clone());
        }
        server.send(sent[sent.len() - size..].iter().map(|(op, _)| op));
    }
    let wait_for = random.below(sent.len() + 1);
    let answers = server.kill_after(wait_for);
    let mut certain = 0;
    for (n, answer) in answers {
        let (op, expected) = &sent[n];
        assert_eq!(answer, *expected, "{op:?}");
        certain = certain.max(n + 1);
    }
    let store = Store::open(dir, model.now_ms()).expect("the ledger opens after a crash");
    let held = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(snapshot(&store));
    let matching = (certain..history.len()).find(|n| history[*n].snapshot() == held);
    let Some(n) = matching else {
        let expected = history[certain].snapshot();
        panic!(
            "after a kill the ledger is nothing that was asked for; {certain} of {} were answered\n\
             {}",
            sent.len(),
            expected.differences(&held)
        );
    };
    *model = history[n].clone();
}

async fn check(store: &Store, model: &Model) {
    let found = store.check().await.expect("a check");
    assert!(found.is_empty(), "the ledger is not sound: {found:#?}");
    let (held, expected) = (snapshot(store).await, model.snapshot());
    assert!(held == expected, "{}", expected.differences(&held));
}

/// The server that is killed: this program again, told by its environment.
#[test]
#[ignore = "run by the simulation"]
fn server() {
    if let Some(dir) = std::env::var_os(crash::DIRECTORY) {
        crash::serve(Path::new(&dir));
    }
}
