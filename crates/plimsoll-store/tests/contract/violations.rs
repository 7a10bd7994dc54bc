//! Facts over a limit open violations, and whatever ends the excess closes them.

use plimsoll_core::entity::UserId;
use plimsoll_core::quota::Mode;
use plimsoll_core::{Dimension, LevelKind, State};
use plimsoll_store::{Measured, QuotaChange, ViolationFilter, ViolationKind, ViolationRecord};

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

const MEMORY: &[Dimension] = &[Dimension::Memory];

fn measured(entity: UserId, used: u64) -> Measured {
    Measured {
        level: LevelKind::User,
        entity: entity.0,
        name: "ada".into(),
        dimension: Dimension::Memory,
        limit: Some(1000),
        used,
        behind: None,
    }
}

#[tokio::test]
async fn measured_use_opens_above_the_limit_and_closes_when_it_has_held_for_a_while() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    for (used, is_calm) in [
        // Within what readings waver by.
        (1050, None),
        (1051, Some(false)),
        (1500, Some(false)),
        // Still above the limit.
        (1001, Some(false)),
        // It holds, but not for long.
        (1000, Some(true)),
        (1002, Some(false)),
        (900, Some(true)),
        (1000, Some(true)),
        (900, None),
        (1040, None),
        (1200, Some(false)),
    ] {
        let all = vec![measured(ada, used)];
        w.store.follow_use(MEMORY, all, 20, w.now()).await.unwrap();
        let open = w.store.violations(None, 100).await.unwrap();
        let found = open.first().map(|v| v.calm_ms.is_some());
        assert_eq!(found, is_calm, "{used}");
        w.pass(10);
    }
    let kept = all(&w).await;
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().any(|v| v.peak == 1500));
    // A deletion leaves nothing open behind.
    w.store.delete_user(ada, false, w.actor()).await.unwrap();
    assert!(open(&w).await.is_empty());
}

#[tokio::test]
async fn who_is_not_measured_any_more_uses_nothing_in_what_was_measured() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let follow = |dimensions, all| w.store.follow_use(dimensions, all, 0, w.now());
    follow(MEMORY, vec![measured(ada, 2000)]).await.unwrap();
    follow(&[Dimension::Storage], Vec::new()).await.unwrap();
    assert_eq!(open(&w).await.len(), 1, "it was not looked at");
    follow(MEMORY, Vec::new()).await.unwrap();
    assert!(open(&w).await.is_empty());
}

#[tokio::test]
async fn who_is_throttled_is_so_while_the_kernel_says_it() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let throttled = |all| w.store.follow_throttled(all, 0, w.now());
    throttled(vec![measured(ada, 1000)]).await.unwrap();
    let found = all(&w).await;
    assert_eq!(found[0].kind, ViolationKind::Throttled);
    assert_eq!((found[0].current, found[0].limit), (1000, 1000));
    // Each kind is followed by itself.
    w.store
        .follow_use(MEMORY, Vec::new(), 0, w.now())
        .await
        .unwrap();
    assert_eq!(open(&w).await.len(), 1);
    throttled(Vec::new()).await.unwrap();
    assert!(open(&w).await.is_empty());
}

#[tokio::test]
async fn a_violation_names_the_containers_behind_its_peak() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    w.run(bob, container(500)).await;
    let small = w.run(ada, container(1000)).await;
    let large = w.run(ada, container(3000)).await;
    w.set(ada.0, Dimension::Cpu, 2000).await;
    let behind = |v: &ViolationRecord| -> Vec<_> {
        let each = v.behind.iter();
        each.map(|b| (b.reservation, b.user.clone(), b.amount))
            .collect()
    };
    let both = [
        (large, "ada".to_owned(), 3000),
        (small, "ada".to_owned(), 1000),
    ];
    assert_eq!(behind(&all(&w).await[0]), both);
    // Less is no peak; more is.
    w.store.stopped(small, w.now()).await.unwrap();
    assert_eq!(behind(&all(&w).await[0]), both);
    w.store.running(small, w.now()).await.unwrap();
    let resized = w.store.resized(small, container(3500), w.now());
    resized.await.unwrap();
    assert_eq!(
        behind(&all(&w).await[0])[0],
        (small, "ada".to_owned(), 3500)
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    for user in [ada, bob] {
        w.run(user, container(3000)).await;
        w.set(user.0, Dimension::Cpu, 1000).await;
    }
    w.set(bob.0, Dimension::Storage, 1).await;
    w.set(bob.0, Dimension::Cpu, 3000).await;
    let any = ViolationFilter::default;
    for (filter, count) in [
        (any(), 3),
        (
            ViolationFilter {
                open: Some(true),
                ..any()
            },
            2,
        ),
        (
            ViolationFilter {
                open: Some(false),
                ..any()
            },
            1,
        ),
        (
            ViolationFilter {
                entity: Some(bob.0),
                ..any()
            },
            2,
        ),
        (
            ViolationFilter {
                dimension: Some(Dimension::Storage),
                ..any()
            },
            1,
        ),
        (
            ViolationFilter {
                level: Some(LevelKind::Team),
                ..any()
            },
            0,
        ),
        (
            ViolationFilter {
                kind: Some(ViolationKind::Used),
                ..any()
            },
            0,
        ),
        (
            ViolationFilter {
                since_ms: Some(i64::MAX),
                ..any()
            },
            2,
        ),
    ] {
        let found = w.store.violations_by(filter.clone(), 100).await.unwrap();
        assert_eq!(found.len(), count, "{filter:?}");
    }
}

#[tokio::test]
async fn closed_ones_are_forgotten_in_time_and_open_ones_never() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.run(ada, container(3000)).await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    w.set(ada.0, Dimension::Cpu, 3000).await;
    w.pass(1);
    w.set(ada.0, Dimension::Cpu, 1000).await;
    assert_eq!(all(&w).await.len(), 2);
    for (before_ms, rows) in [(w.now() - 1, 0), (w.now() + 1000, 1), (i64::MAX, 0)] {
        let step = w.store.forget_violations(before_ms, None).await.unwrap();
        assert_eq!((step.rows, step.next), (rows, None), "{before_ms}");
    }
    assert_eq!(open(&w).await.len(), 1);
}
