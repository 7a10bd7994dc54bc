//! What recorded use says about what is to come and what was odd.
//!
//! Pure functions of a [`Series`]. None of them tells a gap from nothing to see: a gap is no value, never
//! a zero, and what rests on little says so.

pub mod exhaustion;
pub mod forecast;
mod profile;
pub mod rightsize;
pub mod series;
pub mod spikes;
mod stats;

pub use series::{Series, SeriesError};
