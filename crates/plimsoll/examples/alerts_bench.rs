//! What one look at the alerts costs: `cargo run --release --example alerts_bench`.

#![allow(
    clippy::disallowed_methods,
    reason = "a measurement is outside the server: it looks at the clock"
)]

use std::time::{Duration, Instant};

use plimsoll::alerts::{Sample, evaluate};
use plimsoll::config::Alerts;
use plimsoll_core::Dimension;
use plimsoll_core::alert::default_rules;
use plimsoll_core::entity::UserId;
use plimsoll_core::notice::About;
use plimsoll_store::Store;
use uuid::Uuid;

/// Subjects, each in every dimension that is charged.
const SUBJECTS: u128 = 1000;
const LOOKS: u32 = 50;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), 0).expect("a ledger");
    let rules = default_rules();
    let (mut worst, mut sum) = (Duration::ZERO, Duration::ZERO);
    for look in 0..LOOKS {
        let now_ms = i64::from(look) * 15_000;
        let sample = |subject: u128, d: Dimension| Sample {
            about: About::user(UserId(Uuid::from_u128(subject)), format!("user{subject}")),
            part: d.name().to_owned(),
            // A tenth of them is near a limit, and some come and go.
            value: if subject.is_multiple_of(10) {
                760 + u64::from(look % 5) * 60
            } else {
                300
            },
            title: format!("{d} at some % of the quota"),
            amount: "1 of 2".to_owned(),
            by: Vec::new(),
        };
        let samples = (0..SUBJECTS)
            .flat_map(|subject| Dimension::CHARGED.map(|d| (&rules[0], sample(subject, d))))
            .collect();
        let known = store.alerts().await.expect("alerts");
        let began = Instant::now();
        let outcome = evaluate(&rules, known, samples, &[], &Alerts::default(), now_ms);
        let took = began.elapsed();
        worst = worst.max(took);
        sum += took;
        let written = store.follow_alerts(outcome.changed, outcome.told, now_ms);
        written.await.expect("written");
    }
    println!(
        "{SUBJECTS} subjects in {} dimensions: {:?} a look, {worst:?} at worst",
        Dimension::CHARGED.len(),
        sum / LOOKS
    );
}
