//! The history: what goes in comes out at every step, whatever happens in between.

#![allow(clippy::disallowed_methods, reason = "tests are outside the server")]

mod crash;
mod disk;
mod reading;
mod world;
