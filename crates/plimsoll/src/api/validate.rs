//! `POST /api/quotas/validate`: would this fit? The same decision that create would get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use plimsoll_core::admit::Path;
use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::{Name, TeamId, UserId};
use plimsoll_core::quota::ContainerDefaults;
use plimsoll_store::{Claim, Evaluation, TeamChoice};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Caller;
use super::input::Body;
use super::output::{self, Amounted, Limited, UsageBody};
use super::problem::{Answer, Problem};
use super::services::{self, Service};
use crate::meter::Whose;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Ask {
    entity_type: EntityType,
    entity_id: String,
    team: Option<String>,
    project: Option<Name>,
    resource_request: Option<ResourceRequest>,
    services: Option<BTreeMap<String, Service>>,
    #[serde(default)]
    volumes: BTreeSet<String>,
}

/// Whose room is asked about.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntityType {
    User,
    Team,
}

/// What is asked for, in people's units.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ResourceRequest {
    #[serde(default)]
    cpu_cores: f64,
    #[serde(default, rename = "memoryGB")]
    memory_gb: f64,
    #[serde(default, rename = "storageGB")]
    storage_gb: f64,
    #[serde(default, rename = "tempStorageGB")]
    temp_storage_gb: f64,
    #[serde(default)]
    gpus: f64,
    #[serde(default)]
    pids: f64,
    #[serde(default = "one")]
    containers: f64,
}

fn one() -> f64 {
    1.0
}

impl ResourceRequest {
    /// The claim, with each number checked.
    pub(super) fn amounts(&self) -> Result<Amounts, Problem> {
        let mut amounts = Amounts::ZERO;
        for (name, d, number) in [
            ("cpuCores", Dimension::Cpu, self.cpu_cores),
            ("memoryGB", Dimension::Memory, self.memory_gb),
            ("storageGB", Dimension::Storage, self.storage_gb),
            (
                "tempStorageGB",
                Dimension::TempStorage,
                self.temp_storage_gb,
            ),
            ("gpus", Dimension::Gpus, self.gpus),
            ("pids", Dimension::Pids, self.pids),
            ("containers", Dimension::Containers, self.containers),
            (
                "containers",
                Dimension::ConcurrentContainers,
                self.containers,
            ),
        ] {
            amounts[d] = d.from_human(number).map_err(|error| {
                Problem::field(format!("resourceRequest.{name}"), error.to_string())
            })?;
            let least = least(d);
            // Zero is a claim without that dimension; what is less than the engine takes is a mistake.
            let in_full = matches!(d, Dimension::Containers | Dimension::ConcurrentContainers);
            if amounts[d] < least && (in_full || amounts[d] > 0) {
                let why = format!("must be at least {}", d.show(least));
                return Err(Problem::field(format!("resourceRequest.{name}"), why));
            }
        }
        Ok(amounts)
    }
}

/// The least that a container can be given of a dimension.
const fn least(dimension: Dimension) -> u64 {
    match dimension {
        Dimension::Cpu => ContainerDefaults::CPU_MIN.0,
        Dimension::Memory => ContainerDefaults::MEMORY_MIN.0,
        Dimension::Containers | Dimension::ConcurrentContainers => 1,
        _ => 0,
    }
}

/// The team a claim over the API goes to: named, `-` for none, else the user's default.
pub(super) fn team_choice(
    app: &App,
    caller: &Caller,
    team: Option<&str>,
) -> Result<TeamChoice, Problem> {
    match team {
        None => Ok(TeamChoice::Default),
        Some("-") => Ok(TeamChoice::NoTeam),
        Some(name) => Ok(TeamChoice::Team(caller.team(app, name)?.id)),
    }
}

/// Who would make a claim, and where.
pub(super) struct Asker<'a> {
    pub(super) app: &'a App,
    who: Who,
    team: TeamChoice,
    project: Option<String>,
}

enum Who {
    User(UserId),
    Team(TeamId),
}

impl<'a> Asker<'a> {
    async fn of(app: &'a App, caller: &Caller, ask: &Ask) -> Result<Self, Problem> {
        let (who, team) = match ask.entity_type {
            EntityType::User => {
                let user = caller.user(app, &ask.entity_id).await?;
                let team = team_choice(app, caller, ask.team.as_deref())?;
                (Who::User(user.id), team)
            }
            EntityType::Team => {
                let team = caller.team(app, &ask.entity_id)?;
                (Who::Team(team.id), TeamChoice::Team(team.id))
            }
        };
        let project = ask.project.as_ref().map(ToString::to_string);
        Ok(Self {
            app,
            who,
            team,
            project,
        })
    }

    fn whose(&self) -> Whose {
        match self.who {
            Who::User(user) => Whose::User(user),
            Who::Team(team) => Whose::Team(team),
        }
    }

    /// The user, and the limits that their containers live under.
    pub(super) fn user(&self) -> Result<(UserId, Path), Problem> {
        let Who::User(user) = self.who else {
            let why = "must be user: services are made by somebody";
            return Err(Problem::field("entityType", why));
        };
        let path = self.app.store.path(user, self.team, &self.app.lease.host)?;
        Ok((user, path))
    }

    /// Would this fit? Nothing is charged.
    pub(super) fn evaluate(&self, amounts: Amounts) -> Result<Evaluation, Problem> {
        let (store, host) = (&self.app.store, &self.app.lease.host);
        Ok(match self.who {
            Who::Team(team) => store.evaluate_team(team, host, &amounts)?,
            Who::User(user) => store.evaluate(&Claim {
                user,
                team: self.team,
                project: self.project.clone(),
                host: host.clone(),
                amounts,
            })?,
        })
    }
}

pub(super) async fn validate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(ask): Body<Ask>,
) -> Answer {
    let asker = Asker::of(&app, &caller, &ask).await?;
    let whose = asker.whose();
    let (amounts, services) = match (&ask.resource_request, &ask.services) {
        (Some(request), None) if ask.volumes.is_empty() => (request.amounts()?, None),
        (None, Some(services)) => {
            let (sum, verdicts) = services::judged(&asker, services, &ask.volumes)?;
            (sum, Some(verdicts))
        }
        (None, None) => {
            return Err(Problem::field(
                "resourceRequest",
                "is missing, and so are services",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "resourceRequest",
                "is given together with services",
            ));
        }
        (Some(_), None) => return Err(Problem::field("volumes", "are given without services")),
    };
    let evaluation = asker.evaluate(amounts)?;
    let (limits, reserved) = match &evaluation.path.owner {
        plimsoll_core::Owner::User(user) => (user.limits, user.reserved),
        plimsoll_core::Owner::Team(place) => match whose {
            Whose::Team(_) => (place.team.limits, place.team.reserved),
            _ => (evaluation.path.effective_limits(), place.member_reserved),
        },
    };
    let projected = reserved.checked_add(&amounts).unwrap_or(reserved);
    let verdict = &evaluation.verdict;
    let each = services
        .iter()
        .flatten()
        .all(|service| service["allowed"] == true);
    let answer = Validation {
        allowed: verdict.allowed() && each,
        violations: verdict.violations.iter().map(output::violation).collect(),
        current_usage: UsageBody::new(&app.meter.usage(whose), &reserved),
        quota: Limited(&limits),
        projected_usage: Amounted(&output::PLAIN, &projected),
        remedies: evaluation.remedies.iter().map(output::remedy).collect(),
        message: evaluation.message.as_deref(),
        services,
    };
    Ok(Json(&answer).into_response())
}

/// The answer; written straight out, because platforms ask this before every start.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validation<'a> {
    allowed: bool,
    violations: Vec<Value>,
    current_usage: UsageBody<'a>,
    quota: Limited<'a>,
    projected_usage: Amounted<'a>,
    remedies: Vec<Value>,
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<Value>>,
}
