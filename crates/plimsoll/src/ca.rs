//! Plimsoll's own certificate authority: the files under `<data-dir>/tls`, certificates for users, and
//! what a certificate says.
//!
//! A user's certificate names their id, which never changes, and carries a serial number that is a row
//! in the ledger; whether it counts is asked there, at each request. Private keys of users never come
//! here: what is signed is a request for a key that was made elsewhere.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::entity::{CertId, UserId};
use plimsoll_store::User;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::new_id;

/// How a certificate names its user.
const USER_URI: &str = "plimsoll:user:";

/// The common name by which an engine, and its authorization plugin, know Plimsoll itself.
pub const SELF_NAME: &str = "plimsoll-server";

/// How long the authority and the server's certificate count. Clients are given the authority's
/// certificate with their own, so both end together when it is replaced.
const OWN_DAYS: u64 = 3650;

/// Clocks of clients may be this much behind.
const BACKDATED: Duration = Duration::from_secs(300);

const DAY: Duration = Duration::from_secs(86_400);

/// The authority's files.
#[derive(Debug, Clone)]
pub struct Authority {
    dir: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Nobody has run `plimsoll ca init`.
    #[error("there is no certificate authority in {}: `plimsoll ca init --host NAME` makes one", dir.display())]
    Absent {
        /// Where it would be.
        dir: PathBuf,
    },
    /// It is there already.
    #[error(
        "{} is there already and is not overwritten: all certificates that were issued hang on it",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold what it should: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The request for a certificate is not one.
    #[error("not a certificate signing request in PEM form with a good signature: {0}")]
    Request(rcgen::Error),
    /// A name that the server is to have cannot be in a certificate.
    #[error("{host} is neither a host's name nor an address")]
    Host {
        /// As it was given.
        host: String,
    },
    /// The certificate cannot be made.
    #[error("the certificate cannot be made")]
    Sign(#[source] rcgen::Error),
    /// TLS cannot be set up with these files.
    #[error("TLS cannot be set up with the files in {}", dir.display())]
    Tls {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// SHA-256 of the whole, in hex.
    pub fingerprint: String,
    /// Unix milliseconds.
    pub expires_ms: i64,
    /// The names of a server.
    pub hosts: Vec<String>,
    /// The user of a client.
    pub user: Option<Named>,
}

/// Whom a client's certificate names, and by which row of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The certificate.
    pub serial: CertId,
    /// The user.
    pub user: UserId,
}

impl Authority {
    /// The authority in a server's data directory, there or not.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("tls"),
        }
    }

    fn cert_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// What Plimsoll shows an engine that it reaches over TLS, named as docker names them: `ca.pem`,
    /// `cert.pem`, `key.pem`. Of this authority unless somebody put others there.
    fn engine_dir(&self) -> PathBuf {
        self.dir.join("engine")
    }

    fn server_cert_path(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    fn server_key_path(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// Makes what is missing of the authority and of the server's certificate, which is for `hosts`,
    /// `localhost` and this machine's name. Whoever wants other names removes `server.pem` and
    /// `server.key` first.
    ///
    /// # Errors
    /// [`CaError::Exists`] when nothing is missing.
    pub fn init(&self, hosts: &[String], now_ms: i64) -> Result<(), CaError> {
        if self.server_cert_path().exists() {
            return Err(CaError::Exists {
                path: self.server_cert_path(),
            });
        }
        let names = server_names(hosts)?;
        let mut dir = std::fs::DirBuilder::new();
        dir.recursive(true).mode(0o700);
        dir.create(&self.dir)
            .map_err(|source| io_error(&self.dir, source))?;
        let until = OWN_DAYS * u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms.saturating_add_unsigned(until);
        if !self.cert_path().exists() {
            let serial = CertId(new_id());
            // A name of its own, so that what another authority signed is seen for that.
            let name = format!("Plimsoll CA {serial}");
            let mut params = params(&name, serial, now_ms, expires_ms);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let key = KeyPair::generate().map_err(CaError::Sign)?;
            let cert = params.self_signed(&key).map_err(CaError::Sign)?;
            write_new(&self.key_path(), &key.serialize_pem(), 0o600)?;
            write_new(&self.cert_path(), &cert.pem(), 0o644)?;
        }
        let engine = self.engine_dir();
        dir.create(&engine)
            .map_err(|source| io_error(&engine, source))?;
        if !engine.join("cert.pem").exists() {
            let mut params = params(SELF_NAME, CertId(new_id()), now_ms, expires_ms);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.sign_own(params, &engine.join("key.pem"), &engine.join("cert.pem"))?;
            write_new(&engine.join("ca.pem"), &self.pem()?, 0o644)?;
        }
        let mut params = params(SELF_NAME, CertId(new_id()), now_ms, expires_ms);
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign_own(params, &self.server_key_path(), &self.server_cert_path())
    }

    /// A new key and its certificate.
    fn sign_own(
        &self,
        mut params: CertificateParams,
        key_path: &Path,
        cert_path: &Path,
    ) -> Result<(), CaError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let cert = params
            .signed_by(&key, &self.issuer()?)
            .map_err(CaError::Sign)?;
        write_new(key_path, &key.serialize_pem(), 0o600)?;
        write_new(cert_path, &cert.pem(), 0o644)
    }

    /// What the authority's own certificate and the server's say.
    ///
    /// # Errors
    /// [`CaError::Absent`] and those of reading.
    pub fn show(&self) -> Result<(Said, Said), CaError> {
        let said = |path: PathBuf| {
            let der = self.read_cert(&path)?;
            said(&der).ok_or_else(|| malformed(&path, "it is not a certificate"))
        };
        Ok((said(self.cert_path())?, said(self.server_cert_path())?))
    }

    /// The authority's certificate in PEM form.
    ///
    /// # Errors
    /// [`CaError::Absent`] and those of reading.
    pub fn pem(&self) -> Result<String, CaError> {
        self.read(&self.cert_path())
    }

    /// Signs a certificate for the key that `request` (PEM) was made with. Of the request only the key is
    /// used: who the certificate names is decided here.
    ///
    /// # Errors
    /// [`CaError::Request`], [`CaError::Absent`].
    pub fn issue(
        &self,
        request: &str,
        user: &User,
        serial: CertId,
        now_ms: i64,
        expires_ms: i64,
    ) -> Result<String, CaError> {
        let asked = CertificateSigningRequestParams::from_pem(request).map_err(CaError::Request)?;
        let mut params = params(&user.name, serial, now_ms, expires_ms);
        let uri = format!("{USER_URI}{}", user.id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(CaError::Sign)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params
            .signed_by(&asked.public_key, &self.issuer()?)
            .map_err(CaError::Sign)?;
        Ok(cert.pem())
    }

    /// TLS 1.3 with the server's certificate, for clients with one of this authority's. Sessions are not
    /// resumed: each connection shows its certificate anew.
    ///
    /// # Errors
    /// [`CaError::Absent`] and those of reading.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CaError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots(&self.cert_path())?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| self.unusable(error))?;
        let cert = self.read_cert(&self.server_cert_path())?;
        let key = self.read_key(&self.server_key_path())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.unusable(error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert], key)
            .map_err(|error| self.unusable(error))?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// TLS 1.3 as a client of the engine.
    ///
    /// # Errors
    /// [`CaError::Absent`] and those of reading.
    pub fn engine_config(&self) -> Result<Arc<ClientConfig>, CaError> {
        let dir = self.engine_dir();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.unusable(error))?
            .with_root_certificates(self.roots(&dir.join("ca.pem"))?)
            .with_client_auth_cert(
                vec![self.read_cert(&dir.join("cert.pem"))?],
                self.read_key(&dir.join("key.pem"))?,
            )
            .map_err(|error| self.unusable(error))?;
        Ok(Arc::new(config))
    }

    fn unusable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CaError {
        CaError::Tls {
            dir: self.dir.clone(),
            source: source.into(),
        }
    }

    fn roots(&self, path: &Path) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.read_cert(path)?)
            .map_err(|error| self.unusable(error))?;
        Ok(roots)
    }

    fn read_key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, CaError> {
        PrivateKeyDer::from_pem_slice(self.read(path)?.as_bytes())
            .map_err(|error| malformed(path, &error))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CaError> {
        let (path, key_path) = (self.cert_path(), self.key_path());
        let key = KeyPair::from_pem(&self.read(&key_path)?)
            .map_err(|error| malformed(&key_path, &error))?;
        Issuer::from_ca_cert_pem(&self.pem()?, key).map_err(|error| malformed(&path, &error))
    }

    fn read_cert(&self, path: &Path) -> Result<CertificateDer<'static>, CaError> {
        CertificateDer::from_pem_slice(self.read(path)?.as_bytes())
            .map_err(|error| malformed(path, &error))
    }

    fn read(&self, path: &Path) -> Result<String, CaError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CaError::Absent {
                dir: self.dir.clone(),
            }),
            Err(source) => Err(io_error(path, source)),
        }
    }
}

/// A new key and the request for a certificate for it, both in PEM form: key, request.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn new_request(name: &str) -> Result<(String, String), CaError> {
    let key = KeyPair::generate().map_err(CaError::Sign)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key).map_err(CaError::Sign)?;
    Ok((key.serialize_pem(), request.pem().map_err(CaError::Sign)?))
}

/// What a certificate says; `None` for what is no certificate.
#[must_use]
pub fn said(der: &[u8]) -> Option<Said> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let hosts = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| ip.to_string()),
        _ => None,
    });
    let user = match names {
        [GeneralName::URI(uri)] => uri.strip_prefix(USER_URI).and_then(|id| id.parse().ok()),
        _ => None,
    };
    let serial = <[u8; 16]>::try_from(cert.raw_serial()).ok();
    let named = user.zip(serial).map(|(user, serial)| Named {
        user,
        serial: CertId(Uuid::from_bytes(serial)),
    });
    Some(Said {
        fingerprint: hex(&Sha256::digest(der)),
        expires_ms: cert.validity().not_after.timestamp().saturating_mul(1000),
        hosts: hosts.collect(),
        user: named,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn params(name: &str, serial: CertId, now_ms: i64, expires_ms: i64) -> CertificateParams {
    let at = |ms: i64| {
        let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(serial.0.as_bytes()));
    params.not_before = at(now_ms) - BACKDATED;
    params.not_after = at(expires_ms);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The names a server's certificate is for.
fn server_names(hosts: &[String]) -> Result<Vec<SanType>, CaError> {
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap_or_default();
    let mut names: Vec<SanType> = Vec::new();
    let always = [own, "localhost", "127.0.0.1", "::1"];
    for host in hosts.iter().map(String::as_str).chain(always) {
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => Some(SanType::IpAddress(ip)),
            Err(_) if is_host(host) => host.to_owned().try_into().ok().map(SanType::DnsName),
            // A machine may be called anything; what it is told to be called must be a name.
            Err(_) if host == own => continue,
            Err(_) => None,
        };
        let name = name.ok_or_else(|| CaError::Host {
            host: host.to_owned(),
        })?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Writes a file that must not be there yet. It is whole or absent: a crash leaves nothing half-written
/// under its name.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let partial = path.with_extension("new");
    let _ = std::fs::remove_file(&partial);
    let written = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&partial)?;
        // The umask must not have the last word on what others read.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&partial, path)?;
        std::fs::remove_file(&partial)
    };
    written().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CaError::Exists {
            path: path.to_owned(),
        },
        _ => io_error(path, source),
    })
}

fn io_error(path: &Path, source: io::Error) -> CaError {
    CaError::Io {
        path: path.to_owned(),
        source,
    }
}

fn malformed(path: &Path, why: &(impl ToString + ?Sized)) -> CaError {
    CaError::Malformed {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_store::Role;

    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn ada() -> User {
        User {
            id: UserId(Uuid::from_u128(7)),
            name: "ada".into(),
            email: None,
            mail: true,
            os_uid: None,
            port_slot: 0,
            role: Role::Member,
            default_team: None,
            suspended: false,
            draining: false,
            created_ms: 0,
        }
    }

    #[test]
    fn an_authority_is_made_once_and_shows_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::of(dir.path());
        assert!(matches!(authority.show(), Err(CaError::Absent { .. })));
        assert!(matches!(
            authority.init(&["no host".to_owned()], NOW_MS),
            Err(CaError::Host { .. })
        ));
        let hosts = ["gpu1.example".to_owned(), "192.0.2.7".to_owned()];
        authority.init(&hosts, NOW_MS).unwrap();
        let (ca, server) = authority.show().unwrap();
        assert_eq!(ca.expires_ms, NOW_MS + 3650 * 86_400_000);
        for host in ["gpu1.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
            assert!(server.hosts.iter().any(|h| h == host), "{host}: {server:?}");
        }
        assert_ne!(ca.fingerprint, server.fingerprint);
        for (file, mode) in [
            ("ca.key", 0o600),
            ("server.key", 0o600),
            ("engine/key.pem", 0o600),
            ("ca.pem", 0o644),
            ("server.pem", 0o644),
        ] {
            let path = dir.path().join("tls").join(file);
            let is = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(is, mode, "{file}");
        }
        authority.server_config().unwrap();
        authority.engine_config().unwrap();

        // Nothing is overwritten; a server's certificate that was removed is made anew.
        assert!(matches!(
            authority.init(&hosts, NOW_MS),
            Err(CaError::Exists { .. })
        ));
        for file in ["server.key", "server.pem"] {
            std::fs::remove_file(dir.path().join("tls").join(file)).unwrap();
        }
        authority.init(&[], NOW_MS).unwrap();
        let (again, new) = authority.show().unwrap();
        assert_eq!(again, ca);
        assert_ne!(new.fingerprint, server.fingerprint);
    }

    #[test]
    fn a_certificate_names_whom_the_server_says_and_not_whom_the_request_says() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::of(dir.path());
        authority.init(&[], NOW_MS).unwrap();
        let (_, request) = new_request("root").unwrap();
        let serial = CertId(new_id());
        let expires = NOW_MS + 86_400_000;
        let pem = authority.issue(&request, &ada(), serial, NOW_MS, expires);
        let der = CertificateDer::from_pem_slice(pem.unwrap().as_bytes()).unwrap();
        let said = said(&der).unwrap();
        let user = ada().id;
        assert_eq!(said.user, Some(Named { serial, user }));
        assert_eq!(said.expires_ms, expires);
        let (ca, _) = authority.show().unwrap();
        assert_eq!(ca.user, None);
        for wrong in [
            "",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            let refused = authority.issue(wrong, &ada(), serial, NOW_MS, expires);
            assert!(matches!(refused, Err(CaError::Request(_))), "{refused:?}");
        }
    }
}
