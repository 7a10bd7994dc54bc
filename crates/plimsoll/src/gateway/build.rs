//! `POST /build`: the classic builder, within the caller's limits and with the caller's images.
//!
//! The builder knows no tenants: it looks names up among everybody's images, pulls what it lacks, uses
//! any image's steps again, and runs where it is told. So the Dockerfile's names become ids on the way
//! in, only steps of the caller's images are offered for use again, the steps run in the caller's cgroup,
//! charged by a reservation for as long as it takes, and what comes of it is named by us.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Method, Response};
use plimsoll_core::State;
use plimsoll_core::admit::{Owner, Path};
use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::{ReservationId, TeamId};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_host::request::archive;
use plimsoll_host::request::build::BuildRequest;
use plimsoll_host::request::dockerfile::{check_triggers, rewrite};
use plimsoll_host::request::image_reference::Reference;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_host::request::registry::Credentials;
use plimsoll_store::{Claim, NewReservation, ObjectKind, TeamChoice, User};
use serde_json::{Value, json};

use super::answer::Body;
use super::create::{settle_own, team_choice};
use super::images::{self, Arrival, Progress, pipe};
use super::refused::Refused;
use super::route::Call;
use super::start::assert_caps_of;
use crate::caps;
use crate::clock::new_id;
use crate::engine_facts::engine_facts;
use crate::images::Eyes;
use crate::state::App;
use crate::tasks::in_full;

/// The most own images whose steps may be used again.
const CACHE_MAX: usize = 128;

/// The least memory the engine lets a step have.
const MEMORY_MIN: u64 = 4 << 20;

/// The engine's period of a CPU quota, microseconds.
const PERIOD_US: u64 = 100_000;

pub(super) async fn build(mut call: Call) -> Result<Response<Body>, Refused> {
    let upload = call.upload.take().ok_or(Refused::EngineNonsense)?;
    let judged = async {
        let request = BuildRequest::parse(std::mem::take(&mut call.query))?;
        let config = call.headers.get("x-registry-config");
        let config = config.map_or(Ok(""), http::HeaderValue::to_str);
        let config =
            config.map_err(|_| Refused::bad("X-Registry-Config", "must be base64".to_owned()))?;
        let logins = Credentials::by_host(config)?;
        let team = team_choice(&call.app, None, &call.headers)?;
        let most = images::most(&call.app, &call.user).await?;
        Ok((request, logins, team, most))
    };
    let (judged, upload) = pipe::or_drained(judged.await, upload).await?;
    let (request, logins, team, most) = judged;
    let (app, user, connection) = (call.app, call.user, call.connection);
    let done = tokio::spawn(async move {
        // One after the other, so that what a build leaves behind is known to be its own.
        let turn = app
            .container_locks
            .lock(&format!("build {}", user.id))
            .await;
        let slot = connection.place.large_body().await;
        let charge = Charge::begin(&app, &user, team, &request).await;
        let (charge, upload) = pipe::or_drained(charge, upload).await?;
        let arrival = Arrival::begin(&app, &user)?;
        let query = engine_query(&app, &user, &request, &charge, &arrival).await;
        let sent = match query {
            Ok(query) => {
                let bases = Bases {
                    app: Arc::clone(&app),
                    user: user.clone(),
                    logins,
                    pull: request.pull,
                };
                upload_context(&app, upload, &request, bases, most, &query).await
            }
            Err(refused) => Err(refused),
        };
        drop(slot);
        let (response, shown) = match sent {
            Ok(sent) => sent,
            Err(refused) => {
                charge.end(&app).await;
                return Err(refused);
            }
        };
        Ok(images::progress(move |told| async move {
            let mut building = Building {
                told,
                shown,
                quiet: request.quiet,
                steps: Vec::new(),
                tags: arrival.repository().to_owned(),
            };
            let built = building.follow(response).await;
            let settled = match built {
                Ok(()) => building.finish(&app, &user, &arrival, request.names).await,
                Err(refused) => {
                    arrival.clear(&app, 1).await;
                    Err(refused)
                }
            };
            building.clean(&app).await;
            charge.end(&app).await;
            drop(turn);
            settled
        }))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

/// What a build is charged while it runs.
struct Charge {
    id: ReservationId,
    path: Path,
    parent: String,
    cpu: MilliCpu,
    memory: Bytes,
    _in_flight: crate::state::InFlightGuard,
}

impl Charge {
    async fn begin(
        app: &Arc<App>,
        user: &User,
        team: TeamChoice,
        request: &BuildRequest,
    ) -> Result<Self, Refused> {
        let path = app.store.path(user.id, team, &app.lease.host)?;
        let effective = path.effective_limits();
        let defaults = app.store.container_defaults(user.id)?;
        let cpu = request
            .cpu_milli
            .map_or_else(|| defaults.cpu_under(&effective), MilliCpu);
        let memory = request
            .memory
            .map_or_else(|| defaults.memory_under(&effective), Bytes);
        if memory.0 < MEMORY_MIN {
            return Err(Refused::bad(
                "query memory",
                "must be at least 4 MiB".to_owned(),
            ));
        }
        // On cgroup v1 a step with more CPU than a level above it may use does not start.
        let cpu = cpu.min(caps::most_cpu(&path, app.capacity.cpu));
        let team = match &path.owner {
            Owner::Team(place) => Some(TeamId(place.team.entity)),
            Owner::User(_) => None,
        };
        let parent = caps::parent(&app.instance, team, user.id);
        let facts = engine_facts(app).await?;
        let id = ReservationId(new_id());
        let in_flight = app.in_flight.enter(id);
        let amounts = Amounts::ZERO
            .with(Dimension::Cpu, cpu.0)
            .with(Dimension::Memory, memory.0)
            .with(Dimension::Pids, defaults.pids)
            .with(Dimension::ConcurrentContainers, 1);
        let claim = Claim {
            user: user.id,
            team: team.map_or(TeamChoice::NoTeam, TeamChoice::Team),
            project: None,
            host: app.lease.host.clone(),
            amounts,
        };
        let reserve = || NewReservation {
            image: Some("docker build".to_owned()),
            ..app.new_reservation(id, ObjectKind::Container, claim.clone())
        };
        let mut admission = app.store.reserve(reserve()).await?;
        if admission.reservation.is_none() {
            // One that has just ended must not be in the way.
            settle_own(app, user, None).await;
            admission = app.store.reserve(reserve()).await?;
        }
        let Some(reservation) = admission.reservation else {
            return Err(Refused::Quota(Box::new(admission.decision)));
        };
        debug_assert_eq!(
            reservation.state,
            State::Pending,
            "pending for as long as it runs"
        );
        let charge = Self {
            id,
            path,
            parent: facts.hierarchy.cgroup_parent(&parent),
            cpu,
            memory,
            _in_flight: in_flight,
        };
        if let Err(refused) = assert_caps_of(app, &charge.path).await {
            charge.end(app).await;
            return Err(refused);
        }
        Ok(charge)
    }

    /// The build is over, however it went. Where the ledger does not hear it, the reservation expires.
    async fn end(self, app: &App) {
        if let Err(error) = app.store.void(self.id, app.clock.now_ms()).await {
            tracing::warn!(
                error = in_full(&error),
                "a build's charge stays until it expires"
            );
        }
    }
}

async fn engine_query(
    app: &App,
    user: &User,
    request: &BuildRequest,
    charge: &Charge,
    arrival: &Arrival,
) -> Result<String, Refused> {
    let mut cache = Vec::new();
    if !request.no_cache {
        for name in &request.cache_from {
            match images::find(app, user, name).await {
                Ok(found) => cache.push(found.id),
                Err(Refused::NotFound(_)) => {}
                Err(refused) => return Err(refused),
            }
        }
        let eyes = Eyes::of(app, user.id)?;
        let own = app.engine.images().await?.into_iter();
        let own = own.filter(|image| eyes.see(&image.repo_tags).is_own());
        cache.extend(own.map(|image| image.id).take(CACHE_MAX));
    }
    let text = |value: &Value| value.to_string();
    let quota_us = charge.cpu.0.saturating_mul(PERIOD_US) / 1000;
    let memory = charge.memory.0.to_string();
    let mut query = QueryBuilder::new()
        .str("t", &arrival.reference(0))
        .str("dockerfile", &request.dockerfile)
        .bool("rm", true)
        .bool("forcerm", true)
        // With nothing to offer, a step of somebody else's would do.
        .bool("nocache", cache.is_empty())
        .str("cachefrom", &text(&json!(cache)))
        .str("buildargs", &text(&json!(request.arguments)))
        .str("labels", &text(&json!(request.labels)))
        .str("networkmode", request.network)
        .str("cgroupparent", &charge.parent)
        .str("cpuperiod", &PERIOD_US.to_string())
        .str("cpuquota", &quota_us.max(1000).to_string())
        .str("memory", &memory)
        .str("memswap", &memory)
        .str("version", "1")
        .opt_str("target", request.target.as_deref());
    for host in &request.extra_hosts {
        query = query.str("extrahosts", host);
    }
    Ok(query.finish())
}

/// Finds the images that a Dockerfile names.
struct Bases {
    app: Arc<App>,
    user: User,
    logins: BTreeMap<String, Credentials>,
    pull: bool,
}

impl Bases {
    /// The id of the caller's image of this name, else of everybody's, else of one that is pulled now
    /// where that is allowed.
    async fn resolve(&self, name: &str) -> Result<String, Refused> {
        let found = images::find(&self.app, &self.user, name).await;
        let pullable = Reference::parse(name)
            .ok()
            .filter(|r| images::may_pull(&self.app, r));
        let found = match (found, pullable) {
            (Ok(found), Some(wanted)) if self.pull && found.by.is_some() => {
                self.fetch(&wanted).await?;
                images::find(&self.app, &self.user, name).await?
            }
            (Ok(found), _) => found,
            (Err(Refused::NotFound(_)), Some(wanted)) => {
                self.fetch(&wanted).await?;
                images::find(&self.app, &self.user, name).await?
            }
            (Err(Refused::NotFound(why)), None) => {
                return Err(Refused::NotFound(format!(
                    "{why}: it is not on this host, and not from a registry that is open here"
                )));
            }
            (Err(refused), _) => return Err(refused),
        };
        let triggers = &found.image.config.on_build;
        check_triggers(triggers)
            .map_err(|error| Refused::bad("Dockerfile", format!("{name}: {error}")))?;
        Ok(found.id)
    }

    async fn fetch(&self, wanted: &Reference) -> Result<(), Refused> {
        let none = Credentials::default();
        let login = self.logins.get(&wanted.domain).unwrap_or(&none);
        images::bring(&self.app, &self.user, wanted, login, &Progress::silent()).await
    }
}

/// Names that the Dockerfile's ids stand for.
type Shown = BTreeMap<String, String>;

async fn upload_context(
    app: &App,
    upload: hyper::body::Incoming,
    request: &BuildRequest,
    bases: Bases,
    most: u64,
    query: &str,
) -> Result<(Response<plimsoll_host::engine::EngineBody>, Shown), Refused> {
    let given = request.arguments.iter();
    let given: BTreeMap<String, String> = given
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
        .collect();
    let dockerfile = request.dockerfile.clone();
    let runtime = tokio::runtime::Handle::current();
    let (body, work) = pipe::converted(upload, move |from, to| {
        let mut shown = Shown::new();
        archive::context(from, to, most, &dockerfile, |text| {
            let mut resolve = |name: &str| {
                let id = runtime
                    .block_on(bases.resolve(name))
                    .map_err(Refused::into_message)?;
                shown.insert(id.clone(), name.to_owned());
                Ok(id)
            };
            rewrite(text, &given, &mut resolve).map_err(|error| error.0)
        })?;
        Ok(shown)
    });
    let tar = [(CONTENT_TYPE, "application/x-tar")];
    let sent = app
        .engine
        .send(Method::POST, &format!("/build{query}"), &tar, body, None)
        .await;
    pipe::uploaded(sent, work, pipe::TO_FIT).await
}

/// A build that the engine is at.
struct Building {
    told: Progress,
    shown: Shown,
    quiet: bool,
    /// Short ids of the images of its steps.
    steps: Vec<String>,
    /// The repository that is not shown.
    tags: String,
}

impl Building {
    async fn follow(
        &mut self,
        response: Response<plimsoll_host::engine::EngineBody>,
    ) -> Result<(), Refused> {
        let (steps, shown, quiet, tags) = (&mut self.steps, &self.shown, self.quiet, &self.tags);
        let followed = self.told.relay(response.into_body(), |mut line| {
            if let Some(text) = line["stream"].as_str() {
                let step = text.trim_end().strip_prefix(" ---> ");
                steps.extend(step.filter(|id| is_short_id(id)).map(str::to_owned));
                if quiet || text.contains(tags.as_str()) {
                    return Ok(None);
                }
                line["stream"] = json!(named(text, shown));
            }
            Ok((!quiet || line.get("stream").is_none()).then_some(line))
        });
        followed.await.map_err(|refused| match refused {
            Refused::Engine { status, message } => Refused::Engine {
                status,
                message: named(&message, shown),
            },
            other => other,
        })
    }

    async fn finish(
        &self,
        app: &App,
        user: &User,
        arrival: &Arrival,
        names: Vec<Reference>,
    ) -> Result<(), Refused> {
        let ids = arrival.settle(app, user, vec![names.clone()]).await?;
        if self.quiet {
            let id = ids.first().map_or("", String::as_str);
            self.told.tell(json!({"stream": format!("{id}\n")})).await;
            return Ok(());
        }
        for name in names {
            let line = format!("Successfully tagged {}\n", name.short());
            self.told.tell(json!({"stream": line})).await;
        }
        Ok(())
    }

    /// Removes what the build made on its way and nobody owns. What the result is built on stays with it.
    async fn clean(&self, app: &App) {
        for step in self.steps.iter().rev() {
            let unnamed = match app.engine.image_inspect(step).await {
                Ok(Some(image)) => image.repo_tags.is_empty() && image.repo_digests.is_empty(),
                _ => false,
            };
            if unnamed && let Err(error) = app.engine.image_untag(step).await {
                // In use by what came of it.
                tracing::debug!(step, error = in_full(&error), "a step's image stays");
            }
        }
    }
}

/// A text of the engine's with the tenant's names in place of ids.
fn named(text: &str, shown: &Shown) -> String {
    let mut text = text.to_owned();
    for (id, name) in shown {
        if text.contains(id.as_str()) {
            text = text.replace(id.as_str(), name);
        }
    }
    text
}

fn is_short_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
