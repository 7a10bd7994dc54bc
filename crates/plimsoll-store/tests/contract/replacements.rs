//! A container that takes another one's place is charged above it alone, and nothing is sold twice.

use plimsoll_core::entity::{ReservationId, UserId};
use plimsoll_core::{Amounts, Dimension, State};
use plimsoll_store::{Admission, Reservation};

use crate::world::World;

fn wants(milli: u64) -> Amounts {
    Amounts::ZERO
        .with(Dimension::Cpu, milli)
        .with(Dimension::Storage, 10)
        .with(Dimension::Containers, 1)
        .with(Dimension::ConcurrentContainers, 1)
}

async fn one_container() -> (World, UserId) {
    let world = World::new().await;
    let ada = world.user("ada").await;
    for (d, most) in [
        (Dimension::Cpu, 1000),
        (Dimension::Storage, 10),
        (Dimension::Containers, 1),
        (Dimension::ConcurrentContainers, 1),
    ] {
        world.set(ada.0, d, most).await;
    }
    (world, ada)
}

async fn replace(world: &World, user: UserId, old: ReservationId, amounts: Amounts) -> Admission {
    let mut new = world.request(world.claim(user, amounts));
    new.replaces = Some(old);
    world.store.reserve(new).await.expect("an answer")
}

async fn commit(world: &World, id: ReservationId) {
    let container = world.container_of(id);
    world
        .store
        .commit(id, container, world.deed())
        .await
        .expect("a commit");
}

fn row(world: &World, id: ReservationId) -> Reservation {
    world.store.reservation(id).expect("a row")
}

#[tokio::test]
async fn one_that_fits_in_the_old_ones_place_is_admitted() {
    let (world, ada) = one_container().await;
    let old = world.run(ada, wants(800)).await;
    assert!(world.reserve(ada, wants(100)).await.reservation.is_none());
    let too_large = replace(&world, ada, old, wants(1100)).await;
    let violation = &too_large.decision.violations[0];
    assert_eq!((violation.requested, violation.short_by), (300, 100));

    let new = replace(&world, ada, old, wants(1000))
        .await
        .reservation
        .expect("it fits")
        .id;
    assert_eq!(world.user_cpu(ada), 1000);
    world.sound().await;
    // The same once it is taken back, and once more.
    world.store.void(new, world.now()).await.expect("a fact");
    assert_eq!(world.user_cpu(ada), 800);
    let new = replace(&world, ada, old, wants(1000))
        .await
        .reservation
        .expect("it fits")
        .id;
    commit(&world, new).await;
    for (step, cpu) in [("stopped", 1000), ("released", 1000)] {
        let now = world.now();
        match step {
            "stopped" => world.store.stopped(old, now).await.expect("a fact"),
            _ => world.store.release(old, now).await.expect("a fact"),
        };
        assert_eq!(world.user_cpu(ada), cpu, "{step}");
        world.sound().await;
    }
    let new = row(&world, new);
    assert_eq!((new.shared, new.charge()), (None, wants(1000)));
}

#[tokio::test]
async fn only_one_takes_the_place_of_one_that_stands_alone() {
    let (world, ada) = one_container().await;
    let ben = world.user("ben").await;
    let old = world.run(ada, wants(500)).await;
    let stolen = replace(&world, ben, old, wants(500))
        .await
        .reservation
        .expect("theirs is empty");
    assert_eq!(stolen.shared, None);
    let new = replace(&world, ada, old, wants(500))
        .await
        .reservation
        .expect("it fits")
        .id;
    for other in [old, new] {
        assert!(
            replace(&world, ada, other, wants(500))
                .await
                .reservation
                .is_none()
        );
    }
    world.sound().await;
}

#[tokio::test]
async fn both_run_only_where_both_fit() {
    let (world, ada) = one_container().await;
    let old = world.run(ada, wants(600)).await;
    let new = replace(&world, ada, old, wants(600))
        .await
        .reservation
        .expect("it fits")
        .id;
    commit(&world, new).await;
    assert_eq!(row(&world, new).runs_instead_of(), Some(old));
    let beside = || world.store.run_beside(new, world.deed());
    assert!(beside().await.expect("an answer").reservation.is_none());
    world.set(ada.0, Dimension::Cpu, 1200).await;
    world.set(ada.0, Dimension::ConcurrentContainers, 2).await;
    let admitted = beside()
        .await
        .expect("an answer")
        .reservation
        .expect("both fit");
    // There are still two writable layers charged as one, for as long as the old one is there.
    assert_eq!(admitted.runs_instead_of(), None);
    assert_eq!(
        admitted
            .shared
            .expect("a share")
            .amounts
            .get(Dimension::Storage),
        10
    );
    assert_eq!(world.user_cpu(ada), 1200);
    let all = world
        .store
        .beside(new, true, world.now())
        .await
        .expect("a fact");
    assert_eq!((all.shared, all.charge()), (None, wants(600)));
    world.sound().await;
}

/// Steps of a generator whose seed is the test's own.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[tokio::test]
async fn whatever_happens_no_limit_is_passed_and_the_books_balance() {
    let mut pairs = 0;
    for seed in 0..12 {
        let (world, ada) = one_container().await;
        world.set(ada.0, Dimension::Containers, 4).await;
        world.set(ada.0, Dimension::Storage, 40).await;
        world.set(ada.0, Dimension::ConcurrentContainers, 4).await;
        let mut dice = Dice(seed);
        let mut all: Vec<ReservationId> = Vec::new();
        for _ in 0..120 {
            world.pass(1);
            let now = world.now();
            let amounts = wants(dice.below(6) * 100);
            let pick = usize::try_from(dice.below(64)).expect("small");
            let Some(id) = all.get(pick % all.len().max(1)).copied() else {
                all.push(
                    world
                        .reserve(ada, amounts)
                        .await
                        .reservation
                        .expect("empty")
                        .id,
                );
                continue;
            };
            match dice.below(9) {
                0 | 1 => {
                    let admission = replace(&world, ada, id, amounts).await;
                    all.extend(admission.reservation.map(|r| r.id));
                }
                2 => all.extend(world.reserve(ada, amounts).await.reservation.map(|r| r.id)),
                3 if row(&world, id).state == State::Pending => commit(&world, id).await,
                4 => drop(world.store.stopped(id, now).await.expect("a fact")),
                5 => drop(world.store.start(id, world.deed()).await),
                6 => drop(world.store.resize(id, amounts, world.deed()).await),
                7 => drop(world.store.run_beside(id, world.deed()).await),
                8 if row(&world, id).state == State::Pending => {
                    drop(world.store.void(id, now).await.expect("a fact"));
                }
                _ => drop(world.store.release(id, now).await.expect("a fact")),
            }
            world.sound().await;
            assert!(
                world.user_cpu(ada) <= 1000,
                "seed {seed}: {}",
                world.user_cpu(ada)
            );
            // A pair is charged for the larger at least.
            let rows: Vec<Reservation> = all.iter().map(|id| row(&world, *id)).collect();
            for new in &rows {
                let Some(shared) = new.shared else { continue };
                pairs += 1;
                let old = row(&world, shared.with);
                assert_eq!(old.shared, None, "seed {seed}");
                let most = old.charge().within(&shared.amounts);
                assert_eq!(
                    most, shared.amounts,
                    "seed {seed}: more is shared than is charged"
                );
            }
        }
    }
    assert!(pairs > 100, "{pairs}");
}
