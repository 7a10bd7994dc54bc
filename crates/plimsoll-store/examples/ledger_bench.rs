//! How fast the ledger admits: durable reservations by 1 to 1,000 callers at once, whole lives of
//! reservations, and evaluations that charge nothing.
//!
//! Prints one JSON object a line: `{"name": ..., "n": ..., "value": ..., "unit": ...}`.
//!
//! ```text
//! cargo run --release -p plimsoll-store --example ledger_bench [DIRECTORY]
//! ```
//!
//! `DIRECTORY` decides which disk's fsync is measured; the system's temporary one by default.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock; nothing it measures does"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_core::entity::{DecisionId, ReservationId, TeamId, UserId};
use plimsoll_core::quota::Capacity;
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_core::{Amounts, Dimension, Limit};
use plimsoll_store::{
    Actor, Claim, Deed, NewMember, NewReservation, NewUser, Origin, QuotaChange, Role, Store,
    TeamChoice,
};
use uuid::Uuid;

const USERS: u64 = 50;
const NOW_MS: i64 = 1_750_000_000_000;
const HOST: &str = "bench";

/// Ids that rise as version 7 ids do, so that index pages fill as they do in service.
fn next_id() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let time = u128::from(NOW_MS.unsigned_abs() + n / 20);
    Uuid::from_u128(
        (time << 80) | (7 << 76) | (u128::from(n % 4096) << 64) | u128::from(scattered >> 2),
    )
}

fn actor() -> Actor {
    Actor {
        name: "bench".into(),
        at_ms: NOW_MS,
        reason: None,
    }
}

struct Bench {
    store: Store,
    users: Vec<UserId>,
}

impl Bench {
    async fn prepare(directory: &std::path::Path) -> Self {
        let store = Store::open(directory, NOW_MS).expect("a fresh ledger opens");
        let capacity = Capacity {
            cpu: MilliCpu(1 << 40),
            memory: Bytes(1 << 50),
        };
        store
            .claim_host(HOST.into(), capacity, NOW_MS)
            .await
            .expect("a host can be claimed");
        let team = TeamId(next_id());
        let name = "bench".parse().expect("a name");
        store
            .add_team(team, name, None, actor())
            .await
            .expect("a team can be added");
        let limits = Dimension::ALL
            .into_iter()
            .filter(|d| d.is_summed())
            .map(|d| (d, Limit::AtMost(1 << 50)))
            .collect();
        let change = QuotaChange {
            limits,
            ..QuotaChange::default()
        };
        store
            .change_quota(team.0, change, actor())
            .await
            .expect("a pool can be set");
        let mut users = Vec::new();
        for n in 0..USERS {
            let user = UserId(next_id());
            let new = NewUser {
                id: user,
                name: format!("user-{n}").parse().expect("a name"),
                email: None,
                os_uid: None,
                role: Role::Member,
                class: None,
            };
            store
                .add_user(new, actor())
                .await
                .expect("a user can be added");
            let place = NewMember {
                team,
                user,
                role: None,
                allotment: None,
                borrow: None,
                default: None,
                from_pool: false,
            };
            store
                .put_member(place, actor())
                .await
                .expect("a member can be added");
            users.push(user);
        }
        Self { store, users }
    }

    fn claim(&self, n: u64) -> Claim {
        let user = self.users[usize::try_from(n % USERS).expect("small")];
        Claim {
            user,
            team: TeamChoice::Default,
            project: Some("bench".into()),
            host: HOST.into(),
            amounts: Amounts::ZERO
                .with(Dimension::Cpu, 500)
                .with(Dimension::Memory, 256 << 20)
                .with(Dimension::Storage, 1 << 30)
                .with(Dimension::TempStorage, 64 << 20)
                .with(Dimension::Containers, 1)
                .with(Dimension::ConcurrentContainers, 1)
                .with(Dimension::Pids, 512),
        }
    }

    async fn reserve(&self, n: u64) -> ReservationId {
        let id = ReservationId(next_id());
        let new = NewReservation {
            id,
            kind: plimsoll_store::ObjectKind::Container,
            goes_with: None,
            host_mounts: Vec::new(),
            replaces: None,
            decision: DecisionId(next_id()),
            claim: self.claim(n),
            origin: Origin::Gateway,
            idempotency: None,
            container_name: Some(format!("c{n}")),
            image: Some("busybox".into()),
            expires_ms: NOW_MS + 60_000,
            now_ms: NOW_MS,
        };
        let admission = self.store.reserve(new).await.expect("the ledger answers");
        assert!(admission.decision.allowed, "{:?}", admission.decision);
        id
    }

    async fn life(&self, n: u64) {
        let id = self.reserve(n).await;
        let container = format!("{:064x}", id.0.as_u128());
        let deed = Deed {
            decision: DecisionId(next_id()),
            now_ms: NOW_MS,
        };
        let store = &self.store;
        store.commit(id, container, deed).await.expect("commit");
        store.stopped(id, NOW_MS).await.expect("stopped");
        store.release(id, NOW_MS).await.expect("release");
    }
}

fn print(name: &str, n: u64, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","n":{n},"value":{value:.1},"unit":"{unit}"}}"#);
}

fn report(name: &str, callers: u64, wall: Duration, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |permille: usize| {
        let i = (took.len() * permille / 1000).min(took.len() - 1);
        took[i].as_secs_f64() * 1e6
    };
    print(
        &format!("{name} throughput"),
        callers,
        took.len() as f64 / wall.as_secs_f64(),
        "1/s",
    );
    print(&format!("{name} p50"), callers, at(500), "us");
    print(&format!("{name} p99"), callers, at(990), "us");
}

/// `callers` tasks that each do `each` steps one after the other.
async fn measure<F, S>(bench: &Arc<Bench>, name: &str, callers: u64, each: u64, first: u64, step: F)
where
    F: Fn(Arc<Bench>, u64) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (bench, step) = (Arc::clone(bench), step.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for i in 0..each {
                let start = Instant::now();
                step(Arc::clone(&bench), first + caller * each + i).await;
                took.push(start.elapsed());
            }
            took
        });
    }
    let took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    report(name, callers, began.elapsed(), took);
}

fn evaluate(bench: &Arc<Bench>, threads: u64, each: u64) {
    let began = Instant::now();
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let bench = Arc::clone(bench);
            std::thread::spawn(move || {
                let mut took = Vec::new();
                for n in 0..each {
                    let claim = bench.claim(n);
                    let start = Instant::now();
                    let answer = bench.store.evaluate(&claim).expect("an answer");
                    took.push(start.elapsed());
                    assert!(answer.verdict.allowed());
                }
                took
            })
        })
        .collect();
    let took: Vec<Duration> = running
        .into_iter()
        .flat_map(|t| t.join().expect("no panic"))
        .collect();
    report("evaluate", threads, began.elapsed(), took);
}

/// Appends and syncs: what one commit costs on this disk at the least.
fn fsync(directory: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(directory.join("fsync")).expect("a file");
    let mut took = Vec::new();
    let began = Instant::now();
    for _ in 0..1000 {
        let start = Instant::now();
        file.write_all(&[7; 4096]).expect("room");
        file.sync_data().expect("a sync");
        took.push(start.elapsed());
    }
    report("fsync of 4 KiB", 1, began.elapsed(), took);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    fsync(directory.path());
    let bench = Arc::new(Bench::prepare(directory.path()).await);
    let mut first = 0;
    for (callers, each) in [(1, 5_000), (10, 3_000), (100, 600), (1000, 100)] {
        measure(
            &bench,
            "reserve",
            callers,
            each,
            first,
            |bench, n| async move {
                bench.reserve(n).await;
            },
        )
        .await;
        first += callers * each;
    }
    measure(&bench, "life", 100, 100, first, |bench, n| async move {
        bench.life(n).await;
    })
    .await;
    for threads in [1, 2] {
        evaluate(&bench, threads, 100_000);
    }
    // Evaluations while the ledger is written to: every commit makes them read again.
    let writing = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move {
            for n in 0..2_000 {
                bench.reserve(10_000_000 + n).await;
            }
        }
    });
    let beside = Arc::clone(&bench);
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let mut took = Vec::new();
        let mut n = 0;
        while !writing.is_finished() {
            let claim = beside.claim(n);
            let start = Instant::now();
            beside.store.evaluate(&claim).expect("an answer");
            took.push(start.elapsed());
            n += 1;
        }
        report("evaluate beside a writer", 1, began.elapsed(), took);
    })
    .await
    .expect("no panic");
    let found = bench.store.check().await.expect("a check");
    assert!(found.is_empty(), "{found:?}");
}
