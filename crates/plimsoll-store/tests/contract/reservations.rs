//! The life of a reservation: requests are admitted, facts are recorded, and neither happens twice.

use plimsoll_core::entity::{DecisionId, ReservationId};
use plimsoll_core::quota::Capacity;
use plimsoll_core::units::{AMOUNT_MAX, Bytes, MilliCpu};
use plimsoll_core::{Dimension, LevelKind, State};
use plimsoll_store::{NewReservation, ObjectKind, ReservationFilter, StoreError};

use crate::world::{CAPACITY, HOST, World, container, cpu, engine_id, key};

#[tokio::test]
async fn from_reserve_to_release() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let admission = w.reserve(ada, container(1000)).await;
    assert!(admission.decision.allowed && !admission.replayed);
    let pending = admission.reservation.unwrap();
    assert_eq!(pending.state, State::Pending);
    assert_eq!(w.store.reservation(pending.id).unwrap(), pending);
    assert_eq!(w.user_cpu(ada), 1000);

    let bound = w.store.commit(pending.id, engine_id(1), w.deed()).await;
    let bound = bound.unwrap().reservation.unwrap();
    assert_eq!(bound.state, State::Active);
    assert_eq!(bound.expires_ms, None);
    assert_eq!(w.store.reservation(pending.id).unwrap(), bound);
    let found = w.store.by_container(HOST, &engine_id(1)).unwrap();
    assert_eq!(found.unwrap().id, pending.id);

    let stopped = w.store.stopped(pending.id, w.now()).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    assert_eq!(w.user_cpu(ada), 0, "what runs is freed");
    let standing = w
        .store
        .standing(plimsoll_core::entity::EntityKind::User, ada.0)
        .unwrap();
    assert_eq!(
        standing.reserved.get(Dimension::Containers),
        1,
        "what exists stays"
    );

    let started = w.store.start(pending.id, w.deed()).await.unwrap();
    assert!(started.decision.allowed);
    assert_eq!(started.decision.action, "start");
    assert_eq!(w.user_cpu(ada), 1000);
    let resized = w.store.resize(pending.id, container(1500), w.deed()).await;
    assert_eq!(resized.unwrap().reservation.unwrap().claim, container(1500));
    assert_eq!(w.user_cpu(ada), 1500);

    w.pass(5000);
    let released = w.store.release(pending.id, w.now()).await.unwrap();
    assert_eq!(released.changed_ms, w.now());
    assert_eq!(released.created_ms, w.now() - 5000);
    assert_eq!(released.state, State::Released);
    assert_eq!(w.user_cpu(ada), 0);
    let live = w.store.reservations(ReservationFilter::default()).await;
    assert!(live.unwrap().is_empty());
    w.sound().await;
}

#[tokio::test]
async fn facts_and_steps_twice_are_once() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(1000)).await;
    let container_id = w.container_of(id);
    let again = w
        .store
        .commit(id, container_id.clone(), w.deed())
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(w.user_cpu(ada), 1000);
    let again = w.store.start(id, w.deed()).await.unwrap();
    assert!(again.replayed, "what runs is charged already");
    for _ in 0..2 {
        w.store.stopped(id, w.now()).await.unwrap();
        assert_eq!(w.user_cpu(ada), 0);
    }
    for _ in 0..2 {
        w.store.running(id, w.now()).await.unwrap();
        assert_eq!(w.user_cpu(ada), 1000);
    }
    let bound = w
        .store
        .bound(id, container_id.clone(), State::Active, w.now());
    bound.await.unwrap();
    assert_eq!(w.user_cpu(ada), 1000);
    for _ in 0..2 {
        w.store.release(id, w.now()).await.unwrap();
        assert_eq!(w.user_cpu(ada), 0);
    }
    // Nothing wakes what is gone.
    w.store.running(id, w.now()).await.unwrap();
    w.store.stopped(id, w.now()).await.unwrap();
    w.store.resized(id, container(5), w.now()).await.unwrap();
    w.store.void(id, w.now()).await.unwrap();
    assert_eq!(w.user_cpu(ada), 0);
    assert_eq!(w.store.reservation(id).unwrap().state, State::Released);
    for refused in [
        w.store.start(id, w.deed()).await,
        w.store.resize(id, container(1), w.deed()).await,
        w.store.commit(id, engine_id(99), w.deed()).await,
    ] {
        assert_refused!(refused, StoreError::Conflict(_));
    }
    let late = w.store.commit(id, container_id, w.deed()).await.unwrap();
    assert_eq!(late.reservation.unwrap().state, State::Released);
    w.sound().await;
}

#[tokio::test]
async fn one_key_one_charge() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    let with = |user, caller: &str, body: &str| NewReservation {
        idempotency: key(caller, "k", body),
        kind: plimsoll_store::ObjectKind::Container,
        ..w.request(w.claim(user, container(1000)))
    };
    let first = w.store.reserve(with(ada, "ada", "a")).await.unwrap();
    let again = w.store.reserve(with(ada, "ada", "a")).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again.reservation, first.reservation);
    assert_eq!(again.decision, first.decision);
    assert_eq!(w.user_cpu(ada), 1000);
    let other = w.store.reserve(with(ada, "ada", "b")).await;
    assert_refused!(other, StoreError::Conflict(_), "k");
    // Keys of different callers never meet.
    let theirs = w.store.reserve(with(bob, "bob", "b")).await.unwrap();
    assert!(!theirs.replayed);
    // A refusal is not remembered: the same request may fit later.
    w.set(ada.0, Dimension::Cpu, 1500).await;
    let with_key = || NewReservation {
        idempotency: key("ada", "k2", "c"),
        kind: plimsoll_store::ObjectKind::Container,
        ..w.request(w.claim(ada, container(1000)))
    };
    let refused = w.store.reserve(with_key()).await.unwrap();
    assert!(refused.reservation.is_none());
    let id = first.reservation.unwrap().id;
    w.store.void(id, w.now()).await.unwrap();
    assert!(w.store.reserve(with_key()).await.unwrap().decision.allowed);
    // Nor is a voided one charged by a repetition; committing it is.
    let replay = w.store.reserve(with(ada, "ada", "a")).await.unwrap();
    assert_eq!(replay.reservation.unwrap().state, State::Void);
    assert_eq!(w.user_cpu(ada), 1000);
    w.sound().await;
}

#[tokio::test]
async fn a_late_commit_is_admitted_again() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1500).await;
    let id = w
        .reserve(ada, container(1000))
        .await
        .reservation
        .unwrap()
        .id;
    w.store.void(id, w.now()).await.unwrap();
    assert_eq!(w.user_cpu(ada), 0);
    let late = w.store.commit(id, engine_id(1), w.deed()).await.unwrap();
    assert_eq!(late.reservation.unwrap().state, State::Active);
    assert_eq!(late.decision.action, "commit");
    assert_eq!(w.user_cpu(ada), 1000);
    // Refused where the room is taken meanwhile; it stays void.
    w.store.release(id, w.now()).await.unwrap();
    let id = w
        .reserve(ada, container(1000))
        .await
        .reservation
        .unwrap()
        .id;
    w.store.void(id, w.now()).await.unwrap();
    w.run(ada, container(1000)).await;
    let refused = w.store.commit(id, engine_id(2), w.deed()).await.unwrap();
    assert!(!refused.decision.allowed && refused.reservation.is_none());
    let r = w.store.reservation(id).unwrap();
    assert_eq!((r.state, r.container), (State::Void, None));
    w.sound().await;
}

#[tokio::test]
async fn a_late_commit_whose_name_is_taken_is_a_conflict_and_a_late_fact_is_not() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let named = || NewReservation {
        container_name: Some("web".into()),
        ..w.request(w.claim(ada, container(100)))
    };
    let first = w.store.reserve(named()).await.unwrap().reservation.unwrap();
    w.store.void(first.id, w.now()).await.unwrap();
    let second = w.store.reserve(named()).await.unwrap().reservation.unwrap();
    let taken = w.store.commit(first.id, engine_id(1), w.deed()).await;
    assert_refused!(taken, StoreError::Conflict(_), "web");
    assert_eq!(w.user_cpu(ada), 100);
    let bound = w
        .store
        .bound(first.id, engine_id(1), State::Active, w.now())
        .await
        .unwrap();
    assert_eq!(bound.container_name, None);
    assert_eq!(w.user_cpu(ada), 200);
    assert_eq!(
        w.store
            .by_name(ada, ObjectKind::Container, "web")
            .unwrap()
            .unwrap()
            .id,
        second.id
    );
    w.sound().await;
}

#[tokio::test]
async fn commit_after_destroy_equals_release() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.reserve(ada, container(100)).await.reservation.unwrap().id;
    w.store.release(id, w.now()).await.unwrap();
    let late = w.store.commit(id, engine_id(1), w.deed()).await.unwrap();
    let r = late.reservation.unwrap();
    assert_eq!(r.state, State::Released);
    assert_eq!(r.container, Some(engine_id(1)));
    assert_eq!(w.user_cpu(ada), 0);
    w.sound().await;
}

#[tokio::test]
async fn voiding_what_is_bound_does_nothing() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(1000)).await;
    let r = w.store.void(id, w.now()).await.unwrap();
    assert_eq!(r.state, State::Active);
    assert_eq!(w.user_cpu(ada), 1000);
    let nothing = ReservationId(w.id());
    assert_refused!(
        w.store.void(nothing, w.now()).await,
        StoreError::NotFound { .. }
    );
}

#[tokio::test]
async fn a_key_binds_once_to_one_container() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let one = w.run(ada, container(100)).await;
    let two = w.reserve(ada, container(100)).await.reservation.unwrap().id;
    let taken = w.container_of(one);
    assert_refused!(
        w.store.commit(one, engine_id(77), w.deed()).await,
        StoreError::Conflict(_),
        "bound to container"
    );
    assert_refused!(
        w.store.commit(two, taken.clone(), w.deed()).await,
        StoreError::Conflict(_),
        "another reservation"
    );
    let bind = |id, container| w.store.bound(id, container, State::Active, w.now());
    assert_refused!(bind(one, engine_id(77)).await, StoreError::Conflict(_));
    assert_refused!(bind(two, taken).await, StoreError::Conflict(_), "another");
    assert_eq!(w.store.reservation(two).unwrap().state, State::Pending);
    assert_eq!(w.user_cpu(ada), 200);
    w.sound().await;
}

#[tokio::test]
async fn names_are_unique_among_the_live() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    let named = |user, name: &str| NewReservation {
        container_name: Some(name.into()),
        ..w.request(w.claim(user, container(100)))
    };
    let web = w.store.reserve(named(ada, "web")).await.unwrap();
    let web = web.reservation.unwrap().id;
    let again = w.store.reserve(named(ada, "web")).await;
    assert_refused!(again, StoreError::Conflict(_), "/web");
    assert_eq!(w.user_cpu(ada), 100, "nothing half-done");
    w.store.reserve(named(bob, "web")).await.unwrap();
    let db = w.store.reserve(named(ada, "db")).await.unwrap();
    let db = db.reservation.unwrap().id;
    assert_refused!(
        w.store.rename(db, "web".into()).await,
        StoreError::Conflict(_),
        "/web"
    );
    w.store.rename(db, "sql".into()).await.unwrap();
    assert_eq!(
        w.store
            .by_name(ada, ObjectKind::Container, "sql")
            .unwrap()
            .unwrap()
            .id,
        db
    );
    assert!(
        w.store
            .by_name(ada, ObjectKind::Container, "db")
            .unwrap()
            .is_none()
    );
    w.store.release(web, w.now()).await.unwrap();
    w.store.rename(db, "web".into()).await.unwrap();
    let twice = NewReservation {
        id: db,
        kind: plimsoll_store::ObjectKind::Container,
        ..w.request(w.claim(ada, container(1)))
    };
    assert_refused!(
        w.store.reserve(twice).await,
        StoreError::Conflict(_),
        "exists"
    );
    w.sound().await;
}

#[tokio::test]
async fn an_id_prefix_finds_one_or_knows_it_is_ambiguous() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    for (user, container_id) in [(ada, "abc1"), (ada, "abd2"), (bob, "abc3")] {
        let id = w.reserve(user, container(1)).await.reservation.unwrap().id;
        let commit = w.store.commit(id, container_id.into(), w.deed());
        commit.await.unwrap();
    }
    let count = |prefix| {
        w.store
            .by_id_prefix(ada, ObjectKind::Container, prefix)
            .unwrap()
            .len()
    };
    for (prefix, found) in [
        ("ab", 2),
        ("abc", 1),
        ("abc1", 1),
        ("abc3", 0),
        ("a%", 0),
        ("", 2),
    ] {
        assert_eq!(count(prefix), found, "{prefix}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_how_much_and_what_would_help() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 2000).await;
    let named = NewReservation {
        container_name: Some("train".into()),
        ..w.request(w.claim(ada, container(1500)))
    };
    let id = w
        .store
        .reserve(named)
        .await
        .unwrap()
        .reservation
        .unwrap()
        .id;
    w.store.commit(id, engine_id(1), w.deed()).await.unwrap();
    let refused = w.reserve(ada, container(1000)).await;
    assert!(refused.reservation.is_none());
    let decision = refused.decision;
    assert_eq!(decision.violations.len(), 1);
    let v = &decision.violations[0];
    assert_eq!(
        (v.level, v.dimension, v.short_by),
        (LevelKind::User, Dimension::Cpu, 500)
    );
    let said = decision.message.as_deref().unwrap();
    for part in [
        "ada",
        "0.5",
        "--cpus 0.5",
        "stop `train`",
        &decision.id.to_string(),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(w.store.decision(decision.id).unwrap(), decision);
    let of_ada = w.store.decisions(Some(ada), Some(false), 10).await.unwrap();
    assert_eq!(of_ada, [decision]);
    assert_eq!(
        w.store.decisions(None, Some(true), 10).await.unwrap().len(),
        1
    );

    // Starting a container is not helped by stopping or removing that container.
    w.store.stopped(id, w.now()).await.unwrap();
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let refused = w.store.start(id, w.deed()).await.unwrap();
    assert!(refused.reservation.is_none());
    let said = refused.decision.message.unwrap();
    assert!(!said.contains("`train`"), "{said}");
    assert_eq!(w.store.reservation(id).unwrap().state, State::Stopped);
}

#[tokio::test]
async fn what_runs_on_another_host_is_no_remedy_here() {
    let w = World::new().await;
    let small = Capacity {
        cpu: MilliCpu(1000),
        memory: Bytes(1 << 30),
    };
    w.store
        .claim_host("host-2".into(), small, w.now())
        .await
        .unwrap();
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 9000).await;
    let named = NewReservation {
        container_name: Some("here".into()),
        ..w.request(w.claim(ada, container(800)))
    };
    let id = w
        .store
        .reserve(named)
        .await
        .unwrap()
        .reservation
        .unwrap()
        .id;
    w.store.commit(id, engine_id(1), w.deed()).await.unwrap();
    let elsewhere = plimsoll_store::Claim {
        host: "host-2".into(),
        ..w.claim(ada, container(2000))
    };
    let refused = w.store.evaluate(&elsewhere).unwrap();
    let levels: Vec<_> = refused.verdict.violations.iter().map(|v| v.level).collect();
    assert_eq!(levels, [LevelKind::Host]);
    assert!(!refused.message.unwrap().contains("here"));
    let nowhere = plimsoll_store::Claim {
        host: "host-3".into(),
        ..w.claim(ada, cpu(1))
    };
    assert_refused!(
        w.store.evaluate(&nowhere),
        StoreError::NotFound { what: "host", .. }
    );
}

#[tokio::test]
async fn a_claim_beyond_what_a_ledger_holds_is_refused_as_invalid() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let huge = w.request(w.claim(ada, cpu(AMOUNT_MAX + 1)));
    assert_refused!(w.store.reserve(huge).await, StoreError::Invalid(_), "cpu");
    let large = w.reserve(ada, cpu(AMOUNT_MAX)).await;
    assert!(!large.decision.allowed);
}

#[tokio::test]
async fn an_adopted_container_can_be_started_resized_and_committed() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let adopt = |container_id: &str| {
        let new = w.request(w.claim(ada, container(1000)));
        w.store.adopt(new, container_id.into(), State::Stopped)
    };
    let id = adopt("c1").await.unwrap().id;
    assert_refused!(adopt("c1").await, StoreError::Conflict(_), "c1");
    assert_eq!(w.user_cpu(ada), 0);
    assert!(w.store.start(id, w.deed()).await.unwrap().decision.allowed);
    assert_eq!(w.user_cpu(ada), 1000);
    let same = w.store.commit(id, "c1".into(), w.deed()).await.unwrap();
    assert!(same.decision.allowed);
    assert_eq!(w.user_cpu(ada), 1000);
    let smaller = w.store.resize(id, container(500), w.deed()).await.unwrap();
    assert!(smaller.decision.allowed);
    w.sound().await;
}

#[tokio::test]
async fn only_the_owner_of_a_host_writes_its_rows() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let reserve = |host: &str| {
        let host = host.to_owned();
        let new = w.request(plimsoll_store::Claim {
            host,
            ..w.claim(ada, container(100))
        });
        w.store.reserve(new)
    };
    let pending = reserve(HOST).await.unwrap().reservation.unwrap().id;
    let active = w.run(ada, container(200)).await;
    let stopped = w.run(ada, container(300)).await;
    w.store.stopped(stopped, w.now()).await.unwrap();
    let ended = w.run(ada, container(400)).await;
    w.store.release(ended, w.now()).await.unwrap();
    let claim = |host: &str| w.store.claim_host(host.into(), CAPACITY, w.now());
    claim("host-2").await.unwrap();
    let (before, other) = (w.rows(), reserve("host-2").await.unwrap().reservation);
    w.store.void(other.unwrap().id, w.now()).await.unwrap();
    assert_ne!(w.rows(), before, "what is compared shows what is written");

    // As another server's claim would.
    let taken_over = "UPDATE host SET epoch = epoch + 1 WHERE name = ?1";
    w.shell().execute(taken_over, [HOST]).unwrap();
    let before = w.rows();
    macro_rules! assert_fenced {
        ($($step:expr),+ $(,)?) => {
            $(assert_refused!($step.await, StoreError::Fenced { .. }, "host-1 belongs to another");)+
        };
    }
    assert_fenced!(
        reserve(HOST),
        w.store.commit(pending, engine_id(1), w.deed()),
        w.store.void(pending, w.now()),
        w.store.release(active, w.now()),
        w.store.stopped(active, w.now()),
        w.store.running(stopped, w.now()),
        w.store.start(stopped, w.deed()),
        w.store.resize(active, container(50), w.deed()),
        w.store.resize(active, container(99_000), w.deed()),
        w.store.resized(active, container(150), w.now()),
        w.store.bound(pending, engine_id(2), State::Active, w.now()),
        w.store.rename(active, "web".into()),
        w.store.adopt(
            w.request(w.claim(ada, container(1))),
            engine_id(3),
            State::Active
        ),
        // Nor does it say that it did what needs no writing.
        w.store.release(ended, w.now()),
        w.store.running(active, w.now()),
    );
    assert_eq!(w.rows(), before, "nothing is half-applied");
    reserve("host-2").await.expect("a host that is still owned");

    w.shell()
        .execute(
            "INSERT INTO host SELECT 'host-3', cpu, memory, epoch, claimed_at FROM host LIMIT 1",
            [],
        )
        .unwrap();
    assert_refused!(
        reserve("host-3").await,
        StoreError::Fenced { .. },
        "belongs to another server"
    );

    // What could not be written is a fact still, and the next owner's to write.
    claim(HOST).await.unwrap();
    w.store.release(active, w.now()).await.unwrap();
    w.store.void(pending, w.now()).await.unwrap();
    assert_eq!(w.user_cpu(ada), 100, "what runs on host-2");
    w.sound().await;
}

#[tokio::test]
async fn lists_filter_by_every_column() {
    let w = World::new().await;
    let (ada, bob, ml) = (w.user("ada").await, w.user("bob").await, w.team("ml").await);
    w.join(ml, bob, 4000).await;
    let one = w.run(ada, container(100)).await;
    let two = w.run(bob, container(100)).await;
    let claim = plimsoll_store::Claim {
        project: Some("x".into()),
        ..w.claim(ada, container(100))
    };
    let three = w.store.reserve(w.request(claim)).await.unwrap();
    let three = three.reservation.unwrap().id;
    w.store.release(one, w.now()).await.unwrap();
    let list = |filter: ReservationFilter| async {
        let found = w.store.reservations(filter).await.unwrap();
        found.into_iter().map(|r| r.id).collect::<Vec<_>>()
    };
    let any = ReservationFilter::default;
    assert_eq!(list(any()).await, [three, two], "the live, newest first");
    for (filter, expected) in [
        (
            ReservationFilter {
                user: Some(ada),
                ..any()
            },
            vec![three],
        ),
        (
            ReservationFilter {
                team: Some(ml),
                ..any()
            },
            vec![two],
        ),
        (
            ReservationFilter {
                project: Some("x".into()),
                ..any()
            },
            vec![three],
        ),
        (
            ReservationFilter {
                host: Some("host-9".into()),
                ..any()
            },
            vec![],
        ),
        (
            ReservationFilter {
                states: vec![State::Pending],
                ..any()
            },
            vec![three],
        ),
        (
            ReservationFilter {
                states: vec![State::Released],
                ..any()
            },
            vec![one],
        ),
        (
            ReservationFilter {
                states: State::ALL.to_vec(),
                user: Some(ada),
                ..any()
            },
            vec![three, one],
        ),
    ] {
        let text = format!("{filter:?}");
        assert_eq!(list(filter).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_claim_of_nobody_is_not_found() {
    let w = World::new().await;
    let nobody = plimsoll_core::entity::UserId(w.id());
    let new = w.request(w.claim(nobody, cpu(1)));
    assert_refused!(
        w.store.reserve(new).await,
        StoreError::NotFound { what: "user", .. }
    );
    assert_refused!(
        w.store.decision(DecisionId(w.id())),
        StoreError::NotFound { .. }
    );
}

#[tokio::test]
async fn a_volume_and_a_container_may_share_a_name_and_lists_keep_them_apart() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let named = |kind, name: &str| NewReservation {
        kind,
        container_name: Some(name.to_owned()),
        ..w.request(w.claim(ada, plimsoll_core::Amounts::ZERO))
    };
    let mut ids = Vec::new();
    for (kind, engine) in [
        (ObjectKind::Container, "ab12"),
        (ObjectKind::Volume, "ada.1.web"),
        (ObjectKind::Network, "ab34"),
    ] {
        let made = w.store.reserve(named(kind, "web")).await.unwrap();
        let made = made.reservation.expect("nothing is asked for");
        assert_eq!(made.kind, kind);
        let admitted = w.store.commit(made.id, engine.to_owned(), w.deed()).await;
        assert_eq!(admitted.unwrap().reservation.unwrap().kind, kind);
        let again = w.store.reserve(named(kind, "web")).await;
        assert!(matches!(again, Err(StoreError::Conflict(why)) if why.contains(kind.name())));
        ids.push((kind, made.id));
    }
    for (kind, id) in ids {
        assert_eq!(w.store.by_name(ada, kind, "web").unwrap().unwrap().id, id);
        let filter = ReservationFilter {
            kind,
            ..ReservationFilter::default()
        };
        let listed = w.store.reservations(filter).await.unwrap();
        assert_eq!(listed.iter().map(|r| r.id).collect::<Vec<_>>(), [id]);
    }
    let prefixed = |kind| w.store.by_id_prefix(ada, kind, "ab").unwrap().len();
    assert_eq!(prefixed(ObjectKind::Container), 1);
    assert_eq!(prefixed(ObjectKind::Network), 1);
    assert_eq!(prefixed(ObjectKind::Volume), 0);
}

#[tokio::test]
async fn a_volume_of_a_name_may_come_again_and_goes_with_its_container() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let engine = "ada.1.data";
    let web = w.run(ada, container(100)).await;
    let mut ids = Vec::new();
    for goes_with in [None, Some(web)] {
        let new = NewReservation {
            kind: ObjectKind::Volume,
            container_name: Some("data".into()),
            goes_with,
            ..w.request(w.claim(ada, plimsoll_core::Amounts::ZERO))
        };
        let made = w.store.reserve(new).await.unwrap().reservation.unwrap();
        let bound = w.store.commit(made.id, engine.into(), w.deed()).await;
        assert!(
            bound.unwrap().reservation.is_some(),
            "the first one is gone"
        );
        let found = w.store.by_engine_name(HOST, ObjectKind::Volume, engine);
        assert_eq!(found.unwrap().unwrap().id, made.id);
        assert!(w.store.by_container(HOST, engine).unwrap().is_none());
        ids.push(made.id);
        if goes_with.is_none() {
            w.store.release(made.id, w.now()).await.unwrap();
        }
    }
    let going = || w.store.volumes_to_go(HOST).unwrap();
    assert!(going().is_empty(), "its container is there");
    w.store.release(web, w.now()).await.unwrap();
    assert_eq!(going().iter().map(|r| r.id).collect::<Vec<_>>(), [ids[1]]);
    w.store.goes_with(ids[1], None).await.unwrap();
    assert!(going().is_empty());
}
