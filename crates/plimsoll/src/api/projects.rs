//! `/api/projects`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::entity::{Name, ProjectId};
use plimsoll_store::Project;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Body;
use super::output;
use super::problem::{Answer, Problem};
use crate::clock::new_id;
use crate::meter::Whose;
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: Name,
    team: Option<String>,
    user: Option<String>,
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    let (team, user) = match (new.team, new.user) {
        (Some(team), None) => {
            let team = caller.team(&app, &team)?;
            caller.leads_team(&app, &team)?;
            (Some(team.id), None)
        }
        (None, Some(user)) => {
            let user = caller.user(&app, &user).await?;
            caller.acts_for(&user)?;
            (None, Some(user.id))
        }
        (None, None) => match &caller.user {
            Some(user) => {
                caller.acts_for(user)?;
                (None, Some(user.id))
            }
            None => {
                return Err(Problem::field(
                    "team",
                    "name the team or the user it belongs to",
                ));
            }
        },
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "user",
                "a project belongs to a team or to a user, not both",
            ));
        }
    };
    let project = Project {
        id: ProjectId(new_id()),
        name: new.name.to_string(),
        team,
        user,
        created_ms: app.clock.now_ms(),
    };
    let project = app
        .store
        .add_project(project, caller.actor(&app, None))
        .await?;
    Ok((StatusCode::CREATED, Json(shown(&app, &project))).into_response())
}

/// A project with what its containers use.
fn shown(app: &App, project: &Project) -> Value {
    output::project(project, &app.meter.usage(Whose::Project(project.id)))
}

/// Whether the caller sees a project: their own, their teams', or all.
fn sees(app: &App, caller: &Caller, project: &Project) -> Result<bool, Problem> {
    if caller.rights.read_all || project.user.is_some_and(|user| caller.is(user)) {
        return Ok(true);
    }
    project
        .team
        .map_or(Ok(false), |team| caller.sees_team(app, team))
}

/// A project that the caller sees, by its id, or by its name where only one is called so.
pub(super) async fn find(app: &App, caller: &Caller, named: &str) -> Result<Project, Problem> {
    let mut found = Vec::new();
    for project in app.store.projects().await? {
        let is_meant = project.name == named || named.parse() == Ok(project.id);
        if is_meant && sees(app, caller, &project)? {
            found.push(project);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(project), true) => Ok(project),
        (None, _) => Err(Problem::not_found("project", named)),
        (Some(_), false) => Err(Problem::field(
            "project",
            "is the name of several: say which by its id",
        )),
    }
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    let mut items = Vec::new();
    for project in app.store.projects().await? {
        if sees(&app, &caller, &project)? {
            items.push(shown(&app, &project));
        }
    }
    Ok(Json(json!({"items": items})))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer {
    let projects = app.store.projects().await?;
    let project = projects
        .into_iter()
        .find(|p| id.parse() == Ok(p.id))
        .ok_or_else(|| Problem::not_found("project", &id))?;
    if !sees(&app, &caller, &project)? {
        return Err(Problem::not_found("project", &id));
    }
    match project.team {
        Some(team) => caller.leads_team(&app, &app.store.team(&team.to_string())?)?,
        None if caller.rights.change && project.user.is_some_and(|user| caller.is(user)) => {}
        None => caller.admin()?,
    }
    app.store
        .delete_project(project.id, caller.actor(&app, None))
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
