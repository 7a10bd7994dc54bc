//! What is used and reserved now, entity by entity: made once for each reading, for all who follow.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_core::dimension::Amounts;
use plimsoll_store::history::Labels;
use plimsoll_store::{ObjectKind, Project, Reservation, StoreError};
use tokio::sync::Mutex;

use crate::meter::{ContainerUse, Reading, Usage, Whose};
use crate::metering::found::project_of;
use crate::state::App;
use crate::tasks::history::CONTAINER;

/// What is reserved now.
#[derive(Debug, Default)]
pub struct Reserved {
    /// Of users, teams, projects and the system.
    pub entities: HashMap<Whose, Amounts>,
    /// Of containers, by the engine's id.
    pub containers: HashMap<String, Amounts>,
}

impl Reserved {
    /// The sums of what is live in the ledger.
    #[must_use]
    pub fn of(live: &[Reservation], projects: &[Project]) -> Self {
        let mut reserved = Self::default();
        for row in live {
            let charge = row.charge();
            let project = row.project.as_deref();
            let project = project.and_then(|name| project_of(projects, row, name));
            let whose = [
                Some(Whose::System),
                Some(Whose::User(row.user)),
                row.team.map(Whose::Team),
                project.map(Whose::Project),
            ];
            for whose in whose.into_iter().flatten() {
                let sum = reserved.entities.entry(whose).or_default();
                *sum = sum.checked_add(&charge).unwrap_or(*sum);
            }
            if let Some(id) = container(row) {
                reserved.containers.insert(id.to_owned(), charge);
            }
        }
        reserved
    }
}

/// The container a reservation is bound to.
fn container(row: &Reservation) -> Option<&str> {
    let id = row.container.as_deref();
    id.filter(|_| row.kind == ObjectKind::Container)
}

/// What one entity or container uses.
#[derive(Debug, Clone, Copy)]
pub enum Used {
    /// An entity.
    Entity(Usage),
    /// A container.
    Container(ContainerUse),
}

/// One entity or container.
#[derive(Debug, Clone)]
pub struct Line {
    /// As the history keys it.
    pub key: String,
    /// What it is called and belongs to.
    pub labels: Labels,
    /// What it uses.
    pub used: Used,
    /// What is reserved for it.
    pub reserved: Amounts,
}

/// One reading beside what is reserved.
#[derive(Debug, Default)]
pub struct Picture {
    /// How many readings there were, with this one.
    pub number: u64,
    /// When it was read, Unix milliseconds.
    pub at_ms: i64,
    /// Everybody and everything.
    pub lines: Vec<Line>,
}

/// The last picture.
#[derive(Debug, Default)]
pub struct Pictures(Mutex<Option<Arc<Picture>>>);

impl Pictures {
    /// The picture of the last reading, made if it is not there yet.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn last(&self, app: &App) -> Result<Arc<Picture>, StoreError> {
        let mut last = self.0.lock().await;
        let number = *app.meter.readings().borrow();
        if let Some(picture) = last.as_ref().filter(|picture| picture.number == number) {
            return Ok(Arc::clone(picture));
        }
        let picture = Arc::new(draw(app, number).await?);
        *last = Some(Arc::clone(&picture));
        Ok(picture)
    }
}

async fn draw(app: &App, number: u64) -> Result<Picture, StoreError> {
    let live = app.store.live_reservations().await?;
    let projects = app.store.projects().await?;
    let reserved = Reserved::of(&live, &projects);
    let reading = app.meter.last();
    let names = Names::of(&live, &projects);
    let mut lines = entities(app, &reading, &reserved, &names);
    lines.extend(containers(&reading, &reserved, &live));
    let at_ms = crate::tasks::history::read_at(&reading).unwrap_or(0);
    Ok(Picture {
        number,
        at_ms,
        lines,
    })
}

/// What a project is called, and whose it is.
#[must_use]
pub fn of_project(project: &Project) -> Labels {
    Labels {
        name: Some(project.name.clone()),
        user: project.user.map(|user| user.to_string()),
        team: project.team.map(|team| team.to_string()),
        ..Labels::default()
    }
}

/// What entities are called, as far as the lists say.
struct Names<'a> {
    known: HashMap<Whose, &'a str>,
    projects: HashMap<Whose, &'a Project>,
}

impl<'a> Names<'a> {
    fn of(live: &'a [Reservation], projects: &'a [Project]) -> Self {
        let mut known = HashMap::new();
        for row in live {
            known.insert(Whose::User(row.user), row.user_name.as_str());
            if let (Some(team), Some(name)) = (row.team, &row.team_name) {
                known.insert(Whose::Team(team), name.as_str());
            }
        }
        let projects = projects.iter().map(|p| (Whose::Project(p.id), p)).collect();
        Self { known, projects }
    }

    fn labels(&self, app: &App, whose: Whose) -> Labels {
        if let Some(project) = self.projects.get(&whose) {
            return of_project(project);
        }
        let known = self.known.get(&whose).map(|name| (*name).to_owned());
        let name = known.or_else(|| match whose {
            Whose::User(id) => app.store.user(&id.to_string()).ok().map(|user| user.name),
            Whose::Team(id) => app.store.team(&id.to_string()).ok().map(|team| team.name),
            _ => None,
        });
        Labels {
            name,
            ..Labels::default()
        }
    }
}

/// Whoever uses or has reserved something.
fn entities(app: &App, reading: &Reading, reserved: &Reserved, names: &Names<'_>) -> Vec<Line> {
    let unread = reserved
        .entities
        .keys()
        .filter(|whose| !reading.entities.contains_key(whose));
    let all = reading.entities.keys().chain(unread);
    let line = |whose: &Whose| {
        let usage = app.meter.usage(*whose);
        let held = reserved.entities.get(whose).copied().unwrap_or_default();
        let uses = usage.containers > 0 || usage.storage_bytes.unwrap_or(0) > 0;
        let shown = uses || !held.is_zero() || *whose == Whose::System;
        shown.then(|| Line {
            key: whose.key(),
            labels: names.labels(app, *whose),
            used: Used::Entity(usage),
            reserved: held,
        })
    };
    all.filter_map(line).collect()
}

/// Every container that runs.
fn containers<'a>(
    reading: &'a Reading,
    reserved: &'a Reserved,
    live: &'a [Reservation],
) -> impl Iterator<Item = Line> + use<'a> {
    let rows: HashMap<&str, &Reservation> = live
        .iter()
        .filter_map(|row| Some((container(row)?, row)))
        .collect();
    let running = reading
        .containers
        .iter()
        .filter(|(_, used)| !used.has_ended);
    running.map(move |(id, used)| {
        let row = rows.get(id.as_str());
        let stranger = || reading.strangers.iter().find(|stranger| stranger.id == *id);
        let labels = match row {
            Some(row) => Labels::of(row),
            None => stranger().map_or_else(Labels::default, |stranger| Labels {
                name: Some(stranger.name.clone()),
                image: Some(stranger.image.clone()),
                ..Labels::default()
            }),
        };
        Line {
            key: format!("{CONTAINER}{id}"),
            labels,
            used: Used::Container(*used),
            reserved: reserved.containers.get(id).copied().unwrap_or_default(),
        }
    })
}
