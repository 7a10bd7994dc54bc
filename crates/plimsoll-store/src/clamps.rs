//! Containers held to less CPU than they were made with. The charge follows the engine, as ever; kept
//! here is what they get back.

use plimsoll_core::Dimension;
use plimsoll_core::entity::ReservationId;
use plimsoll_core::units::MilliCpu;
use rusqlite::params;
use serde_json::json;

use crate::Store;
use crate::audit::{self, Change};
use crate::error::Result;
use crate::records::{Actor, Clamp};

impl Store {
    /// Notes that a container is held to less CPU than it was made with, or with `None` that it no
    /// longer is, and writes it into the audit log. Does nothing twice. `now` is what it has
    /// afterwards.
    ///
    /// # Errors
    /// `NotFound`, or `Fenced` when this store no longer owns the host.
    pub async fn set_clamp(
        &self,
        id: ReservationId,
        clamp: Option<Clamp>,
        now: MilliCpu,
        actor: Actor,
    ) -> Result<()> {
        let step = self.step(id, move |books, r| {
            if r.clamp == clamp {
                return Ok(());
            }
            let column = |cpu: fn(Clamp) -> MilliCpu| clamp.map(|c| cpu(c).0.cast_signed());
            books
                .connection
                .prepare_cached(
                    "UPDATE reservation SET clamped_from = ?2, clamped_to = ?3 WHERE id = ?1",
                )?
                .execute(params![
                    id.to_string(),
                    column(|c| c.from),
                    column(|c| c.to)
                ])?;
            let state = |clamp: Option<Clamp>, has: MilliCpu| {
                let cores = |cpu: MilliCpu| Dimension::Cpu.to_human(cpu.0);
                json!({"cpuCores": cores(has), "clampedFromCpuCores": clamp.map(|c| cores(c.from))})
                    .to_string()
            };
            let had = match (r.clamp, clamp) {
                (Some(old), _) => old.to,
                (None, Some(new)) => new.from,
                (None, None) => now,
            };
            let name = r.container_name.or(r.container).unwrap_or_default();
            let change = Change {
                action: match clamp {
                    Some(_) => "container.clamp",
                    None => "container.unclamp",
                },
                kind: "container",
                entity: &format!("{}/{name}", r.user_name),
                before: Some(state(r.clamp, had)),
                after: Some(state(clamp, now)),
            };
            audit::record(books, &actor, &change)
        });
        self.charge(step).await
    }
}
