//! `POST /api/quotas/enforce`: the next step of the ladder, now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use plimsoll_store::StoreError;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::input::Body;
use super::output;
use super::problem::{Answer, Problem};
use crate::ladder::{Action, How, pass};
use crate::state::App;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Ask {
    entity_type: Option<EntityKind>,
    entity_id: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

impl Ask {
    /// Whose limits; `None` is everybody's.
    async fn whose(&self, app: &App, caller: &Caller) -> Result<Option<Uuid>, Problem> {
        let missing = || Problem::field("entityId", "is missing: whose limits?");
        match (self.entity_type, &self.entity_id) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Problem::field("entityType", "is missing")),
            (Some(EntityKind::System), None) => Ok(Some(SYSTEM_ID)),
            (Some(EntityKind::System), Some(_)) => {
                Err(Problem::field("entityId", "is not known here"))
            }
            (Some(EntityKind::User), id) => {
                let user = caller.user(app, id.as_ref().ok_or_else(missing)?).await?;
                Ok(Some(user.id.0))
            }
            (Some(EntityKind::Team), id) => {
                let team = caller.team(app, id.as_ref().ok_or_else(missing)?)?;
                Ok(Some(team.id.0))
            }
        }
    }
}

pub(super) async fn enforce(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(ask): Body<Ask>,
) -> Answer<Json<Value>> {
    caller.admin()?;
    let how = How {
        whose: ask.whose(&app, &caller).await?,
        hurry: true,
        dry_run: ask.dry_run,
        shadow: false,
    };
    // Finished even if the client goes away: what is announced is done.
    let passed = tokio::spawn(async move { pass(&app, how).await }).await;
    let passed = passed.unwrap_or(Err(StoreError::Stopped))?;
    Ok(Json(json!({
        "dryRun": ask.dry_run,
        "actions": passed.actions.iter().map(shown).collect::<Vec<_>>(),
        "failed": passed.failed,
    })))
}

pub(super) fn shown(a: &Action) -> Value {
    json!({
        "container": a.container, "user": a.user, "dimension": a.dimension, "step": a.step,
        "action": a.what, "reason": a.reason, "at": output::time(a.at_ms),
    })
}
