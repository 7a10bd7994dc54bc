//! Who calls: known by the socket, never by anything in the request.

use std::path::Path;

use plimsoll_core::entity::{NAME_LEN_MAX, Name, UserId};
use plimsoll_host::ids::ContainerId;
use plimsoll_host::peer;
use plimsoll_store::{Actor, NewUser, Role, StoreError, User};
use tokio::net::UnixStream;

use super::refused::Refused;
use crate::ca::Named;
use crate::clock::new_id;
use crate::limits::Who;
use crate::state::App;

/// Uids below belong to the system, the one above to nobody.
const PROVISIONED: std::ops::Range<u32> = 1000..65_534;

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
    let entry = passwd_entry(Path::new("/etc/passwd"), uid);
    let named = entry.as_ref().map_or("NAME", |(name, _)| name.as_str());
    let contact = contact(app);
    let unknown = || {
        Refused::denied(
            "unknown_user",
            format!(
                "uid {uid} has no account here: ask {contact} to run \
                 `plimsoll user add {named} --uid {uid}`"
            ),
        )
    };
    let (Some(class), Some((name, gid))) = (&tenants.provision_class, &entry) else {
        return Err(unknown());
    };
    let allowed = if tenants.provision_groups.is_empty() {
        PROVISIONED.contains(&uid)
    } else {
        in_groups(
            Path::new("/etc/group"),
            name,
            *gid,
            &tenants.provision_groups,
        )
    };
    if !allowed {
        return Err(unknown());
    }
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

/// Name and primary group of a uid.
fn passwd_entry(passwd: &Path, uid: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(passwd).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (_, id, gid) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| Some((name.to_owned(), gid.parse().ok()?)))?
    })
}

/// Whether an OS user is in one of these groups, as a primary or further one.
fn in_groups(group: &Path, user: &str, gid: u32, wanted: &[String]) -> bool {
    let Ok(text) = std::fs::read_to_string(group) else {
        return false;
    };
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, members] = fields[..] else {
            return false;
        };
        wanted.iter().any(|w| w == name)
            && (id.parse() == Ok(gid) || members.split(',').any(|m| m == user))
    })
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

    #[test]
    fn os_users_and_their_groups_are_read_from_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let passwd = dir.path().join("passwd");
        std::fs::write(
            &passwd,
            "root:x:0:0::/root:/bin/sh\nada:x:1001:50:A:/home/ada:\n",
        )
        .unwrap();
        assert_eq!(passwd_entry(&passwd, 1001), Some(("ada".to_owned(), 50)));
        assert_eq!(passwd_entry(&passwd, 1002), None);
        let group = dir.path().join("group");
        std::fs::write(&group, "staff:x:50:\nlab:x:60:ben,ada\nempty:x:70:\n").unwrap();
        for (wanted, expected) in [
            ("staff", true),
            ("lab", true),
            ("empty", false),
            ("no", false),
        ] {
            assert_eq!(
                in_groups(&group, "ada", 50, &[wanted.to_owned()]),
                expected,
                "{wanted}"
            );
        }
    }
}
