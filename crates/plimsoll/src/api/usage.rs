//! `/api/usage/...`: measured and charged, side by side.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use plimsoll_core::dimension::Amounts;
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use serde_json::{Value, json};

use super::auth::Caller;
use super::output;
use super::problem::Answer;
use crate::meter::Whose;
use crate::state::App;

pub(super) async fn user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Answer<Json<Value>> {
    let user = caller.user(&app, &user).await?;
    let own = app.store.standing(EntityKind::User, user.id.0)?;
    let places = app.store.members(None, Some(user.id)).await?;
    let all = places
        .iter()
        .try_fold(own.reserved, |sum, place| sum.checked_add(&place.reserved))
        .unwrap_or(own.reserved);
    let mut body = output::usage(&app.meter.usage(Whose::User(user.id)), &all);
    body.insert("entityType".to_owned(), json!("user"));
    body.insert("entityId".to_owned(), json!(user.id));
    body.insert("name".to_owned(), json!(user.name));
    body.insert(
        "quota".to_owned(),
        Value::Object(output::max_fields(&own.limits)),
    );
    body.insert(
        "outsideTeams".to_owned(),
        Value::Object(output::amounts("", &own.reserved)),
    );
    body.insert(
        "teams".to_owned(),
        Value::Array(places.iter().map(output::member).collect()),
    );
    Ok(Json(Value::Object(body)))
}

pub(super) async fn team(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(team): Path<String>,
) -> Answer<Json<Value>> {
    let team = caller.team(&app, &team)?;
    let standing = app.store.standing(EntityKind::Team, team.id.0)?;
    let members = app.store.members(Some(team.id), None).await?;
    let mut body = output::usage(&app.meter.usage(Whose::Team(team.id)), &standing.reserved);
    body.insert("entityType".to_owned(), json!("team"));
    body.insert("entityId".to_owned(), json!(team.id));
    body.insert("name".to_owned(), json!(team.name));
    body.insert(
        "quota".to_owned(),
        Value::Object(output::max_fields(&standing.limits)),
    );
    body.insert(
        "borrowed".to_owned(),
        Value::Object(output::amounts("", &standing.overflow)),
    );
    body.insert(
        "members".to_owned(),
        Value::Array(members.iter().map(output::member).collect()),
    );
    Ok(Json(Value::Object(body)))
}

pub(super) async fn system(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Value>> {
    caller.reads_all()?;
    let standing = app.store.standing(EntityKind::System, SYSTEM_ID)?;
    let mut body = output::usage(&app.meter.usage(Whose::System), &standing.reserved);
    body.insert("entityType".to_owned(), json!("system"));
    body.insert("entityId".to_owned(), json!(SYSTEM_ID));
    body.insert("name".to_owned(), json!("system"));
    body.insert(
        "quota".to_owned(),
        Value::Object(output::max_fields(&standing.limits)),
    );
    let unmanaged = output::Measured::new(&app.meter.usage(Whose::Unmanaged));
    body.insert("unmanaged".to_owned(), json!(unmanaged));
    let capacity = Amounts::ZERO
        .with(plimsoll_core::Dimension::Cpu, app.capacity.cpu.0)
        .with(plimsoll_core::Dimension::Memory, app.capacity.memory.0);
    let capacity = output::amounts("", &capacity);
    body.insert("host".to_owned(), output::host_use(app.meter.host()));
    let shown = ["cpuCores", "memoryGB"].map(|name| (name.to_owned(), capacity[name].clone()));
    body.insert(
        "capacity".to_owned(),
        Value::Object(shown.into_iter().collect()),
    );
    Ok(Json(Value::Object(body)))
}
