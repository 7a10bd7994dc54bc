//! What the engine says about itself, asked when it first answers.

use plimsoll_host::cgroup::{DetectError, Driver, Hierarchy, UnknownDriver};
use plimsoll_host::engine::EngineError;

use crate::state::{App, EngineFacts};

/// The engine or its host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// It does not answer, or speaks no API version that Plimsoll knows.
    #[error("the container engine cannot be asked about itself")]
    Engine(#[from] EngineError),
    /// It places containers in a way Plimsoll does not know.
    #[error("the engine's cgroup driver is unknown")]
    Driver(#[from] UnknownDriver),
    /// Its cgroups are not where they should be.
    #[error("the host's cgroups cannot be used")]
    Cgroups(#[from] DetectError),
}

/// The engine's facts, asked once.
///
/// # Errors
/// When the engine does not answer or its cgroups cannot be found; the next call asks again.
pub async fn engine_facts(app: &App) -> Result<&EngineFacts, FactsError> {
    if let Some(facts) = app.engine_facts.get() {
        return Ok(facts);
    }
    let version = app.engine.negotiate().await?;
    let info = app.engine.info().await?;
    let driver: Driver = info.cgroup_driver.parse()?;
    let hierarchy = Hierarchy::detect(&app.config.cgroup_root, driver)?;
    // Of the drivers in use these bound a writable layer everywhere; overlay2 does so only on an XFS
    // with project quotas, which the engine does not report.
    let bounds_storage = matches!(info.driver.as_str(), "btrfs" | "zfs" | "devicemapper");
    let facts = EngineFacts {
        version,
        hierarchy,
        bounds_storage,
    };
    Ok(app.engine_facts.get_or_init(|| facts))
}
