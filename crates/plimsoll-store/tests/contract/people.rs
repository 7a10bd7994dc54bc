//! Users, teams, members, projects, tokens and the log of what was done to them.

use plimsoll_core::entity::{CertId, MemberRole, ProjectId, SYSTEM_ID, TokenId};
use plimsoll_core::quota::{built_in_classes, system_limits};
use plimsoll_core::{Dimension, Limit, Limits};
use plimsoll_store::{
    NewMember, NewToken, NewUser, Project, Role, StoreError, TeamChoice, UserChange,
};

use crate::world::{World, container, cpu};

#[tokio::test]
async fn a_new_user_has_the_quota_of_their_class_at_once() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let quota = w.store.quota(ada.0).unwrap();
    assert_eq!(quota.class, "standard");
    assert_eq!(quota.version, 1);
    assert_eq!(quota.limits, built_in_classes()[0].limits);
    let new = NewUser {
        class: Some("student".into()),
        ..w.new_user("sam")
    };
    let sam = w.store.add_user(new, w.actor()).await.unwrap();
    assert_eq!(w.store.quota(sam.id.0).unwrap().class, "student");
    let new = NewUser {
        class: Some("royal".into()),
        ..w.new_user("eve")
    };
    assert_refused!(
        w.store.add_user(new, w.actor()).await,
        StoreError::NotFound { what: "class", .. }
    );
    // Nothing half-done: the name is still free.
    w.user("eve").await;
    assert_eq!(w.store.quota(SYSTEM_ID).unwrap().limits, system_limits());
}

#[tokio::test]
async fn every_user_has_a_span_of_ports_that_nobody_else_has() {
    let w = World::new().await;
    let mut slots = Vec::new();
    for name in ["ada", "ben", "eve"] {
        let id = w.user(name).await;
        slots.push(w.store.user(&id.to_string()).unwrap().port_slot);
    }
    assert_eq!(slots, [0, 1, 2]);
    let ben = w.store.user("ben").unwrap().id;
    w.store.delete_user(ben, false, w.actor()).await.unwrap();
    // The first that is free is given again.
    for (name, slot) in [("flo", 1), ("gus", 3)] {
        w.user(name).await;
        assert_eq!(w.store.user(name).unwrap().port_slot, slot, "{name}");
    }
}

#[tokio::test]
async fn names_and_uids_are_unique_and_found_again() {
    let w = World::new().await;
    let new = NewUser {
        os_uid: Some(1001),
        ..w.new_user("ada")
    };
    let ada = w.store.add_user(new, w.actor()).await.unwrap();
    let again = w.store.add_user(w.new_user("ada"), w.actor()).await;
    assert_refused!(again, StoreError::Conflict(_), "ada");
    let new = NewUser {
        os_uid: Some(1001),
        ..w.new_user("bob")
    };
    assert_refused!(
        w.store.add_user(new, w.actor()).await,
        StoreError::Conflict(_),
        "1001"
    );
    let bob = w.user("bob").await;
    let taken = w.store.change_user(
        bob,
        UserChange {
            os_uid: Some(Some(1001)),
            ..UserChange::default()
        },
        w.actor(),
    );
    assert_refused!(taken.await, StoreError::Conflict(_), "1001");
    assert_eq!(w.store.user_by_uid(1001).unwrap().unwrap().id, ada.id);
    assert!(w.store.user_by_uid(1002).unwrap().is_none());
    for spelled in [
        "ada".to_owned(),
        ada.id.to_string(),
        ada.id.to_string().to_uppercase(),
        ada.id.hex(),
    ] {
        assert_eq!(w.store.user(&spelled).unwrap().id, ada.id, "{spelled}");
    }
    assert_refused!(w.store.user("eve"), StoreError::NotFound { .. }, "eve");

    let ml = w.team("ml").await;
    let again = w
        .store
        .add_team(
            plimsoll_core::entity::TeamId(w.id()),
            "ml".parse().unwrap(),
            None,
            w.actor(),
        )
        .await;
    assert_refused!(again, StoreError::Conflict(_), "ml");
    assert_eq!(w.store.team(&ml.hex()).unwrap().id, ml);
    assert_eq!(w.store.users().await.unwrap().len(), 2);
    assert_eq!(w.store.teams().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_team_starts_empty_and_takes_what_is_not_summed_from_its_class() {
    let w = World::new().await;
    let ml = w.store.team(&w.team("ml").await.to_string()).unwrap();
    let standard = built_in_classes()[0].limits;
    for d in Dimension::ALL {
        let expected = if d.is_summed() {
            Limit::AtMost(0)
        } else {
            standard[d]
        };
        assert_eq!(ml.total[d], expected, "{d}");
        assert_eq!(ml.pool[d], expected, "{d}");
    }
}

#[tokio::test]
async fn the_first_team_gets_a_copy_of_the_users_quota_and_becomes_the_default() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let (ml, web) = (w.team("ml").await, w.team("web").await);
    let plain = |team| NewMember {
        allotment: None,
        ..w.place(team, ada, 0)
    };
    let first = w.store.put_member(plain(ml), w.actor()).await.unwrap();
    assert_eq!(first.allotment[Dimension::Cpu], Limit::AtMost(4000));
    assert_eq!(first.role, MemberRole::Member);
    assert_eq!(w.store.user("ada").unwrap().default_team, Some(ml));
    // Later changes of the user's quota do not follow.
    w.set(ada.0, Dimension::Cpu, 1).await;
    let place = w.store.member(ml, ada).unwrap().unwrap();
    assert_eq!(place.allotment, first.allotment);
    // The second team gives nothing of its own, and does not become the default.
    let second = w.store.put_member(plain(web), w.actor()).await.unwrap();
    assert_eq!(second.allotment, Limits::nothing());
    assert_eq!(w.store.user("ada").unwrap().default_team, Some(ml));
    let places = w.store.members(None, Some(ada)).await.unwrap();
    assert_eq!(places.len(), 2);
    // Unless asked.
    let default = |team, default| NewMember {
        allotment: None,
        default: Some(default),
        ..w.place(team, ada, 0)
    };
    let put = |new| w.store.put_member(new, w.actor());
    put(default(web, true)).await.unwrap();
    assert_eq!(w.store.user("ada").unwrap().default_team, Some(web));
    put(default(web, false)).await.unwrap();
    assert_eq!(w.store.user("ada").unwrap().default_team, None);
}

#[tokio::test]
async fn what_is_named_replaces_its_part_of_what_there_would_be() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    let (ml, web) = (w.team("ml").await, w.team("web").await);
    let own = w.store.quota(ada.0).unwrap().limits;
    let named = |team, user, d, amount, from_pool| NewMember {
        allotment: Some(vec![(d, amount)]),
        from_pool,
        ..w.place(team, user, 0)
    };
    let put = async |new| w.store.put_member(new, w.actor()).await.unwrap().allotment;

    let first = put(named(ml, ada, Dimension::Cpu, 2000, false)).await;
    for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
        let expected = match d {
            Dimension::Cpu => 2000,
            // What the quota leaves open is promised to nobody: the pool serves it.
            d => own[d].at_most().unwrap_or(0),
        };
        assert_eq!(first[d], Limit::AtMost(expected), "{d}");
    }
    let changed = put(named(ml, ada, Dimension::Memory, 4 << 30, false)).await;
    let memory = Limit::AtMost(4 << 30);
    assert_eq!(changed, first.with(Dimension::Memory, memory));

    let two_cores = Limits::nothing().with(Dimension::Cpu, Limit::AtMost(2000));
    let second = put(named(web, ada, Dimension::Cpu, 2000, false)).await;
    assert_eq!(second, two_cores, "a second team starts from nothing");
    w.set(web.0, Dimension::Cpu, 2000).await;
    let led = put(named(web, bob, Dimension::Cpu, 2000, true)).await;
    assert_eq!(led, two_cores, "and so does what comes out of the pool");
    w.sound().await;
}

#[tokio::test]
async fn a_lead_gives_only_what_the_pool_has() {
    let w = World::new().await;
    let (ada, bob) = (w.user("ada").await, w.user("bob").await);
    let ml = w.team("ml").await;
    w.set(ml.0, Dimension::Cpu, 3000).await;
    let cpu_of = |user, milli| NewMember {
        allotment: Some(vec![(Dimension::Cpu, milli)]),
        from_pool: true,
        ..w.place(ml, user, 0)
    };
    let before = w.store.team("ml").unwrap();
    w.store
        .put_member(cpu_of(ada, 2000), w.actor())
        .await
        .unwrap();
    let after = w.store.team("ml").unwrap();
    assert_eq!(after.total, before.total, "the sum is preserved");
    assert_eq!(after.pool[Dimension::Cpu], Limit::AtMost(1000));
    let too_much = w.store.put_member(cpu_of(bob, 1500), w.actor()).await;
    assert_refused!(too_much, StoreError::Invalid(_), "0.5");
    assert!(
        w.store.member(ml, bob).unwrap().is_none(),
        "nothing half-done"
    );
    // Between members: down, then up, within one pool.
    w.store
        .put_member(cpu_of(ada, 500), w.actor())
        .await
        .unwrap();
    w.store
        .put_member(cpu_of(bob, 1500), w.actor())
        .await
        .unwrap();
    let moved = w.store.team("ml").unwrap();
    assert_eq!(moved.total, before.total);
    assert_eq!(moved.pool[Dimension::Cpu], Limit::AtMost(1000));
    // Leaving gives it back.
    w.store
        .remove_member(ml, bob, false, true, w.actor())
        .await
        .unwrap();
    let left = w.store.team("ml").unwrap();
    assert_eq!(left.total, before.total);
    assert_eq!(left.pool[Dimension::Cpu], Limit::AtMost(2500));
}

#[tokio::test]
async fn an_allotment_bounds_only_what_teams_sum_up() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let ml = w.team("ml").await;
    let odd = NewMember {
        allotment: Some(vec![(Dimension::Runtime, 1)]),
        ..w.place(ml, ada, 0)
    };
    assert_refused!(
        w.store.put_member(odd, w.actor()).await,
        StoreError::Invalid(_),
        "runtime"
    );
}

#[tokio::test]
async fn who_still_holds_something_stays_unless_drained() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    w.join(ml, ada, 2000).await;
    let held = w.run(ada, container(1000)).await;
    for refused in [
        w.store.delete_user(ada, false, w.actor()).await.map(drop),
        w.store.delete_team(ml, false, w.actor()).await.map(drop),
        w.store
            .remove_member(ml, ada, false, false, w.actor())
            .await,
    ] {
        assert_refused!(refused, StoreError::Conflict(_), "drain");
    }
    assert!(!w.store.delete_user(ada, true, w.actor()).await.unwrap());
    assert!(!w.store.delete_team(ml, true, w.actor()).await.unwrap());
    let new = w.request(w.claim(ada, cpu(1)));
    assert_refused!(w.store.reserve(new).await, StoreError::Forbidden(_));
    assert!(w.store.finish_drains(w.actor()).await.unwrap().is_empty());
    w.store.release(held, w.now()).await.unwrap();
    let gone = w.store.finish_drains(w.actor()).await.unwrap();
    assert_eq!(gone, ["ada", "ml"]);
    assert_refused!(w.store.user("ada"), StoreError::NotFound { .. });
    assert_refused!(w.store.team("ml"), StoreError::NotFound { .. });
    // What they did is still told.
    assert_eq!(
        w.store.reservation(held).unwrap().user_name,
        ada.to_string()
    );
    w.sound().await;
}

#[tokio::test]
async fn a_member_who_left_counts_as_borrowing_until_released() {
    let w = World::new().await;
    let (ada, bob, ml) = (w.user("ada").await, w.user("bob").await, w.team("ml").await);
    w.join(ml, ada, 2000).await;
    w.join(ml, bob, 1000).await;
    let held = w.run(ada, container(1500)).await;
    assert_eq!(w.team_cpu(ml), (1500, 0));
    w.store
        .remove_member(ml, ada, true, false, w.actor())
        .await
        .unwrap();
    assert_eq!(w.team_cpu(ml), (1500, 1500));
    assert_eq!(w.store.user("ada").unwrap().default_team, None);
    let claim = plimsoll_store::Claim {
        team: TeamChoice::Team(ml),
        ..w.claim(ada, cpu(1))
    };
    assert_refused!(
        w.store.reserve(w.request(claim)).await,
        StoreError::Forbidden(_),
        "not a member"
    );
    // Shrinking, stopping and removing still work.
    let shrunk = w.store.resize(held, container(1200), w.deed()).await;
    assert!(shrunk.unwrap().decision.allowed);
    assert_eq!(w.team_cpu(ml), (1200, 1200));
    w.sound().await;
    w.join(ml, ada, 1000).await;
    assert_eq!(w.team_cpu(ml), (1200, 200));
    w.store.release(held, w.now()).await.unwrap();
    assert_eq!(w.team_cpu(ml), (0, 0));
    w.sound().await;
}

#[tokio::test]
async fn the_suspended_make_no_new_claims_and_keep_what_runs() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let held = w.run(ada, container(1000)).await;
    let change = |suspended| {
        w.store.change_user(
            ada,
            UserChange {
                suspended: Some(suspended),
                ..UserChange::default()
            },
            w.actor(),
        )
    };
    change(true).await.unwrap();
    let new = w.request(w.claim(ada, cpu(1)));
    assert_refused!(w.store.reserve(new).await, StoreError::Forbidden(_), "ada");
    assert_refused!(
        w.store.evaluate(&w.claim(ada, cpu(1))),
        StoreError::Forbidden(_)
    );
    let larger = w.store.resize(held, container(1001), w.deed()).await;
    assert_refused!(larger, StoreError::Forbidden(_));
    let smaller = w
        .store
        .resize(held, container(900), w.deed())
        .await
        .unwrap();
    assert!(smaller.decision.allowed);
    w.store.stopped(held, w.now()).await.unwrap();
    assert_refused!(
        w.store.start(held, w.deed()).await,
        StoreError::Forbidden(_)
    );
    change(false).await.unwrap();
    assert!(
        w.store
            .start(held, w.deed())
            .await
            .unwrap()
            .decision
            .allowed
    );
    w.sound().await;
}

#[tokio::test]
async fn projects_have_one_owner_and_a_name_in_it() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    let project = |name: &str, team, user| Project {
        id: ProjectId(w.id()),
        name: name.into(),
        team,
        user,
        created_ms: w.now(),
    };
    let add = |p| w.store.add_project(p, w.actor());
    let first = add(project("x", Some(ml), None)).await.unwrap();
    add(project("x", None, Some(ada))).await.unwrap();
    assert_refused!(
        add(project("x", Some(ml), None)).await,
        StoreError::Conflict(_),
        "x"
    );
    for (team, user) in [(None, None), (Some(ml), Some(ada))] {
        assert_refused!(add(project("y", team, user)).await, StoreError::Invalid(_));
    }
    w.store.delete_project(first.id, w.actor()).await.unwrap();
    assert_refused!(
        w.store.delete_project(first.id, w.actor()).await,
        StoreError::NotFound { .. }
    );
    assert_eq!(w.store.projects().await.unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_open_until_they_expire_or_are_revoked() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let token = |hash: &str, user, expires_ms| NewToken {
        id: TokenId(w.id()),
        hash: hash.into(),
        user,
        role: Role::Member,
        label: "laptop".into(),
        expires_ms,
    };
    let add = |t| w.store.add_token(t, w.actor());
    let kept = add(token("h1", Some(ada), None)).await.unwrap();
    add(token("h2", Some(ada), Some(w.now() + 10)))
        .await
        .unwrap();
    let nobody = plimsoll_core::entity::UserId(w.id());
    assert_refused!(
        add(token("h3", Some(nobody), None)).await,
        StoreError::NotFound { .. }
    );
    let opens = |hash: &str, now| w.store.token_by_hash(hash, now).unwrap().is_some();
    assert!(opens("h1", w.now()));
    assert!(opens("h2", w.now() + 9));
    assert!(!opens("h2", w.now() + 10));
    assert!(!opens("h3", w.now()));
    w.store.revoke_token(kept.id, w.actor()).await.unwrap();
    assert!(!opens("h1", w.now()));
    w.store.revoke_token(kept.id, w.actor()).await.unwrap();
    assert_refused!(
        w.store.revoke_token(TokenId(w.id()), w.actor()).await,
        StoreError::NotFound { .. }
    );
    assert_eq!(w.store.tokens(Some(ada)).await.unwrap().len(), 2);
    // A user's tokens go with them.
    w.store.delete_user(ada, false, w.actor()).await.unwrap();
    assert!(w.store.tokens(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn certificates_name_their_user_until_they_are_revoked_or_the_user_is_gone() {
    let w = World::new().await;
    let (ada, ben) = (w.user("ada").await, w.user("ben").await);
    let issue = async |user, expires| {
        let serial = CertId(w.id());
        let kept = w.store.add_cert(serial, user, expires, w.actor()).await;
        kept.map(|cert| cert.serial)
    };
    let first = issue(ada, w.now() + 10).await.unwrap();
    let second = issue(ada, w.now() + 20).await.unwrap();
    issue(ben, w.now() + 10).await.unwrap();
    let nobody = plimsoll_core::entity::UserId(w.id());
    assert_refused!(
        issue(nobody, w.now() + 10).await,
        StoreError::NotFound { .. }
    );
    let serials = async |user| -> Vec<_> {
        let certs = w.store.certs(user).await.unwrap();
        certs.iter().map(|cert| cert.serial).collect()
    };
    assert_eq!(serials(ada).await, [first, second]);

    let (cert, user) = w.store.cert(first).unwrap().unwrap();
    assert_eq!((user.id, cert.revoked_ms), (ada, None));
    w.store.revoke_cert(first, w.actor()).await.unwrap();
    w.store.revoke_cert(first, w.actor()).await.unwrap();
    let revoked = |serial| w.store.cert(serial).unwrap().unwrap().0.revoked_ms;
    assert_eq!(revoked(first), Some(w.actor().at_ms));
    assert_eq!(revoked(second), None);
    let unknown = CertId(w.id());
    assert_eq!(w.store.cert(unknown).unwrap(), None);
    assert_refused!(
        w.store.revoke_cert(unknown, w.actor()).await,
        StoreError::NotFound { .. }
    );
    w.store.delete_user(ada, false, w.actor()).await.unwrap();
    assert_eq!(w.store.cert(second).unwrap(), None);
}

#[tokio::test]
async fn the_log_only_grows() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let log = w.store.audit(None, 10).await.unwrap();
    let actions: Vec<_> = log.iter().map(|line| line.action.as_str()).collect();
    assert_eq!(actions, ["quota.change", "user.add"]);
    assert_eq!(log[0].actor, "test");
    assert_eq!(log[0].reason.as_deref(), Some("because"));
    assert!(log[0].before.is_some() && log[0].after.is_some());
    let older = w.store.audit(Some(log[0].seq), 10).await.unwrap();
    assert_eq!(older.len(), 1);
    for tampering in ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"] {
        let error = w.shell().execute(tampering, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
    // What failed is not in it.
    let _ = w.store.add_user(w.new_user("ada"), w.actor()).await;
    assert_eq!(w.store.audit(None, 10).await.unwrap().len(), 2);
}
