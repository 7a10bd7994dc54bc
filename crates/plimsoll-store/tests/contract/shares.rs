//! Grants, requests, and what moves within a team.

use plimsoll_core::entity::{EntityKind, GrantId, RedistributionId, RequestId, TeamId, UserId};
use plimsoll_core::share::{Holder, Move};
use plimsoll_core::{Dimension, Limit};
use plimsoll_store::{
    GrantState, GrantTo, NewGrant, NewRequest, Redistribute, RedistributionState, RequestState,
    StoreError,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{World, at_most, container, cpu};

impl World {
    fn grant(&self, to: GrantTo, milli: u64, from: i64, until: Option<i64>) -> NewGrant {
        NewGrant {
            id: GrantId(self.id()),
            to,
            added: vec![(Dimension::Cpu, milli)],
            from_ms: self.now() + from,
            until_ms: until.map(|ms| self.now() + ms),
        }
    }

    fn limit(&self, kind: EntityKind, id: uuid::Uuid) -> u64 {
        let standing = self.store.standing(kind, id).unwrap();
        standing.limits[Dimension::Cpu].at_most().unwrap()
    }

    fn pool(&self, team: TeamId) -> u64 {
        let team = self.store.team(&team.to_string()).unwrap();
        team.pool[Dimension::Cpu].at_most().unwrap()
    }

    fn allotment(&self, team: TeamId, user: UserId) -> (u64, u64) {
        let member = self.store.member(team, user).unwrap().unwrap();
        let of = |limits: plimsoll_core::Limits| limits[Dimension::Cpu].at_most().unwrap();
        (of(member.allotment), of(member.effective()))
    }

    async fn turned(&self) -> Vec<(&'static str, String)> {
        let turns = self.store.turn(self.now()).await.unwrap();
        turns.into_iter().map(|t| (t.what, t.whose)).collect()
    }

    fn moving(&self, team: TeamId, moves: &[(Holder, Holder, u64)]) -> Redistribute {
        Redistribute {
            id: RedistributionId(self.id()),
            team,
            moves: moves
                .iter()
                .map(|(from, to, milli)| Move {
                    from: *from,
                    to: *to,
                    amounts: vec![(Dimension::Cpu, *milli)],
                })
                .collect(),
            expires_ms: None,
            dry_run: false,
        }
    }
}

const POOL: Holder = Holder::Pool;

/// A team of two with 2 cores each and a pool of one.
async fn team(w: &World) -> (TeamId, UserId, UserId) {
    let (ml, ada, ben) = (w.team("ml").await, w.user("ada").await, w.user("ben").await);
    w.join(ml, ada, 2000).await;
    w.join(ml, ben, 2000).await;
    w.set(ml.0, Dimension::Cpu, 1000).await;
    (ml, ada, ben)
}

#[tokio::test]
async fn a_grant_counts_from_its_beginning_to_its_end() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let limit = || w.limit(EntityKind::User, ada.0);
    let to = GrantTo::User(ada);
    let later = w.grant(to, 500, 100, Some(300));
    let given = w.store.give_grant(later, w.actor()).await.unwrap();
    assert_eq!((given.state, limit()), (GrantState::Planned, 1000));
    assert_eq!(w.turned().await, []);
    w.pass(100);
    assert_eq!(w.turned().await, [("grant.begin", "ada".to_owned())]);
    assert_eq!(limit(), 1500);
    w.sound().await;
    let shell = w.shell();
    let none = "UPDATE quota SET granted = '[]'";
    shell.execute(none, []).unwrap();
    let found = w.store.check().await.unwrap();
    assert!(
        found[0].contains("its grants sum to 0.5 of cpu"),
        "{found:?}"
    );
    let back = format!("UPDATE quota SET granted = '[[\"cpu\",500]]' WHERE entity_id = '{ada}'");
    shell.execute(&back, []).unwrap();
    // Two add up; an own change of the quota leaves both.
    let now = w.grant(to, 200, 0, None);
    let open = w.store.give_grant(now, w.actor()).await.unwrap();
    w.set(ada.0, Dimension::Cpu, 2000).await;
    assert_eq!(limit(), 2700);
    w.run(ada, container(2700)).await;
    w.pass(200);
    assert_eq!(w.turned().await, [("grant.end", "ada".to_owned())]);
    // What runs goes on, over the limit, and that is a violation.
    assert_eq!((limit(), w.user_cpu(ada)), (2200, 2700));
    let open_violations = w.store.violations(None, 10).await.unwrap();
    assert_eq!(open_violations.len(), 1);
    assert!(w.reserve(ada, cpu(1)).await.reservation.is_none());
    w.store.revoke_grant(open.id, w.actor()).await.unwrap();
    assert_eq!(limit(), 2000);
    assert_refused!(
        w.store.revoke_grant(open.id, w.actor()).await,
        StoreError::Conflict(_)
    );
    assert_eq!(w.store.grants(false, 10).await.unwrap(), []);
    assert_eq!(w.store.grants(true, 10).await.unwrap().len(), 2);
    let w = w.restarted().await;
    assert_eq!(w.limit(EntityKind::User, ada.0), 2000);
    w.sound().await;
}

#[tokio::test]
async fn grants_that_make_no_sense_are_refused() {
    let w = World::new().await;
    let (ml, ada, _) = team(&w).await;
    let stranger = w.user("eve").await;
    let user = GrantTo::User(ada);
    for grant in [
        w.grant(user, 0, 0, None),
        w.grant(user, 1, 0, Some(0)),
        w.grant(user, 1, 200, Some(100)),
        NewGrant {
            added: vec![(Dimension::Runtime, 3600)],
            ..w.grant(GrantTo::Member(ml, ada), 1, 0, None)
        },
        w.grant(GrantTo::Member(ml, ada), 1001, 0, None),
    ] {
        assert_refused!(
            w.store.give_grant(grant, w.actor()).await,
            StoreError::Invalid(_)
        );
    }
    let no_member = w.grant(GrantTo::Member(ml, stranger), 1, 0, None);
    assert_refused!(
        w.store.give_grant(no_member, w.actor()).await,
        StoreError::NotFound { .. }
    );
    assert_eq!(w.store.grants(true, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_members_grant_comes_from_the_pool_and_a_teams_adds_to_it() {
    let w = World::new().await;
    let (ml, ada, ben) = team(&w).await;
    let member = w.grant(GrantTo::Member(ml, ada), 800, 0, Some(100));
    w.store.give_grant(member, w.actor()).await.unwrap();
    assert_eq!(w.allotment(ml, ada), (2000, 2800));
    assert_eq!((w.pool(ml), w.limit(EntityKind::Team, ml.0)), (200, 5000));
    // What is granted is not there to be given twice, by a grant, an addition or a move.
    let again = w.grant(GrantTo::Member(ml, ben), 201, 0, None);
    assert_refused!(
        w.store.give_grant(again, w.actor()).await,
        StoreError::Invalid(_),
        "ask an administrator"
    );
    let taken = plimsoll_store::NewMember {
        allotment: Some(vec![(Dimension::Cpu, 2201)]),
        from_pool: true,
        ..w.place(ml, ben, 0)
    };
    assert_refused!(
        w.store.put_member(taken, w.actor()).await,
        StoreError::Invalid(_)
    );
    let moved = w.moving(ml, &[(POOL, Holder::Member(ben), 201)]);
    assert_refused!(
        w.store.redistribute(moved, w.actor()).await,
        StoreError::Invalid(_)
    );
    let whole = w.grant(GrantTo::Team(ml), 500, 0, None);
    w.store.give_grant(whole, w.actor()).await.unwrap();
    assert_eq!((w.pool(ml), w.limit(EntityKind::Team, ml.0)), (700, 5500));
    // Ada may have all of hers and the pool; ben's 2 cores stay for ben.
    w.run(ada, container(3500)).await;
    assert!(w.reserve(ada, cpu(1)).await.reservation.is_none());
    w.run(ben, container(2000)).await;
    w.sound().await;
    w.pass(100);
    w.turned().await;
    assert_eq!(w.pool(ml), 1500);
    // Leaving ends what was granted to the place.
    let place = w.grant(GrantTo::Member(ml, ada), 100, 0, None);
    w.store.give_grant(place, w.actor()).await.unwrap();
    w.store
        .remove_member(ml, ada, true, false, w.actor())
        .await
        .unwrap();
    assert_eq!(w.pool(ml), 1500);
    w.join(ml, ada, 0).await;
    assert_eq!(w.allotment(ml, ada), (0, 0));
    w.sound().await;
}

#[tokio::test]
async fn a_request_is_answered_once() {
    let w = World::new().await;
    let (ml, ada, _) = team(&w).await;
    let ask = |milli, until: Option<i64>| NewRequest {
        id: RequestId(w.id()),
        user: ada,
        team: Some(ml),
        added: vec![(Dimension::Cpu, milli)],
        until_ms: until.map(|ms| w.now() + ms),
        reason: "a deadline".into(),
    };
    let first = w.store.ask(ask(600, Some(100)), w.actor()).await.unwrap();
    let approve = |id, until| {
        let grant = GrantId(w.id());
        w.store.approve(id, grant, until, w.actor())
    };
    let (request, grant) = approve(first.id, None).await.unwrap();
    assert_eq!(
        (request.state, request.grant),
        (RequestState::Approved, Some(grant.id))
    );
    assert_eq!(grant.until_ms, first.until_ms);
    assert_eq!(w.allotment(ml, ada), (2000, 2600));
    assert_refused!(approve(first.id, None).await, StoreError::Conflict(_));
    assert_refused!(
        w.store.deny(first.id, w.actor()).await,
        StoreError::Conflict(_)
    );
    // One that the pool cannot give stays open.
    let second = w.store.ask(ask(500, None), w.actor()).await.unwrap();
    assert_refused!(approve(second.id, None).await, StoreError::Invalid(_));
    assert_eq!(
        w.store.request(second.id).unwrap().state,
        RequestState::Open
    );
    let denied = w.store.deny(second.id, w.actor()).await.unwrap();
    assert_eq!(
        (denied.state, denied.answer.as_deref()),
        (RequestState::Denied, Some("because"))
    );
    // Nobody answers the third, and the grant of the first ends.
    w.store.ask(ask(1, Some(100)), w.actor()).await.unwrap();
    let fourth = w.store.ask(ask(1, None), w.actor()).await.unwrap();
    w.store.withdraw(fourth.id, w.actor()).await.unwrap();
    w.pass(100);
    assert_eq!(
        w.turned().await,
        [
            ("grant.end", "ml/ada".to_owned()),
            ("request.expire", "ada".to_owned())
        ]
    );
    assert_eq!(w.allotment(ml, ada), (2000, 2000));
    assert_eq!(w.store.requests(false, 10).await.unwrap(), []);
    assert_eq!(w.store.requests(true, 10).await.unwrap().len(), 4);
    assert_refused!(
        w.store.ask(ask(1, Some(0)), w.actor()).await,
        StoreError::Invalid(_)
    );
    for _ in 0..20 {
        w.store.ask(ask(1, None), w.actor()).await.unwrap();
    }
    assert_refused!(
        w.store.ask(ask(1, None), w.actor()).await,
        StoreError::Conflict(_),
        "withdraw"
    );
}

#[tokio::test]
async fn a_lead_moves_what_is_there_and_can_take_it_back() {
    let w = World::new().await;
    let (ml, ada, ben) = team(&w).await;
    let (a, b) = (Holder::Member(ada), Holder::Member(ben));
    w.run(ben, container(1800)).await;
    let state = || {
        let cpu = |user| w.allotment(ml, user).0;
        (cpu(ada), cpu(ben), w.pool(ml))
    };
    // A preview changes nothing and tells who would borrow.
    let preview = Redistribute {
        dry_run: true,
        ..w.moving(ml, &[(b, a, 500)])
    };
    let (_, over) = w.store.redistribute(preview, w.actor()).await.unwrap();
    assert_eq!((over.len(), over[0].user), (1, ben));
    assert_eq!(state(), (2000, 2000, 1000));
    assert_eq!(w.store.redistributions(ml, 10).await.unwrap().len(), 0);

    let both = w.moving(ml, &[(POOL, a, 1000), (b, a, 100)]);
    let (made, over) = w.store.redistribute(both, w.actor()).await.unwrap();
    assert!(over.is_empty());
    assert_eq!(state(), (3100, 1900, 0));
    assert_eq!(w.limit(EntityKind::Team, ml.0), 5000);
    let too_much = w.moving(ml, &[(a, b, 100), (POOL, b, 1)]);
    assert_refused!(
        w.store.redistribute(too_much, w.actor()).await,
        StoreError::Invalid(_),
        "pool"
    );
    assert_eq!(state(), (3100, 1900, 0));

    let (undone, _) = w
        .store
        .undo_redistribution(ml, made.id, w.actor())
        .await
        .unwrap();
    assert_eq!(undone.state, RedistributionState::Undone);
    assert_eq!(state(), (2000, 2000, 1000));
    assert_refused!(
        w.store.undo_redistribution(ml, made.id, w.actor()).await,
        StoreError::Conflict(_)
    );
    w.sound().await;
}

#[tokio::test]
async fn a_loan_ends_by_itself() {
    let w = World::new().await;
    let (ml, ada, ben) = team(&w).await;
    let loan = Redistribute {
        expires_ms: Some(w.now() + 100),
        ..w.moving(ml, &[(Holder::Member(ben), Holder::Member(ada), 600)])
    };
    w.store.redistribute(loan, w.actor()).await.unwrap();
    // Meanwhile an administrator leaves ada less than the loan.
    w.join(ml, ada, 400).await;
    let w = w.restarted().await;
    w.pass(100);
    assert_eq!(
        w.turned().await,
        [("redistribution.expire", "ml".to_owned())]
    );
    assert_eq!((w.allotment(ml, ada).0, w.allotment(ml, ben).0), (0, 1800));
    assert_eq!(w.turned().await, []);
    w.sound().await;
}

/// What the team has in sum, and that nobody is kept from their own, over random lives of a team.
#[test]
fn leads_never_make_more_of_what_a_team_was_given() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let step = (0u8..6, 0usize..4, 0usize..4, 1u64..1500);
    let steps = prop::collection::vec(step, 1..40);
    let mut runner = TestRunner::new(Config {
        cases: 16,
        ..Config::default()
    });
    let outcome = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let w = World::new().await;
            let (ml, ada, ben) = team(&w).await;
            let cleo = w.user("cleo").await;
            w.join(ml, cleo, 500).await;
            let users = [ada, ben, cleo];
            let holder = |n: usize| users.get(n).map_or(POOL, |user| Holder::Member(*user));
            for (what, from, to, milli) in steps {
                let user = users[from % 3];
                // Refusals are as good as successes: what must hold, holds after either.
                match what {
                    0 | 1 => {
                        let moves = w.moving(ml, &[(holder(from), holder(to), milli)]);
                        let asked = Redistribute {
                            expires_ms: (what == 1).then_some(w.now() + 50),
                            ..moves
                        };
                        let _ = w.store.redistribute(asked, w.actor()).await;
                    }
                    2 => {
                        let grant = w.grant(GrantTo::Member(ml, user), milli, 0, Some(70));
                        let _ = w.store.give_grant(grant, w.actor()).await;
                    }
                    3 => {
                        let place = plimsoll_store::NewMember {
                            allotment: Some(vec![(Dimension::Cpu, milli)]),
                            from_pool: true,
                            ..w.place(ml, user, 0)
                        };
                        let _ = w.store.put_member(place, w.actor()).await;
                    }
                    4 => {
                        let _ = w.reserve(user, cpu(milli)).await;
                    }
                    _ => {
                        w.pass(30);
                        w.store.turn(w.now()).await.unwrap();
                    }
                }
                let team = w.store.team("ml").unwrap();
                let members = w.store.members(Some(ml), None).await.unwrap();
                let own: u64 = members
                    .iter()
                    .map(|m| m.effective()[Dimension::Cpu].at_most().unwrap())
                    .sum();
                let pool = team.pool[Dimension::Cpu].at_most().unwrap();
                prop_assert_eq!(team.total[Dimension::Cpu], Limit::AtMost(5500));
                prop_assert_eq!(own + pool, 5500, "all of it is somebody's");
                prop_assert!(w.team_cpu(ml).0 <= 5500, "never oversold");
            }
            w.sound().await;
            Ok(())
        })
    });
    outcome.unwrap();
}

#[tokio::test]
async fn an_administrator_still_sets_the_sum() {
    let w = World::new().await;
    let (ml, ada, _) = team(&w).await;
    let grant = w.grant(GrantTo::Member(ml, ada), 1000, 0, None);
    w.store.give_grant(grant, w.actor()).await.unwrap();
    // A pool below what was granted out of it is empty, not negative.
    let change = at_most(Dimension::Cpu, 400);
    w.store.change_quota(ml.0, change, w.actor()).await.unwrap();
    assert_eq!(w.pool(ml), 0);
    w.sound().await;
}
