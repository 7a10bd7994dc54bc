//! What a quota is and how it is decided: units, entities, limits, claims and the one function that
//! admits or refuses.
//!
//! Everything here is pure. This crate knows no database, no HTTP, no Docker JSON, no file, no clock
//! and no randomness: time and ids are passed in.

pub mod admit;
pub mod alert;
pub mod analysis;
pub mod budget;
pub mod dimension;
pub mod entity;
pub mod ladder;
pub mod metric;
pub mod notice;
pub mod quota;
pub mod remedy;
pub mod reservation;
pub mod share;
pub mod units;
pub mod violation;

pub use admit::{Level, LevelKind, Owner, Path, TeamPath, Verdict, Violation, admit};
pub use dimension::{Amounts, Dimension, Limit, Limits};
pub use metric::Metric;
pub use reservation::State;
