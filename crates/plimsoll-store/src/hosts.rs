//! Hosts, and who writes what is charged on them.
//!
//! A host has one owning process. Taking a host over raises its epoch, and a store writes the
//! reservations of a host only while the epoch it took it over with is still the ledger's: every step
//! on a reservation goes through [`Store::step`] or [`Store::step_on`]. What a store can no longer
//! write is not lost: the new owner sees it in the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_core::entity::{EntityKind, ReservationId, SYSTEM_ID};
use plimsoll_core::quota::Capacity;
use rusqlite::params;

use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::{Host, HostLease, Reservation};
use crate::{Store, quotas, reservations, rows};

/// The epochs this store took hosts over with, by host.
#[derive(Default)]
pub(crate) struct Leases {
    epochs: Mutex<HashMap<String, u64>>,
}

impl Leases {
    fn note(&self, lease: &HostLease) {
        self.epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(lease.host.clone(), lease.epoch);
    }

    fn check(&self, books: &mut Books<'_>, host: &str) -> Result<()> {
        let now = books.host(host)?.epoch;
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if epochs.get(host) == Some(&now) {
            Ok(())
        } else {
            Err(StoreError::Fenced {
                host: host.to_owned(),
            })
        }
    }
}

impl Store {
    /// Takes over a host: its capacity is known from now on, and whoever had it before can no longer
    /// write its rows.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn claim_host(
        &self,
        name: String,
        capacity: Capacity,
        now_ms: i64,
    ) -> Result<HostLease> {
        let claim = self.write(move |books| {
            books.connection.execute(
                "INSERT INTO host (name, cpu, memory, epoch, claimed_at) VALUES (?1, ?2, ?3, 1, ?4)
                 ON CONFLICT (name) DO UPDATE
                 SET cpu = ?2, memory = ?3, epoch = epoch + 1, claimed_at = ?4",
                params![
                    name,
                    capacity.cpu.0.cast_signed(),
                    capacity.memory.0.cast_signed(),
                    now_ms
                ],
            )?;
            let host = rows::host(books.connection, &name)?;
            quotas::follow_entity(books, EntityKind::System, SYSTEM_ID, now_ms)?;
            Ok(HostLease {
                host: host.name,
                epoch: host.epoch,
            })
        });
        let lease = claim.await?;
        self.inner.leases.note(&lease);
        Ok(lease)
    }

    /// A host and what it has.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.read(|books| books.host(name))
    }

    /// A job on a reservation, run only while this store owns its host.
    pub(crate) fn step<T, F>(
        &self,
        id: ReservationId,
        job: F,
    ) -> impl FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static + use<T, F>
    where
        F: FnOnce(&mut Books<'_>, Reservation) -> Result<T> + Send + 'static,
    {
        let leases = Arc::clone(&self.inner.leases);
        move |books| {
            let r = reservations::find(books, id)?;
            leases.check(books, &r.host)?;
            job(books, r)
        }
    }

    /// A job that makes a reservation on `host`, run only while this store owns it.
    pub(crate) fn step_on<T, F>(
        &self,
        host: String,
        job: F,
    ) -> impl FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static + use<T, F>
    where
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let leases = Arc::clone(&self.inner.leases);
        move |books| {
            leases.check(books, &host)?;
            job(books)
        }
    }
}
