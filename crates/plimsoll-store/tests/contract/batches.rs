//! Many callers in one transaction: each is decided on its own, and nobody takes another along.

use std::sync::Arc;

use plimsoll_core::Dimension;
use plimsoll_store::{NewReservation, StoreError};
use tokio::task::JoinSet;

use crate::world::{World, container, cpu, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_request_among_a_hundred_fails_alone() {
    let w = Arc::new(World::new().await);
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 8000).await;
    for d in [
        Dimension::Containers,
        Dimension::ConcurrentContainers,
        Dimension::Storage,
    ] {
        w.set(ada.0, d, 1 << 50).await;
    }
    let web = NewReservation {
        container_name: Some("web".into()),
        ..w.request(w.claim(ada, container(1)))
    };
    w.store.reserve(web).await.unwrap();
    for round in 0..5 {
        let mut callers = JoinSet::new();
        for n in 0..100 {
            let w = Arc::clone(&w);
            callers.spawn(async move {
                let name = if n == 50 {
                    "web".to_owned()
                } else {
                    format!("c{round}-{n}")
                };
                let new = NewReservation {
                    container_name: Some(name),
                    ..w.request(w.claim(ada, container(1)))
                };
                (n, w.store.reserve(new).await)
            });
        }
        for (n, outcome) in callers.join_all().await {
            match outcome {
                Err(StoreError::Conflict(_)) => assert_eq!(n, 50),
                outcome => assert!(n != 50 && outcome.unwrap().decision.allowed),
            }
        }
        assert_eq!(w.user_cpu(ada), 1 + 99 * (round + 1));
    }
    w.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_room_is_given_once() {
    let w = Arc::new(World::new().await);
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 700).await;
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let w = Arc::clone(&w);
        callers.spawn(async move { w.reserve(ada, cpu(100)).await.decision.allowed });
    }
    let admitted = callers.join_all().await.into_iter().filter(|a| *a).count();
    assert_eq!(admitted, 7);
    assert_eq!(w.user_cpu(ada), 700);
    w.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_quotas_and_people_share_batches_with_claims() {
    let w = Arc::new(World::new().await);
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    w.join(ml, ada, 0).await;
    let mut callers = JoinSet::new();
    for n in 0..120u64 {
        let w = Arc::clone(&w);
        callers.spawn(async move {
            match n % 4 {
                0 => w.join(ml, ada, n * 10).await,
                1 => drop(w.set(ml.0, Dimension::Cpu, n * 10).await),
                2 => drop(
                    w.store
                        .add_user(w.new_user(&format!("u{}", n / 8)), w.actor())
                        .await,
                ),
                _ => drop(w.reserve(ada, cpu(50)).await),
            }
        });
    }
    callers.join_all().await;
    w.sound().await;
}

/// A balance that does not hold its parts is a bug or tampering. Deciding on it panics; the writer
/// answers that caller and goes on.
#[tokio::test]
async fn a_panic_in_one_write_does_not_end_the_writer() {
    let w = World::new().await;
    let (ada, bob, ml) = (w.user("ada").await, w.user("bob").await, w.team("ml").await);
    w.join(ml, ada, 100).await;
    w.set(ml.0, Dimension::Cpu, 500).await;
    let named = NewReservation {
        container_name: Some("web".into()),
        ..w.request(w.claim(ada, container(400)))
    };
    let id = w
        .store
        .reserve(named)
        .await
        .unwrap()
        .reservation
        .unwrap()
        .id;
    w.store
        .commit(id, w.container_of(id), w.deed())
        .await
        .unwrap();
    let team_key = format!("team:{ml}");
    w.shell()
        .execute(
            "UPDATE account SET overflow = '[]' WHERE key = ?1",
            [&team_key],
        )
        .unwrap();
    let found = w.store.check().await.unwrap();
    assert!(found.iter().any(|line| line.contains("ml")), "{found:?}");
    let new = w.request(w.claim(ada, container(400)));
    assert_refused!(
        w.store.reserve(new).await,
        StoreError::Aborted(_),
        "panicked"
    );
    assert!(w.reserve(bob, cpu(1)).await.decision.allowed);
    w.store.ping().await.unwrap();
}

/// The file is locked by a shell: the caller hears so at the deadline, and what they gave up on does
/// not happen behind their back. Their next try with the same key is a new one.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_at_the_deadline_does_not_happen_later() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let request = || NewReservation {
        idempotency: key("ada", "k", "body"),
        kind: plimsoll_store::ObjectKind::Container,
        ..w.request(w.claim(ada, container(1000)))
    };
    let shell = w.shell();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The paused clock jumps to the deadline, because nothing else can happen.
    assert_refused!(w.store.reserve(request()).await, StoreError::Busy, "again");
    tokio::time::resume();
    shell.execute_batch("COMMIT").unwrap();
    w.store.ping().await.unwrap();
    assert_eq!(w.user_cpu(ada), 0);
    let retry = w.store.reserve(request()).await.unwrap();
    assert!(retry.decision.allowed && !retry.replayed);
    assert_eq!(w.user_cpu(ada), 1000);
    w.sound().await;
}

/// Where no transaction can begin, nothing is written outside of one.
#[tokio::test]
async fn a_batch_that_cannot_begin_runs_nothing() {
    let w = World::new().await;
    let shell = w.shell();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let adding = w.store.add_user(w.new_user("ada"), w.actor());
    assert_refused!(adding.await, StoreError::Busy);
    shell.execute_batch("COMMIT").unwrap();
    w.store.ping().await.unwrap();
    assert_refused!(w.store.user("ada"), StoreError::NotFound { .. });
    w.user("ada").await;
}
