//! `POST /containers/{id}/update`: the whole resulting set of limits is worked out, the difference
//! admitted, and every value sent explicitly, under the container's lock.

use http::{Response, StatusCode};
use plimsoll_core::remedy::watched;
use plimsoll_core::{Dimension, State};
use plimsoll_host::request::RestartName;
use plimsoll_host::request::update::{CurrentResources, UpdateRequest, resulting};
use plimsoll_store::Actor;
use serde_json::json;

use super::answer::{self, Body};
use super::create::settle_own;
use super::refused::Refused;
use super::resolve;
use super::route::Call;
use super::upstream;
use crate::caps;
use crate::settle::settle_locked;

pub(super) async fn update(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = UpdateRequest::parse(&body)?;
    let (app, user) = (call.app, call.user);
    let done = tokio::spawn(async move {
        let _moves = app.standstill.share(&owned.id).await;
        let _held = app.container_locks.lock(&owned.id).await;
        let settled = settle_locked(&app, &owned.id).await?;
        let reservation = settled.unwrap_or(owned.reservation);
        let path = format!("/containers/{}/json", owned.id);
        let seen = upstream::get(&app, &path).await?;
        let current = CurrentResources::from_host_config(&seen["HostConfig"]);
        let updated = resulting(&current, &request, false)?;
        if reservation.state == State::Stopped
            && updated.resources.restart != current.restart
            && updated.resources.restart.name != RestartName::No
        {
            // The engine would start it by itself at its own next start, with nobody asked.
            return Err(Refused::denied(
                "policy",
                "a restart policy is a claim to run: start the container first, then set --restart",
            ));
        }
        let path = app.store.path_of(&reservation)?;
        let most = caps::most_cpu(&path, app.capacity.cpu);
        let throttle = app.store.throttles()?.remove(&reservation.id);
        if let Some(to) = throttle
            && request.asked.cpu.is_some_and(|cpu| cpu > to)
        {
            return Err(Refused::denied(
                "throttled",
                format!("it is held to --cpus {to} until a limit is no longer exceeded: docker quota violations"),
            ));
        }
        if let Some(cpu) = request.asked.cpu.filter(|cpu| *cpu > most)
            && current.cpu.is_none_or(|now| cpu > now)
            && caps::admission_allows_more(&path)
        {
            return Err(Refused::too_much_cpu(cpu, most));
        }
        let mut claim = reservation.claim;
        for d in [Dimension::Cpu, Dimension::Memory, Dimension::Pids] {
            // A container without a limit stays charged as it was.
            if updated.after.get(d) > 0 {
                claim[d] = updated.after.get(d);
            }
        }
        let deed = app.deed();
        let mut admission = app.store.resize(reservation.id, claim, deed).await?;
        if admission.reservation.is_none() {
            settle_own(&app, &user, Some(&owned.id)).await;
            let deed = app.deed();
            admission = app.store.resize(reservation.id, claim, deed).await?;
        }
        if admission.reservation.is_none() {
            return Err(Refused::Quota(Box::new(admission.decision)));
        }
        let path = format!("/containers/{}/update", owned.id);
        let answered = match upstream::post_json(&app, &path, updated.body.to_string()).await {
            Ok(response) => answer::engine_json(response).await,
            Err(refused) => Err(refused),
        };
        // Whatever the engine made of it is what is charged.
        settle_locked(&app, &owned.id).await?;
        if answered.is_ok() && request.restart.is_some() {
            // What it was stopped with does not come back over it.
            app.store.keep_restart(reservation.id, None).await?;
        }
        if answered.is_ok() && request.asked.cpu.is_some() && reservation.clamp.is_some() {
            // What its owner chose now is what it was meant to have.
            let actor = Actor {
                name: format!("user:{}", user.name),
                at_ms: app.clock.now_ms(),
                reason: None,
            };
            let now = updated.resources.cpu.unwrap_or_default();
            app.store
                .set_clamp(reservation.id, None, now, actor)
                .await?;
        }
        let mut warnings = updated.warnings;
        warnings.extend(watched(&admission.decision.violations));
        let theirs = answered?;
        let theirs = theirs["Warnings"].as_array().into_iter().flatten();
        warnings.extend(theirs.filter_map(|w| w.as_str()).map(str::to_owned));
        Ok(answer::json(StatusCode::OK, &json!({"Warnings": warnings})))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}
