//! Who calls the API, and what they may.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use plimsoll_core::entity::{MemberRole, TeamId, TokenId, UserId};
use plimsoll_store::{Actor, NewToken, Role, StoreError, Team, User};
use sha2::{Digest, Sha256};

use super::UnixPeer;
use super::problem::Problem;
use crate::clock::new_id;
use crate::state::App;

/// A token's secret starts with this, so that scanners know it for one.
const SECRET_PREFIX: &str = "plm_";

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// For the audit log.
    pub(super) name: String,
    /// What they may on the whole system.
    pub(super) role: Role,
    /// Their user; root and the first token have none.
    pub(super) user: Option<User>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(header) = parts.headers.get(AUTHORIZATION) {
            let secret = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer "));
            let secret = secret.ok_or_else(|| {
                Problem::unauthenticated("send the token as `Authorization: Bearer <token>`")
            })?;
            return Self::by_token(app, secret.trim());
        }
        match parts.extensions.get::<ConnectInfo<UnixPeer>>() {
            Some(ConnectInfo(peer)) => Self::by_uid(app, *peer),
            None => Err(Problem::unauthenticated(
                "a token is needed: `plimsoll token add` makes one",
            )),
        }
    }
}

impl Caller {
    fn by_token(app: &App, secret: &str) -> Result<Self, Problem> {
        let token = app
            .store
            .token_by_hash(&hash(secret), app.clock.now_ms())?
            .ok_or_else(|| Problem::unauthenticated("the token is unknown, expired or revoked"))?;
        let user = token
            .user
            .map(|id| app.store.user(&id.to_string()))
            .transpose()?;
        let role = user
            .as_ref()
            .map_or(token.role, |user| user.role.min(token.role));
        let name = match &user {
            Some(user) => format!("user:{}", user.name),
            None => format!("token:{}", token.label),
        };
        Ok(Self { name, role, user })
    }

    fn by_uid(app: &App, peer: UnixPeer) -> Result<Self, Problem> {
        let uid = peer
            .uid
            .ok_or_else(|| Problem::unauthenticated("cannot tell who is calling; send a token"))?;
        if uid == 0 {
            return Ok(Self {
                name: "root".to_owned(),
                role: Role::Admin,
                user: None,
            });
        }
        let user = app.store.user_by_uid(uid)?.ok_or_else(|| {
            Problem::unauthenticated(format!(
                "uid {uid} has no account here: ask an administrator to run \
                 `plimsoll user add NAME --uid {uid}`"
            ))
        })?;
        Ok(Self {
            name: format!("user:{}", user.name),
            role: user.role,
            user: Some(user),
        })
    }

    /// For the audit log.
    pub(super) fn actor(&self, app: &App, reason: Option<String>) -> Actor {
        Actor {
            name: self.name.clone(),
            at_ms: app.clock.now_ms(),
            reason,
        }
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Administrators only.
    pub(super) fn admin(&self) -> Result<(), Problem> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(Problem::forbidden("only administrators may do this"))
        }
    }

    /// Whoever reads everything.
    pub(super) fn reads_all(&self) -> Result<(), Problem> {
        if self.role >= Role::Viewer {
            Ok(())
        } else {
            Err(Problem::forbidden(
                "only administrators and viewers may see this",
            ))
        }
    }

    pub(super) fn is(&self, user: UserId) -> bool {
        self.user.as_ref().is_some_and(|me| me.id == user)
    }

    fn place(&self, app: &App, team: TeamId) -> Result<Option<MemberRole>, Problem> {
        match &self.user {
            None => Ok(None),
            Some(me) => Ok(app.store.member(team, me.id)?.map(|m| m.role)),
        }
    }

    /// Members see their team.
    pub(super) fn reads_team(&self, app: &App, team: &Team) -> Result<(), Problem> {
        if self.role >= Role::Viewer || self.place(app, team.id)?.is_some() {
            Ok(())
        } else {
            Err(Problem::not_found("team", &team.name))
        }
    }

    /// Leads and administrators.
    pub(super) fn leads_team(&self, app: &App, team: &Team) -> Result<(), Problem> {
        if self.is_admin() || self.place(app, team.id)? == Some(MemberRole::Lead) {
            return Ok(());
        }
        self.reads_team(app, team)?;
        Err(Problem::forbidden(format!(
            "only leads of team {} may do this",
            team.name
        )))
    }

    /// Oneself, the leads of one's teams, and who reads everything.
    pub(super) async fn reads_user(&self, app: &App, user: &User) -> Result<(), Problem> {
        if self.role >= Role::Viewer || self.is(user.id) || self.leads_user(app, user).await? {
            Ok(())
        } else {
            Err(Problem::not_found("user", &user.name))
        }
    }

    async fn leads_user(&self, app: &App, user: &User) -> Result<bool, Problem> {
        let Some(me) = &self.user else {
            return Ok(false);
        };
        let mine = app.store.members(None, Some(me.id)).await?;
        let theirs = app.store.members(None, Some(user.id)).await?;
        Ok(mine
            .iter()
            .any(|m| m.role == MemberRole::Lead && theirs.iter().any(|t| t.team == m.team)))
    }

    /// Claims are made by oneself or by administrators.
    pub(super) fn acts_for(&self, user: &User) -> Result<(), Problem> {
        if self.is_admin() || (self.is(user.id) && self.role != Role::Viewer) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!(
                "only {} and administrators may do this",
                user.name
            )))
        }
    }
}

/// The hash under which a token's secret is kept.
pub(super) fn hash(secret: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(secret.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A new secret: 32 random bytes.
pub(super) fn new_secret() -> Result<String, getrandom::Error> {
    use std::fmt::Write as _;
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes
        .iter()
        .fold(SECRET_PREFIX.to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
}

/// The first administrator's token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The ledger does not take it.
    #[error("the ledger does not take it")]
    Store(#[from] StoreError),
    /// The kernel gives no random bytes.
    #[error("no random bytes")]
    Random(#[from] getrandom::Error),
    /// The file cannot be written.
    #[error("the file cannot be written")]
    Io(#[from] std::io::Error),
}

/// Writes the first administrator's token, where there is none yet. Returns its path when it is new.
///
/// # Errors
/// [`TokenError`].
pub async fn ensure_admin_token(app: &App) -> Result<Option<PathBuf>, TokenError> {
    if !app.store.tokens(None).await?.is_empty() {
        return Ok(None);
    }
    let secret = new_secret()?;
    let token = NewToken {
        id: TokenId(new_id()),
        hash: hash(&secret),
        user: None,
        role: Role::Admin,
        label: "first administrator".to_owned(),
        expires_ms: None,
    };
    let path = app.config.admin_token_path();
    let partial = path.with_extension("token.new");
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    let actor = Actor {
        name: "system".to_owned(),
        at_ms: app.clock.now_ms(),
        reason: Some("first start".into()),
    };
    app.store.add_token(token, actor).await?;
    std::fs::rename(&partial, &path)?;
    Ok(Some(path))
}
