//! Containers that do nothing: hardly any CPU, hardly any network, and nobody attached.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_core::admit::LevelKind;
use plimsoll_core::dimension::Dimension;
use plimsoll_core::entity::{EntityKind, UserId};
use plimsoll_core::notice::{About, Event, EventKind, Severity};
use plimsoll_core::quota::Mode;
use plimsoll_core::reservation::State;
use plimsoll_store::{
    Behind, Measured, ObjectKind, Reservation, ReservationFilter, StoreError, most,
};

use crate::meter::ContainerUse;
use crate::state::App;

/// Below so many millicores a container may be idle: 2 % of a core.
const CPU_MILLI: u64 = 20;

/// Below so many bytes a second, sent and received.
const NETWORK_BYTES: u64 = 1000;

/// Containers that do nothing, by the engine's id. A server that starts begins to look.
#[derive(Debug, Default)]
pub struct Idlers(Mutex<HashMap<String, Idler>>);

#[derive(Debug, Clone, Copy)]
struct Idler {
    /// Unix milliseconds.
    since_ms: i64,
    /// Its owner knows.
    told: bool,
}

impl Idlers {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Idler>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a container has done nothing, whole seconds.
    #[must_use]
    pub fn idle_s(&self, container: &str, now_ms: i64) -> Option<u64> {
        let since_ms = self.all().get(container)?.since_ms;
        u64::try_from(now_ms.saturating_sub(since_ms) / 1000).ok()
    }

    /// Since when it has, the first time this is asked.
    fn to_tell(&self, container: &str) -> Option<i64> {
        let mut all = self.all();
        let idler = all.get_mut(container).filter(|idler| !idler.told)?;
        idler.told = true;
        Some(idler.since_ms)
    }
}

fn is_quiet(used: &ContainerUse) -> bool {
    let flows = used.flows.map_or(0, |f| f.received + f.sent);
    !used.has_ended && used.cpu_milli.is_some_and(|cpu| cpu < CPU_MILLI) && flows < NETWORK_BYTES
}

/// Notes who does nothing, and since when.
fn note(app: &App) {
    let mut idlers = app.idlers.all();
    let now_ms = app.clock.now_ms();
    let last = app.meter.last();
    let quiet = |id: &String| {
        let used = last.containers.get(id);
        used.is_some_and(is_quiet) && app.attended.is_free(id)
    };
    idlers.retain(|id, _| quiet(id));
    for id in last.containers.keys().filter(|id| quiet(id)) {
        let new = Idler {
            since_ms: now_ms,
            told: false,
        };
        idlers.entry(id.clone()).or_insert(new);
    }
}

/// Holds the time containers do nothing against their owners' limits: tells whose it is, once for each
/// time, opens and closes violations.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn follow(app: &App) -> Result<(), StoreError> {
    note(app);
    let now_ms = app.clock.now_ms();
    let filter = ReservationFilter {
        host: Some(app.lease.host.clone()),
        ..ReservationFilter::default()
    };
    let mut of_users: HashMap<UserId, Vec<(Reservation, u64)>> = HashMap::new();
    for row in app.store.reservations(filter).await? {
        let runs = row.kind == ObjectKind::Container && row.state == State::Active;
        if let Some(id) = row.container.as_deref().filter(|_| runs)
            && let Some(idle_s) = app.idlers.idle_s(id, now_ms)
        {
            of_users.entry(row.user).or_default().push((row, idle_s));
        }
    }
    let mut measured = Vec::new();
    for (user, idle) in of_users {
        // Somebody may be deleted meanwhile.
        let (Ok(quota), Ok(standing)) = (
            app.store.quota(user.0),
            app.store.standing(EntityKind::User, user.0),
        ) else {
            continue;
        };
        let limit = standing.limits[Dimension::Idle].at_most();
        let Some(limit) = limit.filter(|_| quota.mode != Mode::Off) else {
            continue;
        };
        for (row, idle_s) in idle.iter().filter(|(_, idle_s)| *idle_s >= limit) {
            tell(app, row, *idle_s).await?;
        }
        let behind = idle.iter().filter(|(_, idle_s)| *idle_s >= limit);
        let behind = behind.map(|(row, idle_s)| Behind {
            reservation: row.id,
            container: row.called().to_owned(),
            user: row.user_name.clone(),
            amount: *idle_s,
        });
        measured.push(Measured {
            level: LevelKind::User,
            entity: user.0,
            name: idle
                .first()
                .map(|(r, _)| r.user_name.clone())
                .unwrap_or_default(),
            dimension: Dimension::Idle,
            limit: Some(limit),
            used: idle.iter().map(|(_, s)| *s).max().unwrap_or(0),
            behind: Some(most(behind.collect())),
        });
    }
    app.store.follow_idle(measured, now_ms).await
}

async fn tell(app: &App, row: &Reservation, idle_s: u64) -> Result<(), StoreError> {
    let id = row.container.as_deref().unwrap_or_default();
    let Some(since_ms) = app.idlers.to_tell(id) else {
        return Ok(());
    };
    let d = Dimension::Idle;
    let about = About::user(row.user, &row.user_name);
    let title = format!("{} has done nothing for {}", row.called(), d.show(idle_s));
    let mut event = Event::new(EventKind::Threshold, about, title, "/mine", since_ms).advice(
        format!("stop what nobody needs: docker stop {}", row.called()),
    );
    event.dimension = Some(d);
    event.severity = Severity::Warning;
    let key = format!("idle:{id}:{since_ms}");
    app.store.notify(key, event, app.itself(None)).await
}
