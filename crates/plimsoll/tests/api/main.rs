//! The HTTP API over a real listener and a real ledger. Modules mirror the URLs.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the server: they may look at the clock and the environment"
)]

mod budgets;
mod certs;
mod connections;
mod events;
mod health;
mod history;
mod input;
mod notifications;
mod people;
mod quotas;
mod reservations;
mod roles;
mod schema;
mod shares;
mod site;
mod tokens;
mod validate;
