//! What `admit` decides, as tables: one scenario a line, one expectation a line.
//!
//! ```text
//! levels | claim | expectation
//! ```
//!
//! Levels are `host`, `system`, `user` or `team`, and for a team `pool`, `mine` (the caller's place)
//! and `borrow`; each is followed by what holds there: `cpu=4` is a limit, `cpu:3` is charged already,
//! `x1.5` an overcommit factor, `shadow` and `off` modes. What is not said is unlimited, uncharged and
//! enforced. `pool cpu:1` is what all members together hold above their allotments.
//!
//! A claim is `cpu 2`, or `cpu 2>3` for one that charges 2 and wants 3.
//!
//! An expectation is `fits` or `no`, then every violation in order: `team cpu -1` is short by one there,
//! `!` says that it never fits, `~` that the level only watches.

use plimsoll_core::units::MilliCpu;
use plimsoll_core::{
    Amounts, Dimension, Level, Limit, Limits, Owner, Path, TeamPath, Verdict, admit,
};
use uuid::Uuid;

fn run(table: &str) {
    let mut failures = Vec::new();
    let scenarios = table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in scenarios {
        let mut columns = line.split('|').map(str::trim);
        let (Some(levels), Some(claim), Some(expected), None) = (
            columns.next(),
            columns.next(),
            columns.next(),
            columns.next(),
        ) else {
            panic!("three columns are needed: {line}");
        };
        let path = parse_path(levels);
        let (before, after) = parse_claim(claim);
        let decided = show(&admit(&path, &before, &after));
        if decided != expected {
            failures.push(format!(
                "{line}\n    expected {expected}\n    decided  {decided}"
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn dimension(name: &str) -> Dimension {
    let name = match name {
        "mem" => "memory",
        "running" => "concurrent_containers",
        name => name,
    };
    Dimension::from_name(name).unwrap_or_else(|| panic!("no dimension {name}"))
}

fn number(text: &str) -> u64 {
    match text {
        "max" => u64::MAX,
        text => text.parse().unwrap_or_else(|_| panic!("no number {text}")),
    }
}

/// What is said about one level.
struct Said {
    limits: Limits,
    charged: Amounts,
    mode: plimsoll_core::quota::Mode,
    permille: u32,
}

fn said(items: &str) -> Said {
    use plimsoll_core::quota::Mode;
    let mut said = Said {
        limits: Limits::UNLIMITED,
        charged: Amounts::ZERO,
        mode: Mode::Enforce,
        permille: 1000,
    };
    for item in items.split_whitespace() {
        if let Some((d, most)) = item.split_once('=') {
            said.limits[dimension(d)] = Limit::AtMost(number(most));
        } else if let Some((d, held)) = item.split_once(':') {
            said.charged[dimension(d)] = number(held);
        } else if let Some(factor) = item.strip_prefix('x') {
            let cores = factor.parse().expect("a factor");
            said.permille = MilliCpu::from_cores(cores)
                .expect("a factor")
                .0
                .try_into()
                .expect("a small factor");
        } else {
            said.mode = Mode::from_name(item).unwrap_or_else(|| panic!("no mode {item}"));
        }
    }
    said
}

fn parse_path(text: &str) -> Path {
    let level = |name: &str, items: &str| {
        let said = said(items);
        Level {
            limits: said.limits,
            reserved: said.charged,
            mode: said.mode,
            overcommit_permille: said.permille,
            ..Level::open(Uuid::nil(), name)
        }
    };
    let (mut host, mut system) = (level("host", ""), level("system", ""));
    let mut user = None;
    let mut team: Option<TeamPath> = None;
    let nobody = || TeamPath {
        team: level("team", ""),
        pool: Limits::UNLIMITED,
        overflow: Amounts::ZERO,
        member: Uuid::nil(),
        member_name: "me".into(),
        allotment: Limits::nothing(),
        member_reserved: Amounts::ZERO,
        borrow_limit: Limits::UNLIMITED,
    };
    for part in text.split(';').map(str::trim) {
        let (what, items) = part.split_once(' ').unwrap_or((part, ""));
        match what {
            "host" => host = level("host", items),
            "system" => system = level("system", items),
            "user" => user = Some(level("user", items)),
            "team" => team.get_or_insert_with(nobody).team = level("team", items),
            "pool" => {
                let place = team.get_or_insert_with(nobody);
                let said = said(items);
                (place.pool, place.overflow) = (said.limits, said.charged);
            }
            "mine" => {
                let place = team.get_or_insert_with(nobody);
                let said = said(items);
                place.member_reserved = said.charged;
                for d in Dimension::CHARGED {
                    if said.limits[d] != Limit::Unlimited {
                        place.allotment[d] = said.limits[d];
                    }
                }
            }
            "borrow" => team.get_or_insert_with(nobody).borrow_limit = said(items).limits,
            other => panic!("no level {other}"),
        }
    }
    let owner = match (user, team) {
        (Some(_), Some(_)) => panic!("a claim goes to a user or to a team"),
        (_, Some(team)) => Owner::Team(Box::new(team)),
        (user, None) => Owner::User(user.unwrap_or_else(|| level("user", ""))),
    };
    Path {
        host,
        system,
        owner,
    }
}

fn parse_claim(text: &str) -> (Amounts, Amounts) {
    let (mut before, mut after) = (Amounts::ZERO, Amounts::ZERO);
    for part in text.split(',').map(str::trim) {
        let (d, amount) = part.split_once(' ').expect("a dimension and an amount");
        let (old, new) = amount.split_once('>').unwrap_or(("0", amount));
        before[dimension(d)] = number(old);
        after[dimension(d)] = number(new);
    }
    (before, after)
}

fn show(verdict: &Verdict) -> String {
    let mut words = vec![if verdict.allowed() { "fits" } else { "no" }.to_owned()];
    words.extend(verdict.violations.iter().map(|v| {
        let watched = if v.enforced { "" } else { "~" };
        let never = if v.never_fits { "!" } else { "" };
        let dimension = match v.dimension {
            Dimension::Memory => "mem",
            Dimension::ConcurrentContainers => "running",
            d => d.name(),
        };
        let level = v.level.name();
        format!("{watched}{level} {dimension} -{}{never}", v.short_by)
    }));
    words.join(", ").replacen(", ", ": ", 1)
}

#[test]
fn a_user_has_a_quota_under_the_host_and_the_system() {
    run("
        user cpu=2                         | cpu 2          | fits
        user cpu=2 cpu:1                   | cpu 1          | fits
        user cpu=2 cpu:1                   | cpu 2          | no: user cpu -1
        user cpu=2                         | cpu 3          | no: user cpu -1!
        user cpu=0                         | cpu 1          | no: user cpu -1!
        user cpu=0                         | mem 1          | fits
        host cpu=4 cpu:3; user cpu=9       | cpu 2          | no: host cpu -1
        system cpu=4 cpu:4; user cpu=9     | cpu 1          | no: system cpu -1
        host mem=8; system mem=9; user     | mem 10         | no: host mem -2!, system mem -1!
        user                               | cpu 1000000    | fits
        user containers=2 containers:2     | containers 1, running 1 | no: user containers -1
        user running=1 running:1           | containers 1, running 1 | no: user running -1
    ");
}

#[test]
fn every_violation_is_told_outermost_level_first() {
    run("
        host cpu=1; system cpu=1; user cpu=1      | cpu 2              | no: host cpu -1!, system cpu -1!, user cpu -1!
        user cpu=2 cpu:2 mem=4 mem:1 pids=1       | cpu 1, mem 9, pids 2 | no: user cpu -1, user mem -6!, user pids -1!
        team cpu=4 cpu:4; pool cpu=0; mine cpu=1 cpu:1 | cpu 1         | no: team cpu -1, pool cpu -1
        host mem=1; team gpus=0                   | mem 2, gpus 1      | no: host mem -1!, team gpus -1!
    ");
}

#[test]
fn what_does_not_grow_always_passes() {
    run("
        # An over-limit GPU never blocks a CPU container.
        user gpus=0 gpus:2 cpu=2           | cpu 1          | fits
        user cpu=2 cpu:5                   | cpu 5>5        | fits
        user cpu=2 cpu:5                   | cpu 5>4        | fits
        user cpu=2 cpu:5                   | cpu 5>0        | fits
        user cpu=2 cpu:5                   | cpu 5>6        | no: user cpu -4!
        user cpu=2 cpu:5 mem=9             | cpu 5>4, mem 1 | fits
        host cpu=1 cpu:9; system cpu=1 cpu:9; user cpu=1 cpu:9 | cpu 0 | fits
        team cpu=1 cpu:9; pool cpu=0 cpu:9; mine cpu:9 | cpu 9>8 | fits
        team cpu=1 cpu:9; pool cpu=0 cpu:9; mine cpu:9 | cpu 9>9, mem 1 | fits
    ");
}

#[test]
fn only_what_grows_counts_against_the_limit() {
    run("
        user cpu=4 cpu:3                   | cpu 2>3        | fits
        user cpu=4 cpu:3                   | cpu 2>4        | no: user cpu -1
        user cpu=4 cpu:4                   | cpu 3>5        | no: user cpu -2!
    ");
}

#[test]
fn the_team_goes_first_both_ways() {
    run("
        # The team has room: the member's own allotment does not block, the pool lends.
        team cpu=10 cpu:3; pool cpu=4; mine cpu=3 cpu:3          | cpu 2 | fits
        team cpu=10 cpu:3; pool cpu=4; mine cpu=0                | cpu 2 | fits
        # The team has no room: an unused allotment does not help.
        team cpu=10 cpu:10; pool cpu=4 cpu:4; mine cpu=3         | cpu 1 | no: team cpu -1
        team cpu=10 cpu:9; pool cpu=4; mine cpu=3                | cpu 3 | no: team cpu -2
        # A member's own user quota is not asked in a team: it is not on the path at all.
        team; pool; mine                                         | cpu 99 | fits
    ");
}

#[test]
fn the_pool_lends_what_nobody_borrowed() {
    run("
        team cpu=10 cpu:4; pool cpu=4 cpu:2; mine cpu=2 cpu:2    | cpu 2 | fits
        team cpu=10 cpu:4; pool cpu=4 cpu:2; mine cpu=2 cpu:2    | cpu 3 | no: pool cpu -1
        # What fits into the own allotment borrows nothing, whatever the pool.
        team cpu=10 cpu:4; pool cpu=0 cpu:2; mine cpu=3 cpu:2    | cpu 1 | fits
        team cpu=10 cpu:4; pool cpu=0 cpu:2; mine cpu=3 cpu:2    | cpu 2 | no: pool cpu -3
        # Part from the allotment, part from the pool.
        team cpu=10; pool cpu=2; mine cpu=3                      | cpu 5 | fits
        team cpu=10; pool cpu=2; mine cpu=3                      | cpu 6 | no: pool cpu -1!
        # A former member has an allotment of nothing: everything is borrowed.
        team cpu=10 cpu:3; pool cpu=3 cpu:3; mine cpu:3          | cpu 1 | no: pool cpu -1
        team cpu=10; pool; mine cpu=1                            | cpu 9 | fits
    ");
}

#[test]
fn a_borrow_limit_holds_one_member() {
    run("
        team; pool cpu=4; mine cpu=1; borrow cpu=2               | cpu 3 | fits
        team; pool cpu=4; mine cpu=1; borrow cpu=2               | cpu 4 | no: member cpu -1!
        team; pool cpu=4 cpu:2; mine cpu=1 cpu:3; borrow cpu=2   | cpu 1 | no: member cpu -1
        team; pool cpu=4 cpu:4; mine cpu=1 cpu:2; borrow cpu=2   | cpu 2 | no: pool cpu -2, member cpu -1
        # A borrow limit beyond the pool says nothing that the pool does not.
        team; pool cpu=1; mine; borrow cpu=5                     | cpu 2 | no: pool cpu -1!
        team; pool cpu=4; mine cpu=2; borrow cpu=0               | cpu 2 | fits
        team; pool cpu=4; mine cpu=2; borrow cpu=0               | cpu 3 | no: member cpu -1!
        team; pool; mine; borrow cpu=1                           | cpu 2 | no: member cpu -1!
    ");
}

#[test]
fn a_factor_stretches_limit_allotments_and_pool_alike() {
    run("
        user cpu=4 x1.5                    | cpu 6          | fits
        user cpu=4 x1.5                    | cpu 7          | no: user cpu -1!
        user cpu=5 x0.5                    | cpu 2          | fits
        user cpu=5 x0.5                    | cpu 3          | no: user cpu -1!
        user x2                            | cpu 99         | fits
        team cpu=4 x1.5; pool cpu=2; mine cpu=2 | cpu 6     | fits
        team cpu=9 x1.5; pool cpu=2; mine cpu=2 | cpu 7     | no: pool cpu -1!
        team cpu=9 x1.5; pool cpu=2; mine cpu=2 cpu:3 | cpu 3 | fits
        # One level's factor is no other's.
        host cpu=4; user cpu=4 x2          | cpu 5          | no: host cpu -1!
        user cpu=max x2                    | cpu max        | fits
    ");
}

#[test]
fn shadow_watches_and_off_rests() {
    run("
        user cpu=2 shadow                  | cpu 3          | fits: ~user cpu -1!
        user cpu=2 off                     | cpu 3          | fits
        system cpu=2 shadow; user cpu=2    | cpu 3          | no: ~system cpu -1!, user cpu -1!
        host cpu=2; user cpu=1 off         | cpu 3          | no: host cpu -1!
        team cpu=1 shadow; pool cpu=0; mine| cpu 2          | fits: ~team cpu -1!, ~pool cpu -2!
        team cpu=1 off; pool cpu=0; mine   | cpu 2          | fits
        team shadow; pool cpu=9; mine; borrow cpu=1 | cpu 2 | fits: ~member cpu -1!
    ");
}

#[test]
fn a_sum_beyond_64_bits_is_never_admitted() {
    run("
        user cpu:max                       | cpu 1          | no: user cpu -1
        user cpu=max cpu:max               | cpu 1          | no: user cpu -1
        user cpu=max cpu:max               | cpu max        | no: user cpu -18446744073709551615
        host cpu:max; user                 | cpu 1          | no: host cpu -1
        team cpu:max; pool; mine           | cpu 1          | no: team cpu -1
        user cpu=5                         | cpu max        | no: user cpu -18446744073709551610!
    ");
}
