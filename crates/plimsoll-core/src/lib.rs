//! What a quota is and how it is decided: units, entities, limits, claims and the one function that
//! admits or refuses.
//!
//! Everything here is pure. This crate knows no database, no HTTP, no Docker JSON, no file, no clock
//! and no randomness: time and ids are passed in.

pub mod units;
