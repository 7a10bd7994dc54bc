//! Steps of the ladder: in the ledger before anything happens, once each, and through a restart.

use plimsoll_core::Dimension;
use plimsoll_core::entity::ReservationId;
use plimsoll_core::ladder::{Policy, Step};
use plimsoll_core::notice::{About, Event, EventKind};
use plimsoll_core::units::MilliCpu;
use plimsoll_store::{NewStep, QuotaChange, StepRecord, StoreError, Turned, ViolationRecord};

use crate::world::{World, container, refused};

/// Somebody who has 3 cores reserved and may have 1.
async fn over(w: &World) -> (ReservationId, ViolationRecord) {
    let ada = w.user("ada").await;
    let id = w.run(ada, container(3000)).await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let open = w.store.violations(None, 1).await.unwrap();
    (id, open[0].clone())
}

fn event(w: &World) -> Event {
    let about = About::system("host");
    Event::new(EventKind::StepAnnounced, about, "a step", "/mine", w.now())
}

async fn announce(
    w: &World,
    (id, v): &(ReservationId, ViolationRecord),
    step: Step,
) -> Result<StepRecord, StoreError> {
    let new = NewStep {
        violation: v.id,
        reservation: *id,
        step,
        frees: 2000,
        to: (step == Step::Throttle).then_some(MilliCpu(500)),
        due_ms: w.now() + 60_000,
    };
    w.store.announce(new, event(w), w.actor()).await
}

async fn turn(w: &World, step: &StepRecord, turned: Turned) {
    let turned = w.store.turn_step(step, turned, None, w.actor());
    turned.await.unwrap();
}

#[tokio::test]
async fn a_step_is_announced_once_and_keeps_a_container_down_while_its_violation_is_open() {
    let w = World::new().await;
    let case = over(&w).await;
    let stop = announce(&w, &case, Step::Stop).await.unwrap();
    let again = refused(announce(&w, &case, Step::Stop).await);
    assert!(matches!(again, StoreError::Conflict(_)), "{again}");
    assert_eq!((stop.done_ms, stop.frees), (None, 2000));
    assert_eq!(w.store.kept_down(case.0).unwrap(), None, "only announced");

    turn(&w, &stop, Turned::Done).await;
    let w = w.restarted().await;
    let (kept, of) = w.store.kept_down(case.0).unwrap().unwrap();
    assert_eq!((kept.id, of.id), (stop.id, case.1.id));
    assert!(kept.done_ms.is_some());
    assert_eq!(
        w.store.open_steps().await.unwrap(),
        std::slice::from_ref(&kept)
    );
    w.store.stopped(case.0, w.now()).await.unwrap();
    assert_eq!(w.store.kept_down(case.0).unwrap(), None, "it has closed");

    turn(&w, &stop, Turned::Ended).await;
    assert!(w.store.open_steps().await.unwrap().is_empty());
    let all = w.store.steps_of(&[case.1.id]).unwrap();
    assert_eq!((all.len(), all[0].done_ms), (1, kept.done_ms));
    assert!(all[0].ended_ms.is_some());
    let log = w.store.audit(None, 2).await.unwrap();
    let actions: Vec<&str> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["container.release", "container.stop"]);
    w.sound().await;
}

#[tokio::test]
async fn a_throttle_holds_from_when_it_is_done_until_it_ends() {
    let w = World::new().await;
    let case = over(&w).await;
    let step = announce(&w, &case, Step::Throttle).await.unwrap();
    assert!(w.store.throttles().unwrap().is_empty());
    turn(&w, &step, Turned::Done).await;
    let held = w.store.throttles().unwrap();
    assert_eq!(held.get(&case.0), Some(&MilliCpu(500)));
    assert_eq!(w.store.kept_down(case.0).unwrap(), None, "it runs");
    turn(&w, &step, Turned::Ended).await;
    turn(&w, &step, Turned::Done).await;
    assert!(w.store.throttles().unwrap().is_empty(), "it has ended");
}

#[tokio::test]
async fn the_restart_policy_that_is_kept_is_the_first_one() {
    let w = World::new().await;
    let (id, _) = over(&w).await;
    let keep = |policy: Option<&str>| w.store.keep_restart(id, policy.map(str::to_owned));
    keep(Some("always")).await.unwrap();
    keep(Some("no")).await.unwrap();
    let kept = || w.store.kept_restart(id).unwrap();
    assert_eq!(kept().as_deref(), Some("always"));
    keep(None).await.unwrap();
    assert_eq!(kept(), None);
}

#[tokio::test]
async fn a_quota_has_its_own_ladder_or_its_classs() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let ladder = |announce_seconds| Policy {
        announce_seconds,
        ..Policy::default()
    };
    let set = |ladder| {
        let change = QuotaChange {
            ladder: Some(ladder),
            ..QuotaChange::default()
        };
        w.store.change_quota(ada.0, change, w.actor())
    };
    let class = |ladder| {
        let class = "standard".to_owned();
        w.store.set_class_ladder(class, ladder, w.actor())
    };
    let in_force = || w.store.ladder(ada.0).unwrap();
    assert_eq!(in_force(), Policy::default());
    class(ladder(7)).await.unwrap();
    assert_eq!(in_force(), ladder(7));
    set(Some(ladder(8))).await.unwrap();
    assert_eq!(in_force(), ladder(8));
    set(None).await.unwrap();
    assert_eq!(in_force(), ladder(7));
    assert!(class(ladder(u64::MAX)).await.is_err());
    assert!(set(Some(ladder(u64::MAX))).await.is_err());
}
