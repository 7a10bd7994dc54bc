//! What must hold whatever is asked: nothing is oversold, allotments are there for their members, a
//! release undoes a reserve, a verdict is complete, and a remedy helps.

use plimsoll_core::quota::{Mode, TeamMode, TeamShape, overflow};
use plimsoll_core::remedy::{Holding, RemedyKind, remedies};
use plimsoll_core::{
    Amounts, Dimension, Level, LevelKind, Limit, Limits, Owner, Path, State, TeamPath, admit,
};
use proptest::prelude::*;
use uuid::Uuid;

/// The dimensions the properties range over: one that stops free, one that only removal frees.
const D: [Dimension; 3] = [
    Dimension::Memory,
    Dimension::Containers,
    Dimension::ConcurrentContainers,
];

fn amounts(most: u64) -> impl Strategy<Value = Amounts> {
    prop::array::uniform3(0..=most).prop_map(|values| {
        D.into_iter()
            .zip(values)
            .fold(Amounts::ZERO, |sum, (d, n)| sum.with(d, n))
    })
}

fn limits(most: u64) -> impl Strategy<Value = Limits> {
    let limit = prop_oneof![
        1 => Just(Limit::Unlimited),
        5 => (0..=most).prop_map(Limit::AtMost),
    ];
    prop::array::uniform3(limit).prop_map(|values| {
        D.into_iter()
            .zip(values)
            .fold(Limits::UNLIMITED, |all, (d, limit)| all.with(d, limit))
    })
}

fn bounded(most: u64) -> impl Strategy<Value = Limits> {
    amounts(most).prop_map(|a| {
        D.into_iter().fold(Limits::nothing(), |all, d| {
            all.with(d, Limit::AtMost(a.get(d)))
        })
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Shadow), 1 => Just(Mode::Off)]
}

/// A team on one host, with what each member charges.
#[derive(Debug, Clone)]
struct Team {
    host: Limits,
    own: Limits,
    kind: TeamMode,
    permille: u32,
    mode: Mode,
    allotments: Vec<Limits>,
    borrow: Vec<Limits>,
    held: Vec<Amounts>,
}

fn team() -> impl Strategy<Value = Team> {
    let members = prop::collection::vec((bounded(6), limits(8)), 2..5);
    let kind = prop_oneof![Just(TeamMode::Aggregate), Just(TeamMode::Fixed)];
    let permille = prop_oneof![3 => Just(1000u32), 1 => 1u32..3000];
    (limits(40), limits(12), kind, permille, mode(), members).prop_map(
        |(host, own, kind, permille, mode, members)| {
            let (allotments, borrow): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            let held = vec![Amounts::ZERO; allotments.len()];
            Team {
                host,
                own,
                kind,
                permille,
                mode,
                allotments,
                borrow,
                held,
            }
        },
    )
}

impl Team {
    fn shape(&self) -> TeamShape {
        TeamShape::derive(self.kind, &self.own, &self.allotments)
    }

    fn stretched(&self, limits: &Limits) -> Limits {
        limits.map(|_, limit| limit.times_permille(self.permille))
    }

    fn sum(&self) -> Amounts {
        self.held.iter().fold(Amounts::ZERO, |sum, held| {
            sum.checked_add(held).expect("small numbers")
        })
    }

    fn overflow(&self) -> Amounts {
        let places: Vec<Limits> = self.allotments.iter().map(|a| self.stretched(a)).collect();
        overflow(self.held.iter().zip(&places))
    }

    fn path(&self, member: usize) -> Path {
        let shape = self.shape();
        let host = Level {
            limits: self.host,
            reserved: self.sum(),
            ..Level::open(Uuid::nil(), "host")
        };
        let system = Level {
            reserved: self.sum(),
            ..Level::open(Uuid::nil(), "system")
        };
        let team = Level {
            limits: shape.limit,
            reserved: self.sum(),
            mode: self.mode,
            overcommit_permille: self.permille,
            ..Level::open(Uuid::from_u128(1), "team")
        };
        Path {
            host,
            system,
            owner: Owner::Team(Box::new(TeamPath {
                team,
                pool: shape.pool,
                overflow: self.overflow(),
                member: Uuid::from_u128(2),
                member_name: "me".into(),
                allotment: self.allotments[member],
                member_reserved: self.held[member],
                borrow_limit: self.borrow[member],
            })),
        }
    }

    /// Asks for `claim` and charges it if it fits.
    fn reserve(&mut self, member: usize, claim: &Amounts) -> bool {
        let allowed = admit(&self.path(member), &Amounts::ZERO, claim).allowed();
        if allowed {
            self.held[member] = self.held[member].checked_add(claim).expect("small");
        }
        allowed
    }
}

fn within(amounts: &Amounts, limits: &Limits) -> bool {
    D.into_iter().all(|d| limits[d].allows(amounts.get(d)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_admitted_is_never_oversold(
        mut team in team(),
        claims in prop::collection::vec((0usize..4, amounts(5), any::<bool>()), 1..40),
    ) {
        let mut admitted: Vec<(usize, Amounts)> = Vec::new();
        for (member, claim, release) in claims {
            let member = member % team.held.len();
            if release && let Some((whose, what)) = admitted.pop() {
                team.held[whose] = team.held[whose].checked_sub(&what).expect("it was charged");
            }
            if team.reserve(member, &claim) {
                admitted.push((member, claim));
            }
            prop_assert!(within(&team.sum(), &team.host));
            if team.mode == Mode::Enforce {
                let shape = team.shape();
                prop_assert!(within(&team.sum(), &team.stretched(&shape.limit)));
                prop_assert!(within(&team.overflow(), &team.stretched(&shape.pool)));
                for (i, held) in team.held.iter().enumerate() {
                    let above = held.above(&team.stretched(&team.allotments[i]));
                    prop_assert!(within(&above, &team.borrow[i]));
                }
            }
        }
    }

    /// Whatever the others did, each member's allotment is there, as long as the allotments sum to no
    /// more than the team's limit and the host has room.
    #[test]
    fn every_allotment_is_there_for_its_member(
        mut team in team(),
        claims in prop::collection::vec((0usize..4, amounts(5)), 0..40),
    ) {
        team.host = Limits::UNLIMITED;
        let shape = team.shape();
        let promised = team.allotments.iter().fold(Amounts::ZERO, |sum, a| {
            D.into_iter().fold(sum, |sum, d| sum.with(d, sum.get(d) + a[d].at_most().unwrap_or(0)))
        });
        prop_assume!(within(&promised, &shape.limit));
        for (member, claim) in claims {
            team.reserve(member % team.held.len(), &claim);
        }
        for member in 0..team.held.len() {
            let own = team.stretched(&team.allotments[member]);
            let held = team.held[member];
            let rest = D.into_iter().fold(Amounts::ZERO, |rest, d| {
                rest.with(d, own[d].at_most().unwrap_or(0).saturating_sub(held.get(d)))
            });
            let verdict = admit(&team.path(member), &Amounts::ZERO, &rest);
            prop_assert!(team.mode != Mode::Enforce || verdict.allowed(), "{:?}", verdict);
        }
    }

    #[test]
    fn a_team_holds_what_its_members_hold(
        mut team in team(),
        claims in prop::collection::vec((0usize..4, amounts(5)), 1..20),
    ) {
        for (member, claim) in claims {
            let member = member % team.held.len();
            let path = team.path(member);
            if team.reserve(member, &claim) {
                // What the path says after the charge is what the team says.
                let charged = path.recharged(&Amounts::ZERO, &claim);
                prop_assert_eq!(&charged, &team.path(member));
                let Owner::Team(place) = charged.owner else { unreachable!() };
                prop_assert_eq!(place.team.reserved, team.sum());
                prop_assert_eq!(place.overflow, team.overflow());
            }
        }
    }

    #[test]
    fn a_release_undoes_a_reserve(mut team in team(), first in amounts(5), claim in amounts(9)) {
        team.reserve(0, &first);
        let path = team.path(0);
        let back = path
            .clone()
            .recharged(&Amounts::ZERO, &claim)
            .recharged(&claim, &Amounts::ZERO);
        prop_assert_eq!(back, path);
    }

    #[test]
    fn a_verdict_is_what_each_dimension_says_alone(
        mut team in team(),
        first in amounts(6),
        before in amounts(3),
        after in amounts(9),
    ) {
        team.held[0] = first.checked_add(&before).expect("small");
        let path = team.path(0);
        let whole = admit(&path, &before, &after).violations;
        let mut alone = Vec::new();
        for d in D {
            let one = after.get(d);
            let verdict = admit(&path, &before, &before.with(d, one));
            alone.extend(verdict.violations);
        }
        alone.sort_by_key(|v| (v.level, v.dimension));
        prop_assert_eq!(&whole, &alone);
        for v in &whole {
            prop_assert!(after.get(v.dimension) > before.get(v.dimension));
            prop_assert_eq!(v.short_by, v.reserved + v.requested - v.limit);
            prop_assert!(v.short_by > 0);
        }
    }

    /// A smaller claim is never refused where a larger one is admitted.
    #[test]
    fn less_always_fits_where_more_does(mut team in team(), held in amounts(6), claim in amounts(6), cut in amounts(6)) {
        team.held[0] = held;
        let path = team.path(0);
        let smaller = D.into_iter().fold(claim, |c, d| {
            c.with(d, claim.get(d).saturating_sub(cut.get(d)))
        });
        if admit(&path, &Amounts::ZERO, &claim).allowed() {
            prop_assert!(admit(&path, &Amounts::ZERO, &smaller).allowed());
        }
    }

    /// Taking a remedy's advice makes the claim fit.
    #[test]
    fn every_remedy_helps(
        mut team in team(),
        others in amounts(6),
        claims in prop::collection::vec((amounts(4), any::<bool>()), 0..6),
        claim in amounts(9),
        own_quota in any::<bool>(),
    ) {
        // Memory in 8 MiB, so that it can be asked for and shrunk on the command line.
        let mib = |a: Amounts| a.with(Dimension::Memory, a.get(Dimension::Memory) << 23);
        let wide = |l: &Limits| l.with(
            Dimension::Memory,
            l[Dimension::Memory].at_most().map(|n| n << 23).into(),
        );
        team.host = wide(&team.host);
        team.own = wide(&team.own);
        for place in team.allotments.iter_mut().chain(&mut team.borrow) {
            *place = wide(place);
        }
        let claim = mib(claim);
        let holdings: Vec<Holding> = claims
            .into_iter()
            .enumerate()
            .map(|(n, (claim, runs))| Holding {
                name: format!("c{n}"),
                claim: mib(claim),
                state: if runs { State::Active } else { State::Stopped },
            })
            .collect();
        team.held[0] = holdings.iter().fold(Amounts::ZERO, |sum, h| {
            sum.checked_add(&h.state.charge(&h.claim)).expect("small")
        });
        team.held[1] = mib(others);
        let mut path = team.path(0);
        if own_quota {
            path.owner = Owner::User(Level {
                limits: team.own,
                reserved: team.held[0],
                ..Level::open(Uuid::nil(), "me")
            });
        }
        let verdict = admit(&path, &Amounts::ZERO, &claim);
        let steps = remedies(&path, &Amounts::ZERO, &claim, &verdict, None, &holdings, &[]);
        prop_assert_eq!(steps.is_empty(), verdict.allowed());
        for step in steps {
            let command = step.command.as_deref().unwrap_or_default();
            match step.kind {
                RemedyKind::Shrink => {
                    let mut words = command.split_whitespace();
                    let mut smaller = claim;
                    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
                        prop_assert_eq!(flag, "--memory");
                        let bytes = plimsoll_core::units::Bytes::parse(value).expect("a size");
                        smaller[Dimension::Memory] = bytes.0;
                    }
                    prop_assert!(smaller != claim);
                    prop_assert!(admit(&path, &Amounts::ZERO, &smaller).allowed(), "{command}");
                }
                RemedyKind::Stop | RemedyKind::Remove => {
                    let to = if step.kind == RemedyKind::Stop { State::Stopped } else { State::Released };
                    let mut freed = Amounts::ZERO;
                    let after = holdings
                        .iter()
                        .filter(|h| command.split_whitespace().any(|word| word == h.name))
                        .fold(path.clone(), |path, h| {
                            let (from, to) = (h.state.charge(&h.claim), to.charge(&h.claim));
                            let more = from.checked_sub(&to).expect("stopping frees");
                            freed = freed.checked_add(&more).expect("small");
                            path.recharged(&from, &to)
                        });
                    prop_assert_eq!(step.frees, Some(freed));
                    prop_assert!(admit(&after, &Amounts::ZERO, &claim).allowed(), "{command}");
                }
                RemedyKind::Ask => prop_assert!(command.is_empty()),
            }
        }
    }

    #[test]
    fn a_level_that_is_off_or_in_shadow_refuses_nothing(mut team in team(), held in amounts(20), claim in amounts(20)) {
        team.held[0] = held;
        team.host = Limits::UNLIMITED;
        let verdict = admit(&team.path(0), &Amounts::ZERO, &claim);
        match team.mode {
            Mode::Enforce => {}
            Mode::Shadow => prop_assert!(verdict.allowed()),
            Mode::Off => prop_assert!(verdict.violations.is_empty()),
        }
        for v in &verdict.violations {
            prop_assert!(matches!(v.level, LevelKind::Team | LevelKind::Pool | LevelKind::Member));
        }
    }

    #[test]
    fn amounts_add_up_or_say_no(a in prop::array::uniform8(any::<u64>()), b in prop::array::uniform8(any::<u64>())) {
        let fill = |values: [u64; 8]| Dimension::CHARGED
            .into_iter()
            .zip(values)
            .fold(Amounts::ZERO, |sum, (d, n)| sum.with(d, n));
        let (x, y) = (fill(a), fill(b));
        match x.checked_add(&y) {
            Some(sum) => prop_assert_eq!(sum.checked_sub(&y), Some(x)),
            None => prop_assert!(a.iter().zip(b).any(|(a, b)| a.checked_add(b).is_none())),
        }
        let text = serde_json::to_string(&x).expect("amounts are numbers");
        prop_assert_eq!(serde_json::from_str::<Amounts>(&text).expect("as written"), x);
    }
}
