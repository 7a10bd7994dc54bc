//! Who calls the API, and what they may.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use plimsoll_core::entity::{MemberRole, TeamId, TokenId, UserId};
use plimsoll_store::{Actor, NewToken, Role, StoreError, Team, Token, User};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::input::id_or_name;
use super::problem::Problem;
use crate::clock::new_id;
use crate::gateway::Peer;
use crate::limits::Who;
use crate::state::App;

/// A token's secret starts with this, so that scanners know it for one.
const SECRET_PREFIX: &str = "plm_";

/// What somebody may do on the whole system; what they may do in a team, the ledger says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    /// Changes everything.
    pub(super) admin: bool,
    /// Reads everything.
    pub(super) read_all: bool,
    /// Changes what is their own, and leads where they lead.
    pub(super) change: bool,
}

impl Rights {
    /// The rights of a role. A viewer reads everything and changes nothing, so neither a viewer nor
    /// a member has all the rights of the other.
    pub(super) const fn of(role: Role) -> Self {
        Self {
            admin: matches!(role, Role::Admin),
            read_all: matches!(role, Role::Admin | Role::Viewer),
            change: matches!(role, Role::Admin | Role::Member),
        }
    }

    /// What both allow: a token never exceeds its user.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            admin: self.admin && other.admin,
            read_all: self.read_all && other.read_all,
            change: self.change && other.change,
        }
    }

    /// Whether `other` allows nothing that this does not.
    pub(super) fn cover(self, other: Self) -> bool {
        self.and(other) == other
    }
}

/// The token a request shows, valid, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    token: Token,
    user: Option<User>,
}

impl Bearer {
    /// `None` without the header.
    pub(super) fn of(app: &App, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let header = header.to_str().ok().and_then(|h| h.split_once(' '));
        let secret = header.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, secret) = secret.ok_or_else(|| {
            Problem::unauthenticated("send the token as `Authorization: Bearer <token>`")
        })?;
        let (token, user) = app
            .store
            .bearer(&hash(secret.trim()), app.clock.now_ms())?
            .ok_or_else(|| {
                Problem::unauthenticated(
                    "the token is unknown, expired or revoked: `plimsoll token add` makes another",
                )
            })?;
        Ok(Some(Self { token, user }))
    }

    /// Whose share of the server its requests use.
    pub(super) fn who(&self) -> Who {
        match &self.user {
            Some(user) => Who::User(user.id),
            None => Who::Token(self.token.id),
        }
    }
}

/// Who calls.
///
/// What a caller may not *see* does not exist for them: the answer is the 404 of a name nobody has.
/// What they see but may not *do* is 403.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// For the audit log.
    pub(super) name: String,
    /// Whose idempotency keys theirs are; never the same for two callers.
    pub(super) key: String,
    /// What they may on the whole system.
    pub(super) rights: Rights,
    /// Their user; root and the first token have none.
    pub(super) user: Option<User>,
    /// When the token they showed expires, Unix milliseconds.
    pub(super) until_ms: Option<i64>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let bearer = match parts.extensions.remove::<Bearer>() {
            None => Bearer::of(app, &parts.headers)?,
            looked_up => looked_up,
        };
        if let Some(bearer) = bearer {
            return Ok(Self::by_token(bearer));
        }
        match parts.extensions.get::<Peer>() {
            Some(peer) => Self::by_peer(app, peer),
            None => Err(Problem::unauthenticated(format!(
                "a token is needed: the first is in {}, `plimsoll token add` makes more",
                app.config.admin_token_path().display()
            ))),
        }
    }
}

impl Caller {
    fn by_token(Bearer { token, user }: Bearer) -> Self {
        let rights = Rights::of(token.role);
        let until_ms = token.expires_ms;
        match user {
            Some(user) => Self {
                rights: rights.and(Rights::of(user.role)),
                until_ms,
                ..Self::of_user(user)
            },
            None => Self {
                name: format!("token:{}", token.label),
                key: format!("token:{}", token.id),
                rights,
                user: None,
                until_ms,
            },
        }
    }

    fn by_peer(app: &App, peer: &Peer) -> Result<Self, Problem> {
        match peer {
            Peer::Host { uid: 0 } => Ok(Self {
                name: "root".to_owned(),
                key: "root".to_owned(),
                rights: Rights::of(Role::Admin),
                user: None,
                until_ms: None,
            }),
            Peer::Host { uid } => {
                let user = app.store.user_by_uid(*uid)?.ok_or_else(|| {
                    Problem::unauthenticated(format!(
                        "uid {uid} has no account here: ask an administrator to run \
                         `plimsoll user add NAME --uid {uid}`"
                    ))
                })?;
                Ok(Self::of_user(user))
            }
            // Root in a container is not root here: it is the container's tenant, and no more.
            Peer::Container { id } => {
                let owner = app.store.by_container(&app.lease.host, id.as_str())?;
                let owner = owner.ok_or_else(|| {
                    Problem::unauthenticated(
                        "this container belongs to no user of Plimsoll; send a token",
                    )
                })?;
                let user = app.store.user(&owner.user.to_string())?;
                let rights = Rights::of(user.role).and(Rights::of(Role::Member));
                Ok(Self {
                    rights,
                    ..Self::of_user(user)
                })
            }
            // Certificates are for the gateway.
            Peer::Certificate(_) | Peer::Unknown => Err(Problem::unauthenticated(
                "cannot tell who is calling; send a token",
            )),
        }
    }

    fn of_user(user: User) -> Self {
        Self {
            name: format!("user:{}", user.name),
            key: format!("user:{}", user.id),
            rights: Rights::of(user.role),
            user: Some(user),
            until_ms: None,
        }
    }

    /// For the audit log.
    pub(super) fn actor(&self, app: &App, reason: Option<String>) -> Actor {
        Actor {
            name: self.name.clone(),
            at_ms: app.clock.now_ms(),
            reason,
        }
    }

    pub(super) const fn is_admin(&self) -> bool {
        self.rights.admin
    }

    /// The role that has the caller's rights, for display.
    pub(super) const fn role_name(&self) -> &'static str {
        match self.rights {
            Rights { admin: true, .. } => Role::Admin.name(),
            Rights { read_all: true, .. } => Role::Viewer.name(),
            Rights { .. } => Role::Member.name(),
        }
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
        if self.rights.read_all {
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

    /// Whether `text` is the caller's own name or id.
    pub(super) fn is_named(&self, text: &str) -> bool {
        self.user.as_ref().is_some_and(|me| {
            me.name == text || Uuid::try_parse(text).is_ok_and(|id| id == me.id.0)
        })
    }

    /// The caller's role in a team.
    pub(super) fn place(&self, app: &App, team: TeamId) -> Result<Option<MemberRole>, Problem> {
        match &self.user {
            None => Ok(None),
            Some(me) => Ok(app.store.member(team, me.id)?.map(|m| m.role)),
        }
    }

    /// The team of this name or id, for its members and who reads everything.
    pub(super) fn team(&self, app: &App, text: &str) -> Result<Team, Problem> {
        let absent = || Problem::not_found("team", text);
        let team = match app.store.team(&id_or_name(text)) {
            Err(StoreError::NotFound { .. }) => return Err(absent()),
            team => team?,
        };
        if self.sees_team(app, team.id)? {
            Ok(team)
        } else {
            Err(absent())
        }
    }

    /// Members see their team.
    pub(super) fn sees_team(&self, app: &App, team: TeamId) -> Result<bool, Problem> {
        Ok(self.rights.read_all || self.place(app, team)?.is_some())
    }

    /// Leads and administrators change a team they see.
    pub(super) fn leads_team(&self, app: &App, team: &Team) -> Result<(), Problem> {
        let lead = Some(MemberRole::Lead);
        if self.is_admin() || (self.rights.change && self.place(app, team.id)? == lead) {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "only administrators and leads of team {} may do this",
            team.name
        )))
    }

    /// The user of this name or id, for themselves, the leads of their teams and who reads everything.
    pub(super) async fn user(&self, app: &App, text: &str) -> Result<User, Problem> {
        let absent = || Problem::not_found("user", text);
        if self.is_named(text)
            && let Some(me) = &self.user
        {
            return Ok(me.clone());
        }
        let user = match app.store.user(&id_or_name(text)) {
            Err(StoreError::NotFound { .. }) => return Err(absent()),
            user => user?,
        };
        if self.rights.read_all || self.leads_user(app, &user).await? {
            Ok(user)
        } else {
            Err(absent())
        }
    }

    async fn leads_user(&self, app: &App, user: &User) -> Result<bool, Problem> {
        for team in self.leads(app).await? {
            if app.store.member(team, user.id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The teams the caller leads.
    pub(super) async fn leads(&self, app: &App) -> Result<Vec<TeamId>, Problem> {
        let Some(me) = &self.user else {
            return Ok(Vec::new());
        };
        let places = app.store.members(None, Some(me.id)).await?;
        let led = places.iter().filter(|m| m.role == MemberRole::Lead);
        Ok(led.map(|m| m.team).collect())
    }

    /// The caller and the teams they are in; `None` for one who reads everything.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(super) async fn entities(&self, app: &App) -> Result<Option<Vec<Uuid>>, Problem> {
        if self.rights.read_all {
            return Ok(None);
        }
        let mut mine = Vec::new();
        if let Some(me) = &self.user {
            mine.push(me.id.0);
            let places = app.store.members(None, Some(me.id)).await?;
            mine.extend(places.iter().map(|place| place.team.0));
        }
        Ok(Some(mine))
    }

    /// Whether the caller sees what `user` holds in `team`: their own, a lead what is in the team.
    pub(super) fn sees_charge(
        &self,
        app: &App,
        user: UserId,
        team: Option<TeamId>,
    ) -> Result<bool, Problem> {
        if self.rights.read_all || self.is(user) {
            return Ok(true);
        }
        match team {
            Some(team) => Ok(self.place(app, team)? == Some(MemberRole::Lead)),
            None => Ok(false),
        }
    }

    /// Claims are made by oneself or by administrators.
    pub(super) fn acts_for(&self, user: &User) -> Result<(), Problem> {
        if self.is_admin() || (self.rights.change && self.is(user.id)) {
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
    // The file first: a crash in between leaves a file whose token nobody knows, and the next start
    // writes another; the other way round nobody would ever know the token.
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
    std::fs::rename(&partial, &path)?;
    std::fs::File::open(&app.config.data_dir)?.sync_all()?;
    app.store
        .add_token(token, app.itself(Some("first start")))
        .await?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_exceeds_its_user() {
        let both = |user, token| Rights::of(user).and(Rights::of(token));
        assert!(both(Role::Admin, Role::Admin).admin);
        assert!(!both(Role::Member, Role::Admin).admin);
        assert!(!both(Role::Admin, Role::Member).read_all);
        assert!(!both(Role::Admin, Role::Viewer).change);
        let none = both(Role::Viewer, Role::Member);
        assert!(!none.admin && !none.read_all && !none.change);
        assert!(Rights::of(Role::Admin).cover(Rights::of(Role::Viewer)));
        assert!(!Rights::of(Role::Member).cover(Rights::of(Role::Viewer)));
        assert!(!Rights::of(Role::Viewer).cover(Rights::of(Role::Member)));
    }

    #[tokio::test]
    async fn a_peer_is_known_by_its_uid_and_in_a_container_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::Config {
            data_dir: dir.path().to_owned(),
            ..crate::config::Config::default()
        };
        let app = crate::serve::build(config, crate::clock::Clock::default()).await;
        let app = app.unwrap();
        let actor = Actor {
            name: "test".into(),
            at_ms: 0,
            reason: None,
        };
        let ada = plimsoll_store::NewUser {
            id: UserId(new_id()),
            name: "ada".parse().unwrap(),
            email: None,
            os_uid: Some(1001),
            role: Role::Admin,
            class: None,
        };
        app.store.add_user(ada.clone(), actor).await.unwrap();
        let container = "c".repeat(64);
        let claim = plimsoll_store::Claim {
            user: ada.id,
            team: plimsoll_store::TeamChoice::NoTeam,
            project: None,
            host: app.lease.host.clone(),
            amounts: plimsoll_core::Amounts::ZERO,
        };
        let adopted = plimsoll_store::NewReservation {
            id: plimsoll_core::entity::ReservationId(new_id()),
            kind: plimsoll_store::ObjectKind::Container,
            goes_with: None,
            host_mounts: Vec::new(),
            replaces: None,
            decision: plimsoll_core::entity::DecisionId(new_id()),
            claim,
            origin: plimsoll_store::Origin::Adopted,
            idempotency: None,
            container_name: None,
            image: None,
            expires_ms: 0,
            now_ms: 0,
        };
        let state = plimsoll_core::State::Active;
        app.store
            .adopt(adopted, container.clone(), state)
            .await
            .unwrap();

        let known = |peer: Peer| {
            Caller::by_peer(&app, &peer).map(|caller| (caller.name, caller.rights.admin))
        };
        assert_eq!(known(Peer::Host { uid: 0 }).unwrap(), ("root".into(), true));
        let ada = ("user:ada".to_owned(), true);
        assert_eq!(known(Peer::Host { uid: 1001 }).unwrap(), ada);
        let inside = |id: &str| Peer::Container {
            id: id.parse().unwrap(),
        };
        // Whoever is inside her container has at most a member's rights.
        assert_eq!(known(inside(&container)).unwrap(), (ada.0, false));
        for nobody in [
            Peer::Host { uid: 1002 },
            inside(&"d".repeat(64)),
            Peer::Unknown,
        ] {
            assert!(known(nobody.clone()).is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn hashes_are_sha_256_in_hex() {
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
