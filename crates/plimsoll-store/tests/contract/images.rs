//! References that are not everybody's.

use plimsoll_store::{Push, StoreError};

use crate::world::World;

#[tokio::test]
async fn a_mark_stays_until_it_is_taken_back() {
    let w = World::new().await;
    let mark = |private| {
        w.store
            .mark_image("docker.io/library/tools:1".into(), private, w.actor())
    };
    mark(true).await.unwrap();
    mark(true).await.unwrap();
    assert_eq!(
        w.store.marked_images().unwrap(),
        ["docker.io/library/tools:1"]
    );
    let kept = w.store.private_images().unwrap();
    assert!(kept.contains("docker.io/library/tools:1"));
    mark(false).await.unwrap();
    mark(false).await.unwrap();
    assert!(w.store.private_images().unwrap().is_empty());
    // Each change is told once.
    let audit = w.store.audit(None, 10).await.unwrap();
    let marks = audit.iter().filter(|e| e.action == "image.mark").count();
    assert_eq!(marks, 2);
    w.sound().await;
}

#[tokio::test]
async fn a_push_outlives_a_crash_and_is_nobody_elses() {
    let w = World::new().await;
    let push = Push {
        reference: "reg.lab/app:1".into(),
        image: "sha256:1".into(),
    };
    w.store.begin_push(push.clone(), w.now()).await.unwrap();
    assert_refused!(
        w.store.begin_push(push.clone(), w.now()).await,
        StoreError::Conflict(_),
        "reg.lab/app:1"
    );
    assert_refused!(
        w.store
            .mark_image(push.reference.clone(), true, w.actor())
            .await,
        StoreError::Conflict(_),
        "push"
    );
    let w = w.restarted().await;
    assert_eq!(w.store.pushes().unwrap(), std::slice::from_ref(&push));
    // Kept from tenants, and no administrator's mark.
    assert!(w.store.private_images().unwrap().contains("reg.lab/app:1"));
    assert!(w.store.marked_images().unwrap().is_empty());
    w.store.end_push(push.reference.clone()).await.unwrap();
    w.store.end_push(push.reference).await.unwrap();
    assert!(w.store.private_images().unwrap().is_empty());
}
