//! Quotas and usage monitoring for shared Docker hosts: one binary with the server, the gateway and
//! the command line.
//!
//! This crate wires the others together. It is the only one that reads the clock ([`clock`]), the
//! environment ([`config`]) and randomness.

#![forbid(unsafe_code)]

pub mod alerts;
pub mod api;
pub mod budget;
pub mod ca;
pub mod caps;
pub mod clamp;
pub mod cli;
pub mod clock;
pub mod config;
mod connections;
pub mod engine_facts;
pub mod engine_tls;
pub mod folders;
pub mod gateway;
pub mod http_client;
pub mod idle;
pub mod images;
pub mod install;
pub mod labels;
pub mod ladder;
pub mod limits;
pub mod live;
pub mod meter;
pub mod metering;
pub mod notify;
pub mod remote;
pub mod serve;
pub mod settle;
pub mod state;
pub mod tasks;
