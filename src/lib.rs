//! Landfall, a Witboost Tech Adapter: a service that a data platform's control plane calls to validate, provision,
//! unprovision, import and control access to the components of a data product in a real technology.
//!
//! Dependencies go one way: a crate or module knows only those below it in this table:
//!
//! | crate or module | content |
//! |---|---|
//! | [`Adapter`], [`cli`], [`server`] | wiring: arguments, configuration, start and drain |
//! | `http` | the contracts: converts, calls the service, converts; the only one that knows actix and [`generated`] |
//! | [`config`], [`registry`] | configuration, and the drivers of this program |
//! | [`auth`] | authentication: verifies names and secrets against hashes, at a bounded cost |
//! | [`landfall_operation`] | durable tasks: each accepted task runs, once at a time, and its outcome is stored; placement |
//! | `crates/technologies/*` | the technologies: check, plan and apply a component |
//! | [`landfall_adapter`] | the interface of technologies, with descriptors, access lists and errors |
//!
//! [`generated`] is written by build.rs from the documents in spec/.

mod adapter;
pub mod auth;
pub mod cli;
pub mod config;
#[rustfmt::skip]
#[path = "../generated/mod.rs"]
pub mod generated;
mod http;
pub mod logging;
pub mod registry;
pub mod server;

pub use adapter::{Adapter, Builder};
