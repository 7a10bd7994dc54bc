//! Who calls: known by the socket, never by anything in the request.

use std::io;
use std::path::Path;

use plimsoll_core::entity::{NAME_LEN_MAX, Name, UserId};
use plimsoll_host::ids::ContainerId;
use plimsoll_host::os_user::OsUser;
use plimsoll_host::peer;
use plimsoll_store::{Actor, NewUser, Role, StoreError, User};
use tokio::net::UnixStream;

use super::refused::Refused;
use crate::ca::Named;
use crate::clock::new_id;
use crate::limits::Who;
use crate::state::App;

/// Uids below belong to the system.
const PERSONS_FROM: u32 = 1000;

/// Lent to services while they run, and nobody's.
const NO_PERSONS: std::ops::Range<u32> = 61_184..65_536;

/// The process at the other end of a connection, as the kernel names it.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// A process on the host.
    Host { uid: u32 },
    /// A machine elsewhere, with a certificate of ours that names a user.
    Certificate(Named),
    /// A process inside a container: it is that container's tenant, or nobody.
    Container { id: ContainerId },
    /// The kernel did not say, or the process ended before it could be looked at.
    Unknown,
}

impl Peer {
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            return Self::Unknown;
        };
        let uid = credentials.uid();
        let Some(pid) = credentials.pid().and_then(|pid| u32::try_from(pid).ok()) else {
            return Self::Unknown;
        };
        let proc_root = Path::new("/proc");
        // The pid could be taken over by another process between the two looks. Between the connection
        // and the first look it could, too: SO_PEERPIDFD (Linux 6.5) would end that, and has no safe
        // binding in what this workspace depends on.
        let Ok(started) = peer::start_time(proc_root, pid) else {
            return Self::Unknown;
        };
        let container = peer::container_of(proc_root, pid);
        match (container, peer::start_time(proc_root, pid)) {
            (Ok(inside), Ok(again)) if again == started => match inside {
                Some(id) => Self::Container { id },
                None => Self::Host { uid },
            },
            _ => Self::Unknown,
        }
    }
}

impl Peer {
    /// Whose share of the server it uses. That is only bookkeeping, so a ledger that does not answer is
    /// no error here.
    pub(crate) fn who(&self, app: &App) -> Who {
        match self {
            Self::Host { uid: 0 } => Who::Root,
            Self::Host { uid } => match app.store.user_by_uid(*uid) {
                Ok(Some(user)) => Who::User(user.id),
                _ => Who::Uid(*uid),
            },
            Self::Certificate(named) => Who::User(named.user),
            Self::Container { id } => match app.store.by_container(&app.lease.host, id.as_str()) {
                Ok(Some(owner)) => Who::User(owner.user),
                _ => Who::Unknown,
            },
            Self::Unknown => Who::Unknown,
        }
    }
}

/// The caller's user as the ledger has it now: a suspension or deletion counts at once.
pub(super) async fn caller(app: &App, peer: &Peer) -> Result<User, Refused> {
    match peer {
        Peer::Unknown => Err(Refused::denied(
            "unknown_caller",
            "cannot tell who is calling: the calling process ended or is hidden",
        )),
        Peer::Container { id } => {
            let owner = app.store.by_container(&app.lease.host, id.as_str())?;
            let owner = owner.ok_or_else(|| {
                Refused::denied(
                    "unknown_caller",
                    "this container belongs to no user of Plimsoll",
                )
            })?;
            Ok(app.store.user(&owner.user.to_string())?)
        }
        Peer::Certificate(named) => by_certificate(app, *named),
        Peer::Host { uid } => match app.store.user_by_uid(*uid)? {
            Some(user) => Ok(user),
            None => provision(app, *uid).await,
        },
    }
}

/// The user a certificate names, if it counts now. The chain was verified in the handshake; that was
/// then, and the ledger knows what happened since.
pub(super) fn by_certificate(app: &App, named: Named) -> Result<User, Refused> {
    let found = app.store.cert(named.serial)?;
    let why = match &found {
        Some((cert, _)) if cert.user != named.user => "names somebody else than the ledger does",
        Some((cert, _)) if cert.revoked_ms.is_some() => "was revoked",
        Some((cert, _)) if cert.expires_ms <= app.clock.now_ms() => "has expired",
        Some(_) => "",
        None => "is not in the ledger: it was issued elsewhere, or its user is gone",
    };
    if let (Some((_, user)), "") = (found, why) {
        return Ok(user);
    }
    tracing::info!(serial = %named.serial, user = %named.user, why, "a client's certificate is refused");
    Err(Refused::denied(
        "certificate",
        format!(
            "your certificate {} {why}; ask {} for another",
            named.serial,
            contact(app)
        ),
    ))
}

/// Whether a connection must end because its certificate counts no more.
pub(super) fn is_barred(app: &App, peer: &Peer) -> bool {
    match peer {
        Peer::Certificate(named) => {
            matches!(by_certificate(app, *named), Err(Refused::Denied { .. }))
        }
        _ => false,
    }
}

fn contact(app: &App) -> &str {
    let contact = app.config.tenants.contact.as_deref();
    contact.unwrap_or("an administrator of this host")
}

/// Makes a user for an unknown uid where that is configured, else says how to get one.
async fn provision(app: &App, uid: u32) -> Result<User, Refused> {
    let tenants = &app.config.tenants;
    let groups = tenants.provision_groups.clone();
    let asked = tokio::task::spawn_blocking(move || account(uid, &groups)).await;
    let account = asked
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| Refused::no_accounts(&error))?;
    let unknown = || {
        let named = account.as_ref().map_or("NAME", |(name, _)| name.as_str());
        let contact = contact(app);
        Refused::denied(
            "unknown_user",
            format!(
                "uid {uid} has no account here: ask {contact} to run \
                 `plimsoll user add {named} --uid {uid}`"
            ),
        )
    };
    let (Some(class), Some((name, true))) = (&tenants.provision_class, &account) else {
        return Err(unknown());
    };
    // Somebody else may have the name already: then the uid is one.
    for name in [sanitized(name), format!("u{uid}").parse().ok()] {
        let Some(name) = name else {
            continue;
        };
        let user = NewUser {
            id: UserId(new_id()),
            name,
            email: None,
            os_uid: Some(uid),
            role: Role::Member,
            class: Some(class.clone()),
        };
        let actor = Actor {
            name: "gateway".into(),
            at_ms: app.clock.now_ms(),
            reason: Some(format!("provisioned for uid {uid}")),
        };
        match app.store.add_user(user, actor).await {
            Ok(user) => return Ok(user),
            Err(StoreError::Conflict(_)) => {
                // Two first requests at once.
                if let Some(user) = app.store.user_by_uid(uid)? {
                    return Ok(user);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(unknown())
}

/// The nearest name to a login: those may hold capitals, `$` or a domain.
fn sanitized(login: &str) -> Option<Name> {
    let text: String = login
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
            _ => '-',
        })
        .collect();
    let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    text.get(..text.len().min(NAME_LEN_MAX))?.parse().ok()
}

/// The name of a uid's account on the host, and whether a user is made for it where that is configured.
fn account(uid: u32, groups: &[String]) -> io::Result<Option<(String, bool)>> {
    let Some(account) = OsUser::by_uid(uid)? else {
        return Ok(None);
    };
    let provisioned = match groups {
        [] => uid >= PERSONS_FROM && !NO_PERSONS.contains(&uid),
        groups => uid != 0 && account.is_in(groups)?,
    };
    Ok(Some((account.name, provisioned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_become_names() {
        for (login, name) in [
            ("ada", Some("ada")),
            ("Ada.L", Some("ada.l")),
            ("HOST$", Some("host")),
            ("dom\\ada", Some("dom-ada")),
            ("_apt", Some("apt")),
            ("ä", None),
        ] {
            assert_eq!(sanitized(login).as_ref().map(Name::as_str), name, "{login}");
        }
        assert!(sanitized(&"x".repeat(100)).is_some());
    }

    #[tokio::test]
    async fn a_certificate_counts_while_the_ledger_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::Config {
            data_dir: dir.path().to_owned(),
            ..crate::config::Config::default()
        };
        let clock = crate::clock::Clock::default();
        let app = crate::serve::build(config, clock.clone()).await.unwrap();
        let actor = || Actor {
            name: "test".into(),
            at_ms: clock.now_ms(),
            reason: None,
        };
        let add = async |name: &str| {
            let user = NewUser {
                id: UserId(new_id()),
                name: name.parse().unwrap(),
                email: None,
                os_uid: None,
                role: Role::Member,
                class: None,
            };
            app.store.add_user(user, actor()).await.unwrap().id
        };
        let (ada, ben) = (add("ada").await, add("ben").await);
        let issue = async |expires_ms| {
            let serial = plimsoll_core::entity::CertId(new_id());
            let kept = app.store.add_cert(serial, ada, expires_ms, actor()).await;
            kept.unwrap().serial
        };
        let hour_ms = 3_600_000;
        let short = issue(clock.now_ms() + hour_ms).await;
        let long = issue(clock.now_ms() + 10 * hour_ms).await;
        let said = |serial, user| match by_certificate(&app, Named { serial, user }) {
            Ok(user) => user.name,
            Err(refused) => refused.into_message(),
        };
        assert_eq!(said(short, ada), "ada");
        assert!(said(short, ben).contains("names somebody else"));
        let unknown = plimsoll_core::entity::CertId(new_id());
        assert!(said(unknown, ada).contains("is not in the ledger"));
        clock.advance(std::time::Duration::from_secs(3600));
        assert!(said(short, ada).contains("has expired"));
        assert_eq!(said(long, ada), "ada");
        app.store.revoke_cert(long, actor()).await.unwrap();
        assert!(said(long, ada).contains("was revoked"));
        let peer = |serial| Peer::Certificate(Named { serial, user: ada });
        assert!(is_barred(&app, &peer(long)) && !is_barred(&app, &Peer::Unknown));
    }
}
