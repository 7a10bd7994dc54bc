//! Limits before anybody asks: percentages, grants, a team's shape and a caller's reach, as tables.

use plimsoll_core::quota::{Capacity, TeamMode, TeamShape, added_up, narrowed, with_additions};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_core::{Dimension, Level, Limit, Limits, Owner, Path, TeamPath};
use uuid::Uuid;

fn limit(text: &str) -> Limit {
    match text {
        "-" => Limit::Unlimited,
        n => Limit::AtMost(n.parse().expect("a number or -")),
    }
}

fn rows(table: &str) -> Vec<Vec<Limit>> {
    table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.split_whitespace().map(limit).collect())
        .collect()
}

#[test]
fn a_percentage_narrows_and_never_widens() {
    // cores in thousandths, percent in hundredths, capacity, effective
    for row in rows(
        "
           4000  8000  8000  4000
           4000  8000  4000  3200
           -     8000  4000  3200
           4000  -     1000  4000
           -     -     1000  -
           4000  0     8000  0
           0     8000  8000  0
           4000  1     1999  0
           4000  10000 0     0
    ",
    ) {
        let [cores, percent, capacity, effective] = row[..] else {
            panic!("four columns")
        };
        let capacity = capacity.at_most().expect("hosts are finite");
        let limits = Limits::UNLIMITED
            .with(Dimension::Cpu, cores)
            .with(Dimension::CpuPercent, percent)
            .with(Dimension::Memory, cores)
            .with(Dimension::MemoryPercent, percent);
        let whole = Capacity {
            cpu: MilliCpu(capacity),
            memory: Bytes(capacity),
        };
        let narrow = narrowed(&limits, whole);
        assert_eq!(narrow[Dimension::Cpu], effective, "{row:?}");
        assert_eq!(narrow[Dimension::Memory], effective, "{row:?}");
        assert_eq!(narrow[Dimension::CpuPercent], percent, "{row:?}");
    }
}

#[test]
fn a_team_is_allotments_and_pool_in_both_modes() {
    // mode (1 aggregate, 2 fixed), own row, two allotments, limit, pool
    for row in rows(
        "
           1  5   2 3   10  5
           1  0   2 3   5   0
           1  -   2 3   -   -
           2  10  2 3   10  5
           2  5   2 3   5   0
           2  4   2 3   4   0
           2  -   2 3   -   -
           1  18446744073709551615 2 3 18446744073709551615 18446744073709551615
    ",
    ) {
        let [mode, own, a, b, total, pool] = row[..] else {
            panic!("six columns")
        };
        let mode = if mode == Limit::AtMost(1) {
            TeamMode::Aggregate
        } else {
            TeamMode::Fixed
        };
        let cpu = |limit| Limits::nothing().with(Dimension::Cpu, limit);
        let shape = TeamShape::derive(mode, &cpu(own), &[cpu(a), cpu(b)]);
        assert_eq!(shape.limit[Dimension::Cpu], total, "{row:?}");
        assert_eq!(shape.pool[Dimension::Cpu], pool, "{row:?}");
    }
}

#[test]
fn what_is_not_summed_comes_from_the_teams_own_row() {
    let own = Limits::nothing()
        .with(Dimension::Runtime, Limit::AtMost(3600))
        .with(Dimension::CpuPercent, Limit::AtMost(5000));
    let allotment = Limits::nothing();
    for mode in [TeamMode::Aggregate, TeamMode::Fixed] {
        let shape = TeamShape::derive(mode, &own, [&allotment]);
        for d in [Dimension::Runtime, Dimension::CpuPercent, Dimension::Idle] {
            assert_eq!(shape.limit[d], own[d], "{mode:?} {d}");
        }
    }
}

#[test]
fn a_member_reaches_as_far_as_every_level_lets_them() {
    // host, system, team, allotment, pool, borrow, effective
    for row in rows(
        "
           9 9 9  2 3 -  5
           9 9 9  2 3 1  3
           9 9 4  2 3 -  4
           9 3 9  2 3 -  3
           1 9 9  2 3 -  1
           - - -  2 - -  -
           - - 7  2 - -  7
           - - -  2 - 4  6
    ",
    ) {
        let [host, system, team, allotment, pool, borrow, effective] = row[..] else {
            panic!("seven columns")
        };
        let level = |limit| Level {
            limits: Limits::UNLIMITED.with(Dimension::Cpu, limit),
            ..Level::open(Uuid::nil(), "level")
        };
        let cpu = |limit| Limits::UNLIMITED.with(Dimension::Cpu, limit);
        let path = Path {
            host: level(host),
            system: level(system),
            owner: Owner::Team(Box::new(TeamPath {
                team: level(team),
                pool: cpu(pool),
                overflow: plimsoll_core::Amounts::ZERO,
                member: Uuid::nil(),
                member_name: "me".into(),
                allotment: cpu(allotment),
                member_reserved: plimsoll_core::Amounts::ZERO,
                borrow_limit: cpu(borrow),
            })),
        };
        assert_eq!(
            path.effective_limits()[Dimension::Cpu],
            effective,
            "{row:?}"
        );
    }
}

#[test]
fn grants_add_up_where_there_is_a_limit() {
    let base = Limits::UNLIMITED.with(Dimension::Cpu, Limit::AtMost(10));
    let sum = added_up([
        &vec![(Dimension::Memory, 5), (Dimension::Cpu, 1)],
        &vec![(Dimension::Cpu, 2)],
        &vec![(Dimension::Cpu, 0)],
    ]);
    assert_eq!(sum, [(Dimension::Cpu, 3), (Dimension::Memory, 5)]);
    let limits = with_additions(&base, &sum);
    assert_eq!(limits[Dimension::Cpu], Limit::AtMost(13));
    assert_eq!(limits[Dimension::Memory], Limit::Unlimited);
}
