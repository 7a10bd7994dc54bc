//! To a person's address, through a mail server that takes mail for others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, message};
use plimsoll_store::Delivery;

use super::text::Texts;
use super::{Fault, SetupError, secret};
use crate::config::Notify;

/// The longest address that mail servers take.
const ADDRESS_LEN_MAX: usize = 254;

/// What is wrong with what [`is_address`] is false for.
pub const NOT_AN_ADDRESS: &str = "must be a mail address, like ada@example.org";

/// Whether mail can be addressed to it: `NAME@DOMAIN` alone.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.len() <= ADDRESS_LEN_MAX && text.parse::<Address>().is_ok()
}

/// How a connection becomes secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    /// From its first byte on.
    Tls,
    /// By a command, without which nothing is sent.
    StartTls,
    /// Not at all: a server on this host.
    None,
}

/// The mail server and what mail is sent as.
#[derive(Debug)]
pub struct Mail {
    host: String,
    port: u16,
    secrecy: Secrecy,
    user: Option<(String, PathBuf)>,
    ca_file: Option<PathBuf>,
    from: Address,
    admins: Option<Address>,
    hello: ClientId,
    timeout: Duration,
    texts: Texts,
}

impl Mail {
    /// The mail server that is configured.
    ///
    /// # Errors
    /// [`SetupError`] when the sender or the password is missing.
    pub fn of(config: &Notify) -> Result<Option<Self>, SetupError> {
        let Some((host, port)) = config.mail_server.as_deref().and_then(server) else {
            return Ok(None);
        };
        let needs = |key, needs| SetupError::Needs { key, needs };
        let from = config.mail_from.as_deref().and_then(|a| a.parse().ok());
        let from = from.ok_or(needs("notify.mail_server", "notify.mail_from"))?;
        let password = config.mail_password_file.clone();
        let user = match config.mail_user.clone() {
            Some(user) => Some((
                user,
                password.ok_or(needs("notify.mail_user", "notify.mail_password_file"))?,
            )),
            None => None,
        };
        let mail = Self {
            host: host.to_owned(),
            port,
            secrecy: match config.mail_tls.as_str() {
                "tls" => Secrecy::Tls,
                "none" => Secrecy::None,
                _ => Secrecy::StartTls,
            },
            user,
            ca_file: config.ca_file.clone(),
            from,
            admins: config.mail_admins.as_deref().and_then(|a| a.parse().ok()),
            hello: hello(&rustix::system::uname().nodename().to_string_lossy()),
            timeout: config.timeout(),
            texts: config.texts(),
        };
        mail.credentials().map(|_| Some(mail))
    }

    /// Whether administrators share an address.
    #[must_use]
    pub const fn has_admins(&self) -> bool {
        self.admins.is_some()
    }

    fn credentials(&self) -> Result<Option<Credentials>, SetupError> {
        let Some((user, file)) = &self.user else {
            return Ok(None);
        };
        let read = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let password = secret("notify.mail_password_file", file, read)?;
        Ok(Some(Credentials::new(user.clone(), password)))
    }

    fn tls(&self) -> Result<TlsParameters, String> {
        let mut tls = TlsParameters::builder(self.host.clone());
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file).map_err(|e| format!("notify.ca_file: {e}"))?;
            let cert = Certificate::from_pem(&pem).map_err(|e| e.to_string())?;
            tls = tls.add_root_certificate(cert);
        }
        tls.build_rustls().map_err(|e| e.to_string())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let said = |error: Error| error.to_string();
        let wrapped = match self.secrecy {
            Secrecy::Tls => Some(self.tls()?),
            Secrecy::StartTls | Secrecy::None => None,
        };
        let server = (self.host.as_str(), self.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, wrapped, None);
        let mut connection = connecting.await.map_err(said)?;
        if self.secrecy == Secrecy::StartTls {
            let upgraded = connection.starttls(self.tls()?, &self.hello).await;
            upgraded.map_err(said)?;
        }
        if let Some(credentials) = self.credentials().map_err(|e| e.to_string())? {
            let known = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            known.map_err(said)?;
        }
        Ok(connection)
    }

    /// The whole message; the same for each try.
    fn written(&self, delivery: &Delivery, to: Address) -> Result<Message, String> {
        let text = self.texts.message(&delivery.event);
        let at_ms = u64::try_from(delivery.at_ms).unwrap_or(0);
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .from(Mailbox::new(Some("Plimsoll".to_owned()), self.from.clone()))
            .to(Mailbox::new(None, to))
            .subject(text.subject)
            .date(UNIX_EPOCH + Duration::from_millis(at_ms))
            .message_id(Some(format!("<{}@{}>", delivery.id, self.from.domain())))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(message::Body::new(text.body))
            .map_err(|error| error.to_string())
    }

    fn address(&self, delivery: &Delivery) -> Result<Address, Fault> {
        let hopeless = |why: &str| Fault::Hopeless(why.to_owned());
        match (&delivery.user_name, &delivery.address) {
            (None, _) => self
                .admins
                .clone()
                .ok_or_else(|| hopeless("administrators have no address any more")),
            (Some(_), None) => Err(hopeless("they want no mail any more, or have no address")),
            (Some(_), Some(text)) => text
                .parse()
                .map_err(|_| hopeless("their address is none that mail can be sent to")),
        }
    }
}

/// A connection that is kept from one message to the next.
pub(super) struct Line {
    mail: Arc<Mail>,
    connection: Option<AsyncSmtpConnection>,
}

impl Line {
    /// A line; it connects with its first message.
    pub(super) const fn new(mail: Arc<Mail>) -> Self {
        Self {
            mail,
            connection: None,
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) async fn send(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        let to = self.mail.address(delivery)?;
        let message = self.mail.written(delivery, to).map_err(Fault::Hopeless)?;
        let timeout = self.mail.timeout;
        let sent = tokio::time::timeout(timeout, self.hand_over(&message)).await;
        sent.unwrap_or_else(|_| {
            self.connection = None;
            Err(Fault::Away(format!("no answer within {timeout:?}")))
        })
    }

    async fn hand_over(&mut self, message: &Message) -> Result<(), Fault> {
        loop {
            // Not kept should it fail, or be given up in the middle.
            let (mut connection, is_new) = match self.connection.take() {
                Some(kept) => (kept, false),
                None => (self.mail.connect().await.map_err(Fault::Away)?, true),
            };
            match connection
                .send(message.envelope(), &message.formatted())
                .await
            {
                Ok(_) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => match fault(&error) {
                    // Servers end what has lasted long enough.
                    Fault::Away(_) if !is_new => {}
                    fault => return Err(fault),
                },
            }
        }
    }

    /// Takes leave.
    pub(super) async fn end(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _ = tokio::time::timeout(self.mail.timeout, connection.quit()).await;
        }
    }
}

/// What says that there is no such mailbox, and nothing else (RFC 3463, 3.2 and 3.3).
const NO_MAILBOX: [&str; 5] = ["5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];

/// What an answer means (RFC 5321, 4.2.3; RFC 3463). A sender that is refused, a rule, a wrong name in
/// the configuration may all be put right.
fn fault(error: &Error) -> Fault {
    let said = error.to_string();
    let code = said
        .split_once("): ")
        .and_then(|(_, text)| text.split_whitespace().next());
    match error.status().map(u16::from) {
        Some(500..) if code.is_some_and(|code| NO_MAILBOX.contains(&code)) => Fault::Hopeless(said),
        Some(421) => Fault::Away(said),
        Some(_) => Fault::Refused(said),
        None if error.is_client() => Fault::Refused(said),
        None => Fault::Away(said),
    }
}

/// `HOST:PORT` taken apart.
#[must_use]
pub fn server(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

/// This host by its name, if it is one that servers take.
fn hello(name: &str) -> ClientId {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !name.is_empty() && name.chars().all(fits) {
        ClientId::Domain(name.to_owned())
    } else {
        ClientId::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_mail_goes_to() {
        let long = format!("{}@example.org", "a".repeat(250));
        for (text, good) in [
            ("ada@example.org", true),
            ("ada+quota@mail.example.org", true),
            ("root@localhost", true),
            ("ada", false),
            ("ada@", false),
            ("@example.org", false),
            ("ada@example.org, ben@example.org", false),
            ("Ada <ada@example.org>", false),
            ("ada @example.org", false),
            ("ada@exa mple.org", false),
            (long.as_str(), false),
            ("", false),
        ] {
            assert_eq!(is_address(text), good, "{text}");
        }
    }
}
