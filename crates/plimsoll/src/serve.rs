//! Starting a server, and ending it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll_core::quota::Capacity;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::capacity::{self, CapacityError};
use plimsoll_host::cgroup::{Instance, NotAnInstance};
use plimsoll_store::{Metrics, Store, StoreError};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::ca::{Authority, CaError};
use crate::clock::{Clock, new_id};
use crate::config::{Address, Config};
use crate::engine_tls;
use crate::limits::Limits;
use crate::live::Pictures;
use crate::meter::Meter;
use crate::metering::{self, Cadence, Collecting};
use crate::notify::{Outlet, SetupError};
use crate::state::{App, InFlight, KeyedLocks, SharedLocks, Wake};
use crate::tasks::{self, Shutdown, TaskBoard, collect, ended};

/// How long requests under way may take to end after the server was told to.
const DRAIN: Duration = Duration::from_secs(10);

/// Everybody may connect: who calls is known by their uid.
const OPEN: u32 = 0o666;
/// For the engine alone.
const ROOT_ONLY: u32 = 0o600;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The instance's name cannot be one.
    #[error("the instance cannot be named so")]
    Instance(#[from] NotAnInstance),
    /// The ledger cannot be used.
    #[error("the ledger cannot be opened")]
    Store(#[from] StoreError),
    /// The configuration names a class that the ledger does not have.
    #[error("there is no class {named}, which tenants.provision_class names: choose one of {}", known.join(", "))]
    Class {
        /// What the configuration says.
        named: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The host does not say what it has.
    #[error("the host's capacity cannot be read")]
    Capacity(#[from] CapacityError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("{address} is in use by another server: stop it, or choose another path")]
    InUse {
        /// The address.
        address: String,
    },
    /// The administrator's first token cannot be written.
    #[error("the administrator's token cannot be written to {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is a `tcp://` gateway or engine, and nothing to speak TLS with.
    #[error("TLS cannot be spoken")]
    Tls(#[from] CaError),
    /// A channel cannot work as configured.
    #[error("nobody could be told of anything")]
    Notify(#[from] SetupError),
    /// The process cannot be set up.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Builds what a server shares. The ledger is open and its host taken over afterwards.
///
/// # Errors
/// [`ServeError`].
pub async fn build(config: Config, clock: Clock) -> Result<Arc<App>, ServeError> {
    let instance: Instance = config.instance.parse()?;
    let store = Store::open(&config.data_dir, clock.now_ms())?;
    if let Some(class) = &config.tenants.provision_class {
        let known: Vec<String> = store.classes().await?.into_iter().map(|c| c.name).collect();
        if !known.contains(class) {
            let named = class.clone();
            return Err(ServeError::Class { named, known });
        }
    }
    let history = tasks::history::open(&config, clock.now_ms())?;
    let has = capacity::read(Path::new("/proc"), Path::new("/sys"))?;
    let capacity = Capacity {
        cpu: MilliCpu(u64::from(has.cpus) * 1000),
        memory: has.memory,
    };
    let lease = store
        .claim_host(config.host.clone(), capacity, clock.now_ms())
        .await?;
    Ok(Arc::new(App {
        limits: Limits::new(config.limits),
        certs_changed: watch::Sender::new(()),
        engine: engine_tls::engine(&config)?,
        config,
        clock,
        store,
        history: Arc::new(history),
        engine_facts: OnceLock::new(),
        lease,
        capacity,
        instance,
        run: new_id(),
        meter: Meter::default(),
        pictures: Pictures::default(),
        collecting: OnceLock::new(),
        cadence: Cadence::default(),
        looks: KeyedLocks::default(),
        tasks: TaskBoard::default(),
        wake: Wake::default(),
        container_locks: KeyedLocks::default(),
        standstill: SharedLocks::default(),
        attended: SharedLocks::default(),
        idlers: crate::idle::Idlers::default(),
        climbing: Mutex::default(),
        layers: crate::images::Layers::default(),
        walked: Mutex::default(),
        in_flight: InFlight::default(),
    }))
}

/// Serves until SIGTERM or SIGINT, then lets requests under way end.
///
/// # Errors
/// [`ServeError`] when it cannot start.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let app = build(config, Clock::default()).await?;
    match crate::api::ensure_admin_token(&app).await {
        Ok(Some(path)) => {
            tracing::info!(path = %path.display(), "the administrator's token is in this file");
        }
        Ok(None) => {}
        Err(source) => {
            let path = app.config.admin_token_path();
            return Err(ServeError::Token {
                path,
                source: source.into(),
            });
        }
    }
    let (stop, shutdown) = watch::channel(false);
    let mut running = start(&app, &shutdown).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending: no new requests, those under way may finish");
    let _ = stop.send(true);
    let drained = tokio::time::timeout(DRAIN, async {
        while running.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("some requests took too long and were cut off");
    }
    drop(running);
    // Containers that stood still for a copy go on.
    let _ = tokio::time::timeout(DRAIN, app.standstill.idle()).await;
    metering::end(&app);
    for socket in app.config.gateway_sockets() {
        let _ = std::fs::remove_file(socket);
    }
    let _ = std::fs::remove_file(&app.config.api_socket);
    if let Some(socket) = &app.config.authz.socket {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// Listens everywhere and starts every task.
///
/// # Errors
/// [`ServeError`] when an address cannot be listened on or the metrics cannot be opened.
pub async fn start(app: &Arc<App>, shutdown: &Shutdown) -> Result<JoinSet<()>, ServeError> {
    let listen = &app.config.listen;
    let tcp = listen_tcp(listen).await?;
    let api_socket = listen_unix(&app.config.api_socket, OPEN).await?;
    let authz = match &app.config.authz.socket {
        Some(path) => Some(listen_unix(path, ROOT_ONLY).await?),
        None => None,
    };
    let mut gateways = Vec::new();
    let mut over_tls = Vec::new();
    for address in &app.config.gateway {
        match Address::of(address) {
            Address::Unix(path) => gateways.push(listen_unix(path, OPEN).await?),
            Address::Tls(address) => over_tls.push(listen_tcp(address).await?),
        }
    }
    let tls = match over_tls.is_empty() {
        true => None,
        false => Some(Authority::of(&app.config.data_dir).server_config()?),
    };
    let collecting = Collecting::open(app, Metrics::open(&app.config.data_dir)?)?;
    let _ = app.collecting.set(Arc::new(Mutex::new(collecting)));

    let outlets = Outlet::all(&app.config)?;

    let mut running = JoinSet::new();
    let end = || ended(shutdown.clone());
    running.spawn(crate::api::serve_tcp(Arc::clone(app), tcp, end()));
    running.spawn(crate::api::serve_unix(Arc::clone(app), api_socket, end()));
    for listener in gateways {
        running.spawn(crate::gateway::serve(Arc::clone(app), listener, end()));
    }
    for (listener, tls) in over_tls.into_iter().zip(tls.iter().cycle()) {
        let (app, tls) = (Arc::clone(app), Arc::clone(tls));
        running.spawn(crate::gateway::serve_tls(app, listener, tls, end()));
    }
    if let Some(listener) = authz {
        running.spawn(crate::gateway::serve_authz(
            Arc::clone(app),
            listener,
            end(),
        ));
    }
    running.spawn(tasks::events::run(Arc::clone(app), shutdown.clone()));
    let seconds = Duration::from_secs_f64;
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::reconcile::NAME,
        seconds(app.config.reconcile.interval_s),
        |app| &app.wake.reconcile,
        shutdown.clone(),
        tasks::reconcile::run,
    ));
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::caps::NAME,
        seconds(app.config.reconcile.interval_s),
        |app| &app.wake.caps,
        shutdown.clone(),
        tasks::caps::run,
    ));
    running.spawn(tasks::drive_at(
        Arc::clone(app),
        collect::NAME,
        |app| {
            app.cadence
                .interval(app.clock.monotonic(), &app.config.metering)
        },
        |app| &app.wake.collect,
        shutdown.clone(),
        collect::run,
    ));
    let recording = tasks::history::SharedRecording::default();
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::history::NAME,
        tasks::history::EVERY,
        |app| &app.wake.history,
        shutdown.clone(),
        move |app| tasks::history::run(app, Arc::clone(&recording)),
    ));
    if let Some(sender) = tasks::remote::sender(app) {
        running.spawn(tasks::drive(
            Arc::clone(app),
            tasks::remote::NAME,
            seconds(app.config.metering.interval_s),
            |app| &app.wake.remote,
            shutdown.clone(),
            move |app| tasks::remote::run(app, Arc::clone(&sender)),
        ));
    }
    for outlet in outlets {
        let pausing = Arc::clone(&outlet);
        running.spawn(tasks::drive_at(
            Arc::clone(app),
            outlet.name(),
            move |app| pausing.pause(&app.config.notify),
            |app| &app.wake.deliver,
            shutdown.clone(),
            move |app| tasks::deliver::run(app, Arc::clone(&outlet)),
        ));
    }
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::alerts::NAME,
        seconds(app.config.alerts.interval_s),
        |app| &app.wake.alerts,
        shutdown.clone(),
        tasks::alerts::run,
    ));
    if let Some(firing) = tasks::alertmanager::firing(app) {
        running.spawn(tasks::drive(
            Arc::clone(app),
            tasks::alertmanager::NAME,
            seconds(app.config.notify.alertmanager_interval_s),
            |app| &app.wake.alertmanager,
            shutdown.clone(),
            move |app| tasks::alertmanager::run(app, Arc::clone(&firing)),
        ));
    }
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::storage::NAME,
        seconds(app.config.metering.storage_interval_s),
        |app| &app.wake.storage,
        shutdown.clone(),
        tasks::storage::run,
    ));
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::retain::NAME,
        tasks::retain::EVERY,
        |app| &app.wake.retain,
        shutdown.clone(),
        tasks::retain::run,
    ));
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::ladder::NAME,
        Duration::from_secs_f64(app.config.ladder.interval_s),
        |app| &app.wake.ladder,
        shutdown.clone(),
        tasks::ladder::run,
    ));
    running.spawn(tasks::drive(
        Arc::clone(app),
        tasks::turns::NAME,
        tasks::turns::EVERY,
        |app| &app.wake.turns,
        shutdown.clone(),
        tasks::turns::run,
    ));
    tracing::info!(listen, gateway = ?app.config.gateway, "serving");
    Ok(running)
}

async fn listen_tcp(address: &str) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Listen {
        address: address.to_owned(),
        source,
    })
}

/// Listens on a unix socket. One left behind by a server that is gone is replaced; one that answers is
/// not.
async fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, ServeError> {
    let address = path.display().to_string();
    let failed = |source| ServeError::Listen {
        address: address.clone(),
        source,
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServeError::InUse { address });
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}
