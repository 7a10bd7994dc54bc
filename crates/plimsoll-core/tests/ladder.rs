//! Who is announced what, and when: scenarios, and what must hold in all of them.

use plimsoll_core::Dimension;
use plimsoll_core::entity::ReservationId;
use plimsoll_core::ladder::{Holder, Offence, Order, Policy, Rungs, Step, Taken, climb};
use plimsoll_core::quota::Mode;
use plimsoll_core::units::MilliCpu;
use plimsoll_core::violation::ViolationKind;
use proptest::prelude::*;
use uuid::Uuid;

const RUNGS: Rungs = Rungs {
    throttle_after_seconds: Some(100),
    pause_after_seconds: Some(200),
    stop_after_seconds: Some(300),
};

fn offence(kind: ViolationKind, dimension: Dimension, excess: u64) -> Offence {
    Offence {
        id: Uuid::from_u128(1),
        kind,
        dimension,
        excess,
        of_pool: false,
        open: true,
        opened_ms: 0,
        seen_ms: i64::MAX,
        mode: Mode::Enforce,
        policy: Policy {
            steps: RUNGS,
            announce_seconds: 20,
            ..Policy::default()
        },
    }
}

fn holder(n: u128, holds: u64, started_ms: i64) -> Holder {
    Holder {
        id: ReservationId(Uuid::from_u128(n)),
        holds,
        borrows: None,
        scavenger: false,
        idle: false,
        started_ms,
    }
}

/// People were asked to free something, and freed some of it: who is not needed any more stays.
#[test]
fn of_what_was_announced_only_what_is_still_needed_is_done() {
    let both = [holder(1, 400, 1), holder(2, 200, 2)];
    let (first, second) = (
        taken(1, Step::Stop, 400, None),
        taken(2, Step::Stop, 200, None),
    );
    let offence = Offence {
        seen_ms: 900_000,
        ..offence(ViolationKind::Reserved, Dimension::Memory, 100)
    };
    let acts = |taken: &[Taken]| climb(&offence, &both, taken, 1_000_000, false);
    assert_eq!(acts(&[first, second]), [Order::Act(first.id)]);
    // Nor before what was done shows.
    let done = Taken {
        done_ms: Some(999_999),
        ..first
    };
    assert_eq!(acts(&[done, second]), []);
}

fn taken(n: u128, step: Step, frees: u64, done_ms: Option<i64>) -> Taken {
    Taken {
        id: Uuid::from_u128(100 + n),
        offence: Uuid::from_u128(1),
        holder: ReservationId(Uuid::from_u128(n)),
        step,
        frees,
        due_ms: 100_000,
        done_ms,
    }
}

/// In short: `stop 1 @300`, `throttle 2 @120 to 500`, `act 101`, `drop 101`, `undo 101`.
fn words(orders: &[Order]) -> Vec<String> {
    let short = |order: &Order| match order {
        Order::Announce {
            holder,
            step,
            due_ms,
            to,
            ..
        } => {
            let to = to.map_or_else(String::new, |MilliCpu(to)| format!(" to {to}"));
            let (n, s) = (holder.0.as_u128(), due_ms / 1000);
            format!("{} {n} @{s}{to}", step.name())
        }
        Order::Act(id) => format!("act {}", id.as_u128()),
        Order::Drop(id) => format!("drop {}", id.as_u128()),
        Order::Undo(id) => format!("undo {}", id.as_u128()),
    };
    orders.iter().map(short).collect()
}

#[test]
fn rungs_come_one_after_the_other_and_are_announced_before() {
    use Dimension as D;
    use ViolationKind::{Held, Reserved, Throttled, Used};
    for (kind, d, now_s, expected) in [
        (Used, D::Cpu, 79, ""),
        (Used, D::Cpu, 80, "throttle 1 @100 to 600"),
        (Used, D::Cpu, 95, "throttle 1 @115 to 600"),
        (Used, D::Cpu, 180, "pause 1 @200"),
        (Used, D::Cpu, 1000, "stop 1 @1020"),
        (Reserved, D::Cpu, 200, "throttle 1 @220 to 600"),
        (Reserved, D::Cpu, 280, "stop 1 @300"),
        (Used, D::Memory, 200, ""),
        (Used, D::Memory, 280, "stop 1 @300"),
        (Reserved, D::Memory, 280, "stop 1 @300"),
        (Held, D::Memory, 280, "stop 1 @300"),
        (Reserved, D::Storage, 1000, ""),
        (Used, D::Storage, 280, "stop 1 @300"),
        (Reserved, D::Containers, 1000, ""),
        (Throttled, D::Cpu, 1000, ""),
        (Used, D::Idle, 1000, ""),
    ] {
        let orders = climb(
            &offence(kind, d, 400),
            &[holder(1, 1000, 0)],
            &[],
            now_s * 1000,
            false,
        );
        assert_eq!(words(&orders).join(", "), expected, "{kind:?} {d} {now_s}");
    }
}

#[test]
fn scavengers_go_first_then_borrowers_then_the_newest() {
    let ada = Uuid::from_u128(50);
    let mut scavenger = holder(1, 100, 10);
    scavenger.scavenger = true;
    let oldest = holder(2, 100, 5);
    // Three containers of one who borrows what one of them holds.
    let mut borrowers = [3, 4, 5].map(|n| holder(n, 100, 30 + n as i64));
    for h in &mut borrowers {
        h.borrows = Some((ada, 80));
    }
    let others = [holder(6, 100, 99), holder(7, 100, 98)];
    let mut all = vec![scavenger, oldest];
    all.extend(borrowers);
    all.extend(others);
    for (excess, expected) in [
        (1, vec![1]),
        (150, vec![1, 5]),
        (201, vec![1, 5, 6]),
        (301, vec![1, 5, 6, 7]),
        (401, vec![1, 5, 6, 7, 4]),
        (9999, vec![1, 5, 6, 7, 4, 3, 2]),
    ] {
        let of = offence(ViolationKind::Reserved, Dimension::Memory, excess);
        let orders = climb(&of, &all, &[], 300_000, false);
        let expected: Vec<String> = expected.iter().map(|n| format!("stop {n} @320")).collect();
        assert_eq!(words(&orders), expected, "{excess}");
    }
    // Of a pool only what is borrowed counts, whatever it takes.
    let mut of = offence(ViolationKind::Reserved, Dimension::Memory, 9999);
    of.of_pool = true;
    let orders = climb(&of, &all, &[], 300_000, false);
    assert_eq!(words(&orders), ["stop 5 @320"]);
}

#[test]
fn where_nothing_is_left_everybody_stops() {
    let of = offence(ViolationKind::Used, Dimension::Runtime, 1);
    let all = [holder(1, 0, 0), holder(2, 0, 9), holder(3, 0, 5)];
    let done = taken(2, Step::Stop, 1, Some(290_000));
    let orders = climb(&of, &all, &[done], 300_000, false);
    assert_eq!(words(&orders), ["stop 3 @320", "stop 1 @320"]);
}

#[test]
fn what_was_announced_is_done_or_dropped_and_what_was_done_is_taken_back() {
    let of = offence(ViolationKind::Used, Dimension::Cpu, 400);
    let one = [holder(1, 1000, 0)];
    let pending = taken(1, Step::Throttle, 400, None);
    let done = taken(1, Step::Throttle, 400, Some(100_000));
    let closed = Offence {
        open: false,
        excess: 0,
        ..of.clone()
    };
    let calm = Offence {
        excess: 0,
        ..of.clone()
    };
    let shadow = Offence {
        mode: Mode::Shadow,
        ..of.clone()
    };
    let lenient = Offence {
        policy: Policy::default(),
        ..of.clone()
    };
    let unseen = Offence {
        seen_ms: 100_000,
        ..of.clone()
    };
    let storage = offence(ViolationKind::Used, Dimension::Storage, 400);
    let stopped = taken(1, Step::Stop, 400, Some(200_000));
    let mut idle = offence(ViolationKind::Used, Dimension::Idle, 1);
    idle.policy.dimensions.insert(Dimension::Idle, RUNGS);
    let two = [holder(2, 500, 0)];
    for (what, of, holders, taken, now_s, hurry, expected) in [
        ("waits", &of, &one[..], pending, 99, false, ""),
        ("is due", &of, &one, pending, 100, false, "act 101"),
        ("hurries", &of, &one, pending, 10, true, "act 101"),
        ("is gone", &of, &[], pending, 100, false, "drop 101"),
        ("is calm", &calm, &one, pending, 100, false, ""),
        ("closed", &closed, &one, pending, 100, false, "drop 101"),
        ("done", &of, &one, done, 150, false, ""),
        ("closed", &closed, &one, done, 150, false, "undo 101"),
        ("watched", &shadow, &one, pending, 100, false, "drop 101"),
        ("watched", &shadow, &one, done, 100, false, "undo 101"),
        ("lenient", &lenient, &one, done, 999, false, "undo 101"),
        ("climbs", &of, &one, done, 180, false, "pause 1 @200"),
        ("unseen", &unseen, &one, done, 109, true, ""),
        ("unseen", &unseen, &one, done, 110, true, "pause 1 @110"),
        ("idle no more", &idle, &[], stopped, 201, false, "undo 101"),
        ("idle still", &idle, &one, stopped, 201, false, ""),
        ("on disk", &storage, &two, stopped, 999, false, ""),
    ] {
        let orders = climb(of, holders, &[taken], now_s * 1000, hurry);
        assert_eq!(words(&orders).join(", "), expected, "{what} {now_s}");
    }
}

#[test]
fn a_policy_reads_as_it_is_written_and_names_no_endless_times() {
    let text = r#"{"steps":{"stopAfterSeconds":60},"dimensions":{"cpu":{"throttleAfterSeconds":5}},
                   "announceSeconds":3}"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(policy.after_s(Dimension::Memory, Step::Stop), Some(60));
    assert_eq!(policy.after_s(Dimension::Cpu, Step::Stop), None);
    assert_eq!(policy.after_s(Dimension::Cpu, Step::Throttle), Some(5));
    assert!(policy.check().is_ok());
    let endless = Policy {
        announce_seconds: u64::MAX,
        ..policy
    };
    assert!(endless.check().is_err());
}

fn holders() -> impl Strategy<Value = Vec<Holder>> {
    let one = (
        0..1000u64,
        prop::option::of((0..3u128, 0..500u64)),
        any::<bool>(),
        0..50i64,
    );
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let of = |(n, (holds, borrows, scavenger, started_ms)): (usize, _)| Holder {
            borrows: Option::map(borrows, |(member, above): (u128, u64)| {
                (Uuid::from_u128(member), above)
            }),
            scavenger,
            ..holder(n as u128, holds, started_ms)
        };
        all.into_iter().enumerate().map(of).collect()
    })
}

proptest! {
    #[test]
    fn nobody_is_touched_in_vain_and_never_twice(
        holders in holders(), excess in 0..3000u64, of_pool: bool, hurry: bool, now_s in 0..500i64,
        shadow: bool, step in 0..3usize,
    ) {
        let mut of = offence(ViolationKind::Used, Dimension::Cpu, excess);
        of.of_pool = of_pool;
        if shadow {
            of.mode = Mode::Shadow;
        }
        let known: Vec<Taken> = holders.iter().take(2)
            .map(|h| taken(h.id.0.as_u128(), Step::ALL[step], 1, Some(0))).collect();
        let mut freed = 0;
        let mut last = 0;
        let mut seen = Vec::new();
        for order in climb(&of, &holders, &known, now_s * 1000, hurry) {
            let Order::Announce { holder, step, due_ms, frees, to } = order else {
                prop_assert!(shadow, "{order:?}");
                continue;
            };
            prop_assert!(!shadow && excess > 0);
            let h = holders.iter().find(|h| h.id == holder).unwrap();
            prop_assert!(frees > 0 && frees <= h.holds);
            prop_assert!(!seen.contains(&holder));
            prop_assert!(!known.iter().any(|t| t.holder == holder && t.step >= step));
            prop_assert!(hurry || due_ms >= now_s * 1000 + 20_000);
            prop_assert_eq!(to.is_some(), step == Step::Throttle);
            prop_assert!(to.is_none_or(|to| to.0 >= 10));
            seen.push(holder);
            (last, freed) = (frees, freed + frees);
        }
        // Without the last of them it would not be enough.
        prop_assert!(seen.is_empty() || freed - last < excess);
    }
}
