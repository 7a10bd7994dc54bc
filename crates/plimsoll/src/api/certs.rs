//! `/api/users/{user}/certs` and `/api/certs`: client certificates for the gateway over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::entity::CertId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::input::Body;
use super::output;
use super::problem::{Answer, Problem};
use crate::ca::{Authority, CaError};
use crate::clock::new_id;
use crate::config::{Address, Config};
use crate::state::App;
use crate::tasks::in_full;

/// How long a certificate counts unless somebody says otherwise.
const DAYS: i64 = 90;

/// The longest a certificate can count: two years, so that who left is not let in for ever by a list
/// that was lost.
const DAYS_MAX: i64 = 730;

const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct New {
    csr: String,
    days: Option<i64>,
}

/// Signs a certificate for a key that stays with whoever asks.
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Body(new): Body<New>,
) -> Answer {
    let user = caller.user(&app, &user).await?;
    caller.admin()?;
    if user.name == app.config.authz.self_name {
        return Err(Problem::conflict(format!(
            "the engine would take {} for Plimsoll itself (authz.self_name)",
            user.name
        )));
    }
    let days = new.days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        let why = format!("must be from 1 to {DAYS_MAX}");
        return Err(Problem::field("days", why));
    }
    let authority = Authority::of(&app.config.data_dir);
    let ca = authority.pem()?;
    let serial = CertId(new_id());
    let now_ms = app.clock.now_ms();
    let expires_ms = now_ms + days * DAY_MS;
    let signed = authority.issue(&new.csr, &user, serial, now_ms, expires_ms)?;
    // In the ledger before it is handed out: one that is not there does not count.
    let cert = app
        .store
        .add_cert(serial, user.id, expires_ms, caller.actor(&app, None))
        .await?;
    let mut shown = output::cert(&cert);
    shown["certificate"] = json!(signed);
    shown["ca"] = json!(ca);
    shown["endpoint"] = json!(endpoint(&app.config));
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Answer<Json<Value>> {
    let user = caller.user(&app, &user).await?;
    if !caller.is(user.id) {
        caller.reads_all()?;
    }
    let certs = app.store.certs(user.id).await?;
    Ok(Json(
        json!({"items": certs.iter().map(output::cert).collect::<Vec<_>>()}),
    ))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(serial): Path<String>,
) -> Answer {
    let absent = || Problem::not_found("certificate", &serial);
    let id: CertId = serial.parse().map_err(|_| absent())?;
    let (cert, _) = app.store.cert(id)?.ok_or_else(absent)?;
    // Ending one's own takes no right: whoever lost a key must be able to.
    if !caller.is_admin() && !caller.is(cert.user) {
        return Err(if caller.rights.read_all {
            Problem::forbidden("only its user and administrators may revoke a certificate")
        } else {
            absent()
        });
    }
    app.store.revoke_cert(id, caller.actor(&app, None)).await?;
    app.certs_changed.send_replace(());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Where clients find the gateway over TLS, as far as the server can tell: a wildcard address is
/// replaced by this machine's name.
fn endpoint(config: &Config) -> Option<String> {
    let address = config
        .gateway
        .iter()
        .find_map(|text| match Address::of(text) {
            Address::Tls(address) => Some(address),
            Address::Unix(_) => None,
        })?;
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let own = rustix::system::uname();
            let name = own.nodename().to_str().ok()?;
            Some(format!("tcp://{name}:{}", socket.port()))
        }
        _ => Some(format!("tcp://{address}")),
    }
}

impl From<CaError> for Problem {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Absent { .. } => Self::conflict(error.to_string()),
            CaError::Request(_) => Self::field("csr", error.to_string()),
            other => {
                tracing::error!(error = in_full(&other), "a certificate could not be issued");
                let detail = "the certificate authority cannot be used; the server's log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            }
        }
    }
}
