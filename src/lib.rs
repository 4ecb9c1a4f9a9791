//! Landfall, a Witboost Tech Adapter: a service that a data platform's control plane calls to validate, provision,
//! unprovision, import and control access to the components of a data product in a real technology.
//!
//! Data flows one way, and a module knows only what stands below it:
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`], [`server`] | wiring: arguments, configuration, start and drain |
//! | `http` | the contracts: converts, calls the service, converts; the only one that knows actix and [`generated`] |
//! | [`operation`] | durable tasks: what was accepted gets done, once at a time, and its end is kept |
//! | [`topology`] | where a component lands: routes to groups, instances that operators change, targets |
//! | [`technology`] | what turns a component into something real: check, plan, apply |
//! | [`access`] | refs, where they are looked up, and the difference between who has access and who should |
//! | [`descriptor`] | YAML in, a typed data product or every problem out |
//! | [`auth`] | who may call: names and secrets against hashes, at a bounded cost |
//! | [`blocking`] | work on blocking threads, and when all of a run's has ended |
//! | [`config`], [`logging`], [`tls`], [`error`] | used everywhere, use nothing |
//!
//! [`generated`] is written by build.rs from the documents in spec/.

pub mod access;
pub mod auth;
pub mod blocking;
pub mod cli;
pub mod config;
pub mod descriptor;
pub mod error;
#[rustfmt::skip]
#[path = "../generated/mod.rs"]
pub mod generated;
mod http;
pub mod logging;
pub mod operation;
#[cfg(test)]
#[path = "../tests/support/postgres.rs"]
mod postgres_server;
pub mod server;
pub mod technology;
pub mod tls;
pub mod topology;
