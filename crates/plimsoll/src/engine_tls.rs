//! The engine, where it is reached over TLS: Plimsoll shows a certificate of its own, by which an
//! authorization plugin knows it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::engine::{Connect, Connecting, Engine, Io, Patience};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::{Authority, CaError};
use crate::config::{Address, Config};

/// A client of the configured engine. Nothing is connected yet.
///
/// # Errors
/// [`CaError`] when there is no certificate to show.
pub fn engine(config: &Config) -> Result<Engine, CaError> {
    let engine = match Address::of(&config.engine) {
        Address::Unix(path) => Engine::new(path),
        Address::Tls(address) => Engine::over(Arc::new(OverTls::new(address, &config.data_dir)?)),
    };
    let answer = Duration::from_secs(config.engine_timeout_s);
    Ok(engine.within(Patience::of(answer)))
}

struct OverTls {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl OverTls {
    fn new(address: &str, data_dir: &Path) -> Result<Self, CaError> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| CaError::Host {
            host: host.to_owned(),
        })?;
        Ok(Self {
            address: address.to_owned(),
            name,
            connector: Authority::of(data_dir).engine_config()?.into(),
        })
    }
}

impl fmt::Debug for OverTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverTls")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Connect for OverTls {
    fn place(&self) -> String {
        format!("tcp://{}", self.address)
    }

    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let stream = self.connector.connect(self.name.clone(), stream).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}
