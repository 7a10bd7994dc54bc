//! What is old is forgotten, in small steps; what something rests on stays, and nothing that was
//! counted changes.

use plimsoll_core::State;
use plimsoll_core::entity::{DecisionId, EntityKind, ReservationId, SYSTEM_ID};
use plimsoll_store::{Admission, FORGET_MAX, NewReservation, ReservationFilter, StoreError};

use crate::world::{World, container, cpu, engine_id, key};

const DAY_MS: i64 = 86_400_000;

/// Forgets to the end; the rows of each step.
async fn forget_decisions(w: &World, before_ms: i64) -> Vec<usize> {
    let (mut steps, mut next) = (Vec::new(), None);
    loop {
        let step = w.store.forget_decisions(before_ms, next).await.unwrap();
        steps.push(step.rows);
        next = step.next;
        if next.is_none() {
            return steps;
        }
    }
}

async fn forget_reservations(w: &World, before_ms: i64) -> Vec<usize> {
    let (mut steps, mut next) = (Vec::new(), None);
    loop {
        let step = w.store.forget_reservations(before_ms, next).await.unwrap();
        steps.push(step.rows);
        next = step.next;
        if next.is_none() {
            return steps;
        }
    }
}

fn of(admission: &Admission) -> (ReservationId, DecisionId) {
    let id = admission.reservation.as_ref().expect("it fits").id;
    (id, admission.decision.id)
}

#[tokio::test]
async fn a_decision_stays_while_a_reservation_needs_it() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let with_key = || NewReservation {
        idempotency: key("ada", "k", "body"),
        ..w.request(w.claim(ada, container(100)))
    };
    let refused = w.reserve(ada, cpu(99_000)).await.decision.id;
    let (live, live_by) = of(&w.reserve(ada, container(100)).await);
    w.store.commit(live, engine_id(1), w.deed()).await.unwrap();
    let restarted = w.store.stopped(live, w.now()).await.unwrap();
    let again = w.store.start(restarted.id, w.deed()).await.unwrap();
    let (ended, ended_by) = of(&w.reserve(ada, container(100)).await);
    w.store.commit(ended, engine_id(2), w.deed()).await.unwrap();
    w.store.release(ended, w.now()).await.unwrap();
    let (keyed, keyed_by) = of(&w.store.reserve(with_key()).await.unwrap());
    w.store.release(keyed, w.now()).await.unwrap();
    let old_ms = w.now() + 1;
    w.pass(90 * DAY_MS);
    let young = w.reserve(ada, cpu(99_000)).await.decision.id;
    let young_by = of(&w.reserve(ada, container(100)).await).1;

    let decided = w.store.decision_count();
    assert_eq!(forget_decisions(&w, old_ms).await, [3]);
    let kept = w.store.decisions(None, None, 100).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(|d| d.id).collect();
    assert_eq!(kept, [young_by, young, keyed_by, live_by]);
    for gone in [refused, again.decision.id, ended_by] {
        assert_refused!(w.store.decision(gone), StoreError::NotFound { .. });
    }
    assert_eq!(forget_decisions(&w, old_ms).await, [0], "and nothing twice");
    assert_eq!(w.store.decision_count(), decided);

    // Each step that looks its decision up still can.
    let bound = w.store.commit(live, engine_id(1), w.deed()).await.unwrap();
    assert!(bound.replayed && bound.decision.id == live_by);
    assert!(w.store.start(live, w.deed()).await.unwrap().replayed);
    let replay = w.store.reserve(with_key()).await.unwrap();
    assert!(replay.replayed && replay.decision.id == keyed_by);
    let row = w.store.reservation(ended).unwrap();
    assert_eq!((row.state, row.decision), (State::Released, None));
    let late = w.store.commit(ended, engine_id(2), w.deed()).await.unwrap();
    assert_eq!(late.reservation.unwrap().state, State::Released);
    w.sound().await;
}

#[tokio::test]
async fn only_reservations_that_ended_long_ago_are_forgotten() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    w.join(ml, ada, 1000).await;
    let with_key = || NewReservation {
        idempotency: key("ada", "k", "body"),
        ..w.request(w.claim(ada, container(100)))
    };
    let running = w.run(ada, container(100)).await;
    let stopped = w.run(ada, container(100)).await;
    w.store.stopped(stopped, w.now()).await.unwrap();
    let pending = of(&w.reserve(ada, container(100)).await).0;
    let (released, decision) = of(&w.store.reserve(with_key()).await.unwrap());
    w.store.release(released, w.now()).await.unwrap();
    let void = of(&w.reserve(ada, container(100)).await).0;
    w.store.void(void, w.now()).await.unwrap();
    let long_lived = w.run(ada, container(100)).await;
    let old_ms = w.now() + 1;
    w.pass(400 * DAY_MS);
    w.store.release(long_lived, w.now()).await.unwrap();
    let young = w.run(ada, container(100)).await;
    w.store.release(young, w.now()).await.unwrap();

    let audit = || w.store.audit(None, 1000);
    let standing = || {
        [
            (EntityKind::System, SYSTEM_ID),
            (EntityKind::Team, ml.0),
            (EntityKind::User, ada.0),
        ]
        .map(|(kind, id)| w.store.standing(kind, id).unwrap())
    };
    let before = (standing(), w.store.decision_count(), audit().await.unwrap());
    assert_eq!(forget_reservations(&w, old_ms).await, [2]);
    let all = ReservationFilter {
        states: State::ALL.to_vec(),
        ..ReservationFilter::default()
    };
    let kept = w.store.reservations(all).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(|r| r.id).collect();
    assert_eq!(kept, [young, long_lived, pending, stopped, running]);
    assert_eq!(forget_reservations(&w, old_ms).await, [0]);
    let after = (standing(), w.store.decision_count(), audit().await.unwrap());
    assert_eq!(after, before, "nothing that was counted changes");
    w.sound().await;

    // The key went with its row, and so does the decision that stayed for it.
    assert!(w.store.decision(decision).is_ok());
    forget_decisions(&w, old_ms).await;
    assert_refused!(w.store.decision(decision), StoreError::NotFound { .. });
    let anew = w.store.reserve(with_key()).await.unwrap();
    assert!(anew.decision.allowed && !anew.replayed);
    w.store.release(running, w.now()).await.unwrap();
    w.sound().await;
}

#[tokio::test]
async fn no_step_is_long_and_what_stays_ends_no_walk() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let live = w.run(ada, container(100)).await;
    w.store.release(live, w.now()).await.unwrap();
    let refused = w.reserve(ada, cpu(99_000)).await.decision.id;
    // Of 1700 copies the first 600 stay: a live reservation rests on each.
    let copied = |table: &str, columns: &str, from: &str, values: &str, many: u32| {
        let sql = format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {many})
             INSERT INTO {table} ({columns}) SELECT {values} FROM {table} t, n WHERE t.id = ?1"
        );
        assert_eq!(w.shell().execute(&sql, [from]).unwrap(), many as usize);
    };
    let id = |kind: u32| format!("printf('00000000-0000-0000-000{kind}-%012x', n)");
    copied(
        "decision",
        "id, at, action, user_id, host, requested, allowed, violations, remedies, reservation_id",
        &refused.to_string(),
        &format!(
            "{}, at, action, user_id, host, requested, allowed, violations, remedies,
             CASE WHEN n <= 600 THEN {} END",
            id(1),
            id(2)
        ),
        1700,
    );
    copied(
        "reservation",
        "id, host, user_id, state, claim, origin, decision_id, created_at, changed_at",
        &live.to_string(),
        &format!(
            "{}, host, user_id, CASE WHEN n <= 600 THEN 'stopped' ELSE 'void' END, '[]', origin,
             {}, created_at, changed_at",
            id(2),
            id(1)
        ),
        1700,
    );
    let old_ms = w.now() + 1;
    w.pass(DAY_MS);
    w.reserve(ada, container(100)).await;

    assert_eq!(FORGET_MAX, 500);
    let steps = forget_reservations(&w, old_ms).await;
    assert_eq!(steps, [0, 400, 500, 201]);
    let steps = forget_decisions(&w, old_ms).await;
    assert_eq!(steps, [0, 400, 500, 202]);
}
