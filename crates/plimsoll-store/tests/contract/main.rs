//! What every ledger must do, whatever database is behind it.

#[macro_use]
mod world;

mod alerts;
mod batches;
mod files;
mod images;
mod notices;
mod people;
mod quotas;
mod replacements;
mod reservations;
mod retention;
mod shares;
mod steps;
mod violations;
