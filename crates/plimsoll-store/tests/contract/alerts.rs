//! Where alerts stand is written with what people are told of it.

use plimsoll_core::alert::{Matcher, default_rules};
use plimsoll_core::notice::{About, Event, EventKind};
use plimsoll_store::{Alert, Inbox, Seen, StoreError};

use crate::world::World;

fn alert(w: &World, about: About, permille: u64) -> Alert {
    let mut rule = default_rules().remove(0);
    rule.for_ms = 0;
    rule.keep_ms = 0;
    Alert {
        rule: rule.name.clone(),
        about,
        part: "memory".to_owned(),
        standing: plimsoll_core::alert::Standing::default().next(&rule, Some(permille), w.now()),
        seen: Seen {
            value: Some(permille),
            title: "memory".into(),
            amount: "9 of 10".into(),
            by: Vec::new(),
        },
        silenced: false,
        told_ms: None,
    }
}

#[tokio::test]
async fn what_stands_is_kept_with_what_was_told_and_forgotten_when_it_is_over() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let about = About::user(ada, "ada");
    let event = Event::new(
        EventKind::Threshold,
        about.clone(),
        "full",
        "/mine",
        w.now(),
    );
    let fires = alert(&w, about.clone(), 900);
    let told = vec![("alert:1".to_owned(), event)];
    let followed = w
        .store
        .follow_alerts(vec![fires.clone()], told.clone(), w.now());
    followed.await.unwrap();
    let w = w.restarted().await;
    assert_eq!(w.store.alerts().await.unwrap(), [fires]);
    // The same again tells nobody twice.
    w.store
        .follow_alerts(Vec::new(), told, w.now())
        .await
        .unwrap();
    let inbox = w
        .store
        .inbox(Inbox::User(ada), true, None, 10)
        .await
        .unwrap();
    assert_eq!(inbox.len(), 1);
    let over = alert(&w, about, 100);
    w.store
        .follow_alerts(vec![over], Vec::new(), w.now())
        .await
        .unwrap();
    assert_eq!(w.store.alerts().await.unwrap(), []);
}

#[tokio::test]
async fn rules_are_there_from_the_start_and_change() {
    let w = World::new().await;
    let mut all = default_rules();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(w.store.alert_rules().await.unwrap(), all);
    let mut rule = all[0].clone();
    rule.enabled = false;
    assert!(
        !w.store
            .put_alert_rule(rule.clone(), w.actor())
            .await
            .unwrap()
    );
    let other = plimsoll_core::alert::Rule {
        name: "mine".into(),
        ..rule.clone()
    };
    assert!(w.store.put_alert_rule(other, w.actor()).await.unwrap());
    let remove = |name: &str| w.store.remove_alert_rule(name.to_owned(), w.actor());
    remove("mine").await.unwrap();
    assert_refused!(remove("mine").await, StoreError::NotFound { .. });
    let w = w.restarted().await;
    assert_eq!(
        w.store.alert_rules().await.unwrap()[0],
        rule,
        "not seeded anew"
    );
}

#[tokio::test]
async fn a_silence_lasts_until_its_end() {
    let w = World::new().await;
    let matcher = || Matcher {
        rule: None,
        name: Some("ada".into()),
        part: None,
    };
    let add = |until_ms| w.store.add_silence(matcher(), until_ms, w.actor());
    assert_refused!(add(w.now()).await, StoreError::Invalid(_));
    let first = add(w.now() + 1000).await.unwrap();
    let second = add(w.now() + 5000).await.unwrap();
    assert_eq!(
        w.store.silences(w.now()).await.unwrap(),
        [first, second.clone()]
    );
    w.pass(1000);
    let left = w.store.silences(w.now()).await.unwrap();
    assert_eq!(left, std::slice::from_ref(&second));
    w.store.end_silence(second.id, w.actor()).await.unwrap();
    assert_eq!(w.store.silences(w.now()).await.unwrap(), []);
    let again = w.store.end_silence(second.id, w.actor()).await;
    assert_refused!(again, StoreError::NotFound { .. });
}
