//! Facts over a limit open violations, and whatever ends the excess closes them.

use plimsoll_core::quota::Mode;
use plimsoll_core::{Dimension, LevelKind, State};
use plimsoll_store::{Measured, QuotaChange, ViolationKind, ViolationRecord};

use crate::world::{World, container, cpu, engine_id};

async fn open(w: &World) -> Vec<(String, Dimension, u64, u64)> {
    let mut found: Vec<_> = w
        .store
        .violations(None, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|v| (v.level, v.dimension, v.current, v.limit))
        .collect();
    found.sort();
    found
}

async fn all(w: &World) -> Vec<ViolationRecord> {
    w.store.violations(Some(0), 100).await.unwrap()
}

#[tokio::test]
async fn a_fact_over_the_limit_is_charged_and_held_against_it() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(3000)).await;
    w.store.stopped(id, w.now()).await.unwrap();
    w.set(ada.0, Dimension::Cpu, 1000).await;
    assert!(open(&w).await.is_empty(), "nothing runs");
    w.store.running(id, w.now()).await.unwrap();
    let over = ("user".to_owned(), Dimension::Cpu, 3000, 1000);
    assert_eq!(open(&w).await, [over]);
    let refused = w.reserve(ada, cpu(1)).await;
    assert!(!refused.decision.allowed, "requests are refused meanwhile");
    w.store.resized(id, container(3500), w.now()).await.unwrap();
    assert_eq!(open(&w).await[0].2, 3500);
    w.store.stopped(id, w.now()).await.unwrap();
    assert!(open(&w).await.is_empty());
    let kept = all(&w).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].peak, kept[0].current), (3500, 0));
    assert_eq!(kept[0].kind, ViolationKind::Reserved);
    assert!(kept[0].closed_ms.is_some());
    w.sound().await;
}

#[tokio::test]
async fn one_that_closes_and_opens_within_a_millisecond_is_another_one() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(3000)).await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    for _ in 0..3 {
        w.store.stopped(id, w.now()).await.unwrap();
        w.store.running(id, w.now()).await.unwrap();
    }
    assert_eq!(open(&w).await.len(), 1);
    assert_eq!(all(&w).await.len(), 4);
    w.sound().await;
}

#[tokio::test]
async fn a_lowered_limit_kills_nothing_and_is_over_until_it_fits() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(3000)).await;
    let over = |limit| vec![("user".to_owned(), Dimension::Cpu, 3000, limit)];
    w.set(ada.0, Dimension::Cpu, 2000).await;
    assert_eq!(open(&w).await, over(2000));
    w.set(ada.0, Dimension::Cpu, 1000).await;
    assert_eq!(open(&w).await, over(1000));
    // Shrinking always passes, and ends it when it is enough.
    let resize = |milli| w.store.resize(id, container(milli), w.deed());
    assert!(resize(2500).await.unwrap().decision.allowed);
    assert_eq!(open(&w).await[0].2, 2500);
    assert!(!resize(2600).await.unwrap().decision.allowed);
    assert!(resize(1000).await.unwrap().decision.allowed);
    assert!(open(&w).await.is_empty());
    // A raised limit ends one too.
    w.set(ada.0, Dimension::Cpu, 500).await;
    assert_eq!(open(&w).await.len(), 1);
    w.set(ada.0, Dimension::Cpu, 1000).await;
    assert!(open(&w).await.is_empty());
}

#[tokio::test]
async fn less_allotment_than_borrowed_leaves_the_pool_over() {
    let w = World::new().await;
    let (ada, bob, ml) = (w.user("ada").await, w.user("bob").await, w.team("ml").await);
    w.join(ml, ada, 2000).await;
    w.join(ml, bob, 1000).await;
    w.set(ml.0, Dimension::Cpu, 500).await;
    let id = w.run(ada, container(2500)).await;
    assert!(open(&w).await.is_empty());
    w.set(ml.0, Dimension::Cpu, 400).await;
    assert_eq!(
        open(&w).await,
        [("pool".to_owned(), Dimension::Cpu, 500, 400)]
    );
    w.set(ml.0, Dimension::Cpu, 500).await;
    assert!(open(&w).await.is_empty());
    w.join(ml, ada, 1000).await;
    let team = ("team".to_owned(), Dimension::Cpu, 2500, 2500);
    assert_eq!(
        open(&w).await,
        [("pool".to_owned(), Dimension::Cpu, 1500, 500)]
    );
    assert!(
        !open(&w).await.contains(&team),
        "the team is full, not over"
    );
    w.store
        .remove_member(ml, bob, false, false, w.actor())
        .await
        .unwrap();
    let levels: Vec<_> = open(&w).await.into_iter().map(|v| v.0).collect();
    assert_eq!(levels, ["pool", "team"]);
    w.store.release(id, w.now()).await.unwrap();
    assert!(open(&w).await.is_empty());
    w.sound().await;
}

#[tokio::test]
async fn a_level_that_is_off_is_over_nothing() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.run(ada, container(3000)).await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let mode = |mode| {
        let change = QuotaChange {
            mode: Some(mode),
            ..QuotaChange::default()
        };
        w.store.change_quota(ada.0, change, w.actor())
    };
    mode(Mode::Shadow).await.unwrap();
    assert_eq!(open(&w).await.len(), 1);
    mode(Mode::Off).await.unwrap();
    assert!(open(&w).await.is_empty());
    mode(Mode::Enforce).await.unwrap();
    assert_eq!(open(&w).await.len(), 1);
}

#[tokio::test]
async fn adoption_and_late_containers_are_charged_over_the_limit() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let pending = w
        .reserve(ada, container(1000))
        .await
        .reservation
        .unwrap()
        .id;
    w.store.void(pending, w.now()).await.unwrap();
    let new = w.request(w.claim(ada, container(1000)));
    let adopted = w
        .store
        .adopt(new, engine_id(1), State::Active)
        .await
        .unwrap();
    assert!(open(&w).await.is_empty());
    w.store
        .bound(pending, engine_id(2), State::Active, w.now())
        .await
        .unwrap();
    assert_eq!(
        open(&w).await,
        [("user".to_owned(), Dimension::Cpu, 2000, 1000)]
    );
    w.store.release(adopted.id, w.now()).await.unwrap();
    assert!(open(&w).await.is_empty());
    w.sound().await;
}

#[tokio::test]
async fn measured_use_opens_and_closes_its_own() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let measured = |used| Measured {
        level: LevelKind::User,
        entity: ada.0,
        name: "ada".into(),
        dimension: Dimension::Memory,
        limit: Some(100),
        used,
    };
    for (used, opened) in [(100, 0), (101, 1), (150, 1), (100, 0), (120, 1)] {
        w.store
            .follow_use(vec![measured(used)], w.now())
            .await
            .unwrap();
        assert_eq!(open(&w).await.len(), opened, "{used}");
    }
    let kept = all(&w).await;
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().any(|v| v.peak == 150));
    // A deletion leaves nothing open behind.
    w.store.delete_user(ada, false, w.actor()).await.unwrap();
    assert!(open(&w).await.is_empty());
}
