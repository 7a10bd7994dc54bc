//! Whoever is concerned is told, once, and a message is tried until it has arrived.

use plimsoll_core::Dimension;
use plimsoll_core::entity::{GrantId, MemberRole, RedistributionId, RequestId, TeamId, UserId};
use plimsoll_core::notice::{About, Event, EventKind};
use plimsoll_core::share::{Holder, Move};
use plimsoll_store::{
    Actor, Channel, Channels, Delivery, DeliveryState, GrantTo, Inbox, NewGrant, NewMember,
    NewRequest, Redistribute, StoreError, Tried, UserChange,
};

use crate::world::{World, container};

const ALL: Channels = Channels {
    mail: true,
    admin_mail: true,
    webhook: true,
    slack: true,
};

impl World {
    /// The kinds in an inbox, the first first; and reads them all.
    async fn told(&self, whose: Inbox) -> Vec<EventKind> {
        let new = self.store.inbox(whose, true, None, 100).await.unwrap();
        self.store.mark_read(whose, None, self.now()).await.unwrap();
        new.iter().rev().map(|n| n.event.kind).collect()
    }

    async fn of(&self, user: UserId) -> Vec<EventKind> {
        self.told(Inbox::User(user)).await
    }

    fn by(&self, name: &str) -> Actor {
        Actor {
            name: format!("user:{name}"),
            ..self.actor()
        }
    }

    async fn lead(&self, team: TeamId, user: UserId) {
        let place = NewMember {
            role: Some(MemberRole::Lead),
            ..self.place(team, user, 0)
        };
        self.store.put_member(place, self.actor()).await.unwrap();
    }

    async fn say(&self, key: &str, event: Event) {
        let said = self.store.notify(key.into(), event, self.actor()).await;
        said.unwrap();
    }

    async fn due(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        for channel in [Channel::Mail, Channel::Webhook, Channel::Slack] {
            let due = self.store.due(channel, self.now(), 100).await.unwrap();
            assert!(due.iter().all(|d| d.channel == channel));
            all.extend(due);
        }
        all
    }

    async fn addressed(&self, user: UserId, email: &str) {
        let change = UserChange {
            email: Some(Some(email.to_owned())),
            ..UserChange::default()
        };
        let changed = self.store.change_user(user, change, self.actor());
        changed.await.unwrap();
    }
}

fn wish(w: &World, user: UserId, team: Option<TeamId>) -> NewRequest {
    NewRequest {
        id: RequestId(w.id()),
        user,
        team,
        added: vec![(Dimension::Cpu, 500)],
        until_ms: None,
        reason: "thesis".into(),
    }
}

#[tokio::test]
async fn a_changed_quota_is_told_whose_it_is_with_what_changed() {
    let w = World::new().await;
    let (ada, ben) = (w.user("ada").await, w.user("ben").await);
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let inbox = w
        .store
        .inbox(Inbox::User(ada), true, None, 10)
        .await
        .unwrap();
    assert_eq!(inbox.len(), 1);
    let event = &inbox[0].event;
    assert_eq!(event.kind, EventKind::QuotaChanged);
    let figure = event.figures.iter().find(|f| f.name == "cpu").unwrap();
    assert!(figure.value.starts_with("1, was "), "{figure:?}");
    assert_eq!(event.by, ["test"]);
    assert_eq!(w.of(ben).await, []);
    assert_eq!(w.told(Inbox::Administrators).await, []);
}

#[tokio::test]
async fn nobody_is_told_what_they_did_themselves_or_what_did_not_happen() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let asked = w.store.ask(wish(&w, ada, None), w.by("ada")).await.unwrap();
    assert_eq!(w.of(ada).await, []);
    let late = GrantId(w.id());
    let refused = w.store.approve(asked.id, late, Some(w.now()), w.actor());
    assert_refused!(refused.await, StoreError::Invalid(_));
    assert_eq!(w.of(ada).await, [], "nothing came of it");
    let approved = w.store.approve(asked.id, late, None, w.actor());
    approved.await.unwrap();
    assert_eq!(w.of(ada).await, [EventKind::RequestAnswered]);
}

#[tokio::test]
async fn requests_reach_who_answers_them() {
    use EventKind::{RequestAnswered, RequestAsked, RequestWithdrawn};
    let w = World::new().await;
    let (ada, lea, ml) = (w.user("ada").await, w.user("lea").await, w.team("ml").await);
    w.join(ml, ada, 1000).await;
    w.of(ada).await;
    let ask = |team| w.store.ask(wish(&w, ada, team), w.by("ada"));

    ask(Some(ml)).await.unwrap();
    let admins = w.told(Inbox::Administrators).await;
    assert_eq!(admins, [RequestAsked], "a team that nobody leads");
    w.lead(ml, lea).await;
    w.of(lea).await;
    let within = ask(Some(ml)).await.unwrap();
    assert_eq!(w.of(lea).await, [RequestAsked]);
    assert_eq!(w.told(Inbox::Administrators).await, []);
    let outside = ask(None).await.unwrap();
    assert_eq!(w.of(lea).await, []);
    assert_eq!(w.told(Inbox::Administrators).await, [RequestAsked]);

    w.store.deny(within.id, w.by("lea")).await.unwrap();
    assert_eq!(w.of(ada).await, [RequestAnswered]);
    w.store.withdraw(outside.id, w.by("ada")).await.unwrap();
    assert_eq!(w.told(Inbox::Administrators).await, [RequestWithdrawn]);
}

#[tokio::test]
async fn what_changes_hands_is_told_to_both_sides_and_the_leads() {
    use EventKind::{AllotmentChanged, GrantChanged, QuotaChanged};
    let w = World::new().await;
    let (ada, ben, lea) = (
        w.user("ada").await,
        w.user("ben").await,
        w.user("lea").await,
    );
    let (eve, ml) = (w.user("eve").await, w.team("ml").await);
    w.lead(ml, lea).await;
    assert_eq!(w.of(lea).await, [AllotmentChanged]);
    for user in [ada, ben, eve] {
        w.join(ml, user, 2000).await;
        assert_eq!(w.of(user).await, [AllotmentChanged]);
    }
    w.set(ml.0, Dimension::Cpu, 1000).await;
    let told = [
        AllotmentChanged,
        AllotmentChanged,
        AllotmentChanged,
        QuotaChanged,
    ];
    assert_eq!(w.of(lea).await, told);
    let moved = Redistribute {
        id: RedistributionId(w.id()),
        team: ml,
        moves: vec![Move {
            from: Holder::Member(ada),
            to: Holder::Member(ben),
            amounts: vec![(Dimension::Cpu, 500)],
        }],
        expires_ms: Some(w.now() + 1000),
        dry_run: false,
    };
    w.store.redistribute(moved, w.by("lea")).await.unwrap();
    let given = NewGrant {
        id: GrantId(w.id()),
        to: GrantTo::Member(ml, ada),
        added: vec![(Dimension::Cpu, 100)],
        from_ms: w.now(),
        until_ms: Some(w.now() + 1000),
    };
    w.store.give_grant(given, w.by("lea")).await.unwrap();
    w.pass(2000);
    w.store.turn(w.now()).await.unwrap();
    let both = [
        AllotmentChanged,
        GrantChanged,
        GrantChanged,
        AllotmentChanged,
    ];
    assert_eq!(w.of(ada).await, both);
    assert_eq!(w.of(ben).await, [AllotmentChanged, AllotmentChanged]);
    assert_eq!(w.of(lea).await, [GrantChanged, AllotmentChanged], "its end");
    assert_eq!(w.of(eve).await, []);
}

#[tokio::test]
async fn a_full_team_is_told_to_those_who_borrow() {
    let w = World::new().await;
    let (ada, ben, ml) = (w.user("ada").await, w.user("ben").await, w.team("ml").await);
    w.join(ml, ada, 1000).await;
    w.join(ml, ben, 1000).await;
    w.set(ml.0, Dimension::Cpu, 1000).await;
    w.run(ada, container(1500)).await;
    w.of(ada).await;
    w.of(ben).await;
    let about = About::team(ml, "ml");
    let mut full = Event::new(
        EventKind::Threshold,
        about,
        "ml is full",
        "/team/ml",
        w.now(),
    );
    full.dimension = Some(Dimension::Cpu);
    full.percent = Some(100);
    w.say("full", full.clone()).await;
    w.say("full", full).await;
    assert_eq!(w.of(ada).await, [EventKind::Threshold], "once");
    assert_eq!(w.of(ben).await, []);
    assert_eq!(w.told(Inbox::Administrators).await, [EventKind::Threshold]);
}

#[tokio::test]
async fn an_inbox_is_read_by_its_owner_alone() {
    let w = World::new().await;
    let (ada, ben) = (
        Inbox::User(w.user("ada").await),
        Inbox::User(w.user("ben").await),
    );
    let Inbox::User(id) = ada else { unreachable!() };
    for most in [1000, 2000, 3000] {
        w.set(id.0, Dimension::Cpu, most).await;
        w.pass(1);
    }
    assert_eq!(w.store.unread(ada).unwrap(), 3);
    assert_eq!(w.store.unread(ben).unwrap(), 0);
    let first = w.store.inbox(ada, false, None, 2).await.unwrap();
    let rest = w
        .store
        .inbox(ada, false, Some(first[1].id), 2)
        .await
        .unwrap();
    assert_eq!((first.len(), rest.len()), (2, 1));
    let read = |whose| w.store.mark_read(whose, Some(rest[0].id), w.now());
    assert_refused!(read(ben).await, StoreError::NotFound { .. });
    assert_eq!(read(ada).await.unwrap(), 1);
    assert_eq!(read(ada).await.unwrap(), 0, "it was read");
    assert_eq!(w.store.unread(ada).unwrap(), 2);
}

#[tokio::test]
async fn each_channel_gets_its_message_once_and_keeps_its_key() {
    let w = World::new().await;
    let (ada, ben) = (w.user("ada").await, w.user("ben").await);
    w.addressed(ada, "ada@example.org").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    w.set(ben.0, Dimension::Cpu, 1000).await;
    let trouble = Event::new(
        EventKind::Trouble,
        About::system("local"),
        "",
        "/host",
        w.now(),
    );
    w.say("trouble", trouble).await;
    assert_eq!(w.store.spread(ALL, w.now()).await.unwrap(), 3);
    assert_eq!(w.store.spread(ALL, w.now()).await.unwrap(), 0);
    let mut found: Vec<(String, Option<String>)> = w
        .due()
        .await
        .into_iter()
        .map(|d| {
            (
                format!("{} {}", d.channel.name(), d.event.kind.name()),
                d.address,
            )
        })
        .collect();
    found.sort();
    let hers = Some("ada@example.org".to_owned());
    assert_eq!(
        found,
        [
            ("mail quota.changed".into(), hers),
            ("mail trouble".into(), None),
            ("slack trouble".into(), None),
            ("webhook quota.changed".into(), None),
            ("webhook quota.changed".into(), None),
            ("webhook trouble".into(), None),
        ]
    );
}

#[tokio::test]
async fn a_delivery_waits_out_its_time_and_survives_a_restart() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let webhook = Channels {
        webhook: true,
        ..Channels::default()
    };
    // Stopped before and after its deliveries are written.
    let w = w.restarted().await;
    assert_eq!(w.store.spread(webhook, w.now()).await.unwrap(), 1);
    let w = w.restarted().await;
    let first = w.due().await.pop().unwrap();
    let later = Tried::Later {
        next_ms: w.now() + 1000,
        error: "connection refused".into(),
    };
    let tries = vec![(first.id.clone(), later)];
    w.store.tried(tries, w.now()).await.unwrap();
    assert_eq!(w.due().await, []);
    // What still waits is not forgotten, however old.
    let forgotten = w.store.forget_notices(w.now() + 5000, None).await.unwrap();
    assert_eq!(forgotten.rows, 0);
    w.pass(1000);
    let again = w.due().await.pop().unwrap();
    assert_eq!((again.id, again.tries), (first.id.clone(), 1));
    assert_eq!(again.error.as_deref(), Some("connection refused"));
    let sent = vec![(first.id, Tried::Sent)];
    w.store.tried(sent, w.now()).await.unwrap();
    let all = w.store.deliveries(None, 10).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].state, all[0].tries), (DeliveryState::Sent, 2));
    let forgotten = w.store.forget_notices(w.now() + 5000, None).await.unwrap();
    assert_eq!(forgotten.rows, 1);
    assert_eq!(w.of(ada).await, []);
}
