//! Quotas: versions, shapes, and decisions that see a change at once.

use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use plimsoll_core::quota::{Capacity, Mode, TeamMode};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_core::{Dimension, Limit};
use plimsoll_store::{QuotaChange, StoreError};

use crate::world::{World, at_most, cpu};

#[tokio::test]
async fn a_change_of_what_changed_meanwhile_is_refused() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let expecting = |version, most| QuotaChange {
        expected_version: Some(version),
        ..at_most(Dimension::Cpu, most)
    };
    let change = |c| w.store.change_quota(ada.0, c, w.actor());
    let changed = change(expecting(1, 100)).await.unwrap();
    assert_eq!(changed.version, 2);
    let stale = change(expecting(1, 200)).await;
    assert_refused!(stale, StoreError::Stale { now: 2 }, "2");
    let quota = w.store.quota(ada.0).unwrap();
    assert_eq!(quota.limits[Dimension::Cpu], Limit::AtMost(100));
    assert_eq!(
        quota.limits[Dimension::Memory],
        Limit::AtMost(8 << 30),
        "what was not named stays"
    );
    change(at_most(Dimension::Cpu, 300)).await.unwrap();
    assert_refused!(
        w.store
            .change_quota(w.id(), at_most(Dimension::Cpu, 1), w.actor())
            .await,
        StoreError::NotFound { .. }
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    for permille in [0, 100_001] {
        let change = QuotaChange {
            overcommit_permille: Some(permille),
            ..QuotaChange::default()
        };
        assert_refused!(
            w.store.change_quota(ada.0, change, w.actor()).await,
            StoreError::Invalid(_)
        );
    }
    let change = QuotaChange {
        team_mode: Some(TeamMode::Fixed),
        ..QuotaChange::default()
    };
    assert_refused!(
        w.store.change_quota(ada.0, change, w.actor()).await,
        StoreError::Invalid(_)
    );
    assert_eq!(w.store.quota(ada.0).unwrap().version, 1);
}

#[tokio::test]
async fn switching_modes_keeps_limit_and_pool() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    w.join(ml, ada, 2000).await;
    w.set(ml.0, Dimension::Cpu, 500).await;
    let shape = || {
        let team = w.store.team("ml").unwrap();
        (
            team.mode,
            team.total[Dimension::Cpu],
            team.pool[Dimension::Cpu],
        )
    };
    let at = Limit::AtMost;
    assert_eq!(shape(), (TeamMode::Aggregate, at(2500), at(500)));
    let switch = |mode| {
        let change = QuotaChange {
            team_mode: Some(mode),
            ..QuotaChange::default()
        };
        w.store.change_quota(ml.0, change, w.actor())
    };
    switch(TeamMode::Fixed).await.unwrap();
    assert_eq!(shape(), (TeamMode::Fixed, at(2500), at(500)));
    // Now the limit is what an administrator sets, and allotments eat the pool.
    w.join(ml, ada, 2400).await;
    assert_eq!(shape(), (TeamMode::Fixed, at(2500), at(100)));
    w.set(ml.0, Dimension::Cpu, 1000).await;
    assert_eq!(shape(), (TeamMode::Fixed, at(1000), at(0)));
    w.set(ml.0, Dimension::Cpu, 3000).await;
    switch(TeamMode::Aggregate).await.unwrap();
    assert_eq!(shape(), (TeamMode::Aggregate, at(3000), at(600)));
}

#[tokio::test]
async fn a_lead_of_a_fixed_team_promises_no_more_than_its_limit() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    let change = QuotaChange {
        team_mode: Some(TeamMode::Fixed),
        ..at_most(Dimension::Cpu, 1000)
    };
    w.store.change_quota(ml.0, change, w.actor()).await.unwrap();
    let place = |milli| plimsoll_store::NewMember {
        allotment: Some(vec![(Dimension::Cpu, milli)]),
        from_pool: true,
        ..w.place(ml, ada, 0)
    };
    assert_refused!(
        w.store.put_member(place(1001), w.actor()).await,
        StoreError::Invalid(_),
        "promise"
    );
    w.store.put_member(place(1000), w.actor()).await.unwrap();
}

#[tokio::test]
async fn the_next_decision_sees_the_change() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let fits = |milli| {
        let evaluation = w.store.evaluate(&w.claim(ada, cpu(milli))).unwrap();
        evaluation.verdict.allowed()
    };
    assert!(fits(4000) && !fits(4001));
    w.set(ada.0, Dimension::Cpu, 5000).await;
    assert!(fits(5000) && !fits(5001));
    w.run(ada, cpu(2000)).await;
    assert!(fits(3000) && !fits(3001));
    // Capacity, percentages, the factor and the mode count too.
    w.set(ada.0, Dimension::Cpu, 100_000).await;
    assert!(fits(6000) && !fits(6001), "80 % of ten cores");
    w.set(ada.0, Dimension::CpuPercent, 10_000).await;
    assert!(fits(8000) && !fits(8001), "all ten cores");
    let more = Capacity {
        cpu: MilliCpu(20_000),
        memory: Bytes(64 << 30),
    };
    w.store
        .claim_host(crate::world::HOST.into(), more, w.now())
        .await
        .unwrap();
    assert!(fits(18_000) && !fits(18_001));
    w.set(SYSTEM_ID, Dimension::CpuPercent, 5000).await;
    assert!(fits(8000) && !fits(8001), "half of twenty cores");
    let change = |change| w.store.change_quota(SYSTEM_ID, change, w.actor());
    change(QuotaChange {
        overcommit_permille: Some(1500),
        ..QuotaChange::default()
    })
    .await
    .unwrap();
    assert!(fits(13_000) && !fits(13_001));
    change(QuotaChange {
        mode: Some(Mode::Shadow),
        ..QuotaChange::default()
    })
    .await
    .unwrap();
    let shadowed = w.store.evaluate(&w.claim(ada, cpu(13_001))).unwrap();
    assert!(shadowed.verdict.allowed());
    assert!(!shadowed.verdict.violations.is_empty());
    w.set(SYSTEM_ID, Dimension::Cpu, 1).await;
    assert!(fits(18_000));
}

#[tokio::test]
async fn a_balance_follows_claims_in_and_out_of_teams() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    let alone = w.run(ada, cpu(700)).await;
    w.join(ml, ada, 1000).await;
    w.set(ml.0, Dimension::Cpu, 500).await;
    w.run(ada, cpu(1200)).await;
    assert_eq!(w.user_cpu(ada), 700);
    assert_eq!(w.team_cpu(ml), (1200, 200));
    let system = w.store.standing(EntityKind::System, SYSTEM_ID).unwrap();
    assert_eq!(system.reserved.get(Dimension::Cpu), 1900);
    assert_eq!(system.limits[Dimension::Cpu], Limit::AtMost(10_000));
    w.store.release(alone, w.now()).await.unwrap();
    assert_eq!(w.user_cpu(ada), 0);
    // A changed allotment moves the overflow, not the balance.
    w.join(ml, ada, 300).await;
    assert_eq!(w.team_cpu(ml), (1200, 900));
    let change = QuotaChange {
        overcommit_permille: Some(2000),
        ..QuotaChange::default()
    };
    w.store.change_quota(ml.0, change, w.actor()).await.unwrap();
    assert_eq!(w.team_cpu(ml), (1200, 600));
    w.sound().await;
}

#[tokio::test]
async fn the_original_designs_table_reads_in_its_units() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let ml = w.team("ml").await;
    w.join(ml, ada, 1500).await;
    let read = |entity: String| {
        w.shell()
            .query_row(
                "SELECT entity_type, quota_type, max_cpu_cores, max_memory_gb, max_cpu_percent,
                        max_containers, max_runtime_hours, max_idle_time_minutes
                 FROM resource_quotas WHERE entity_id = ?1",
                [entity],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, f64>(2)?,
                        row.get::<_, f64>(3)?,
                        row.get::<_, f64>(4)?,
                        row.get::<_, i64>(5)?,
                        row.get::<_, f64>(6)?,
                        row.get::<_, i64>(7)?,
                    ))
                },
            )
            .unwrap()
    };
    let user = (
        "user".into(),
        "standard".into(),
        4.0,
        8.0,
        80.0,
        10,
        24.0,
        60,
    );
    assert_eq!(read(ada.to_string()), user);
    let team = (
        "team".into(),
        "standard".into(),
        1.5,
        8.0,
        80.0,
        10,
        24.0,
        60,
    );
    assert_eq!(read(ml.to_string()), team);
}
