//! The whole host as it is metered.

use std::path::Path;
use std::time::Duration;

use plimsoll_host::load::{self, Load, Pressure, Resource};

use super::found::PROC;
use super::milliseconds;
use crate::meter::HostUse;

/// The host between two readings.
#[derive(Debug, Default)]
pub(super) struct Host {
    last: Option<(Duration, Load)>,
}

impl Host {
    /// The host now; `None` where the kernel does not say.
    pub(super) fn read(&mut self, now: Duration) -> Option<HostUse> {
        let read = load::read(Path::new(PROC));
        let read = read.inspect_err(|error| tracing::debug!(%error, "the host's load is not told"));
        let load = read.ok()?;
        let before = self.last.replace((now, load));
        let cpu_milli = before.and_then(|(at, before)| {
            let busy_ms = load.cpu_busy_ms.checked_sub(before.cpu_busy_ms)?;
            (busy_ms * 1000).checked_div(milliseconds(now.saturating_sub(at)))
        });
        Some(HostUse {
            cpu_milli,
            memory_bytes: load.memory_used.0,
            load_centi: load.load_centi,
            cpu_pressure: pressure(Resource::Cpu),
            memory_pressure: pressure(Resource::Memory),
            block_pressure: pressure(Resource::Io),
        })
    }
}

fn pressure(of: Resource) -> Option<Pressure> {
    load::pressure(Path::new(PROC), of).ok().flatten()
}
