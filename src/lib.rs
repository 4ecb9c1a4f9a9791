//! Landfall, a Witboost Tech Adapter: a service that a data platform's control plane calls to validate, provision,
//! unprovision, import and control access to the components of a data product in a real technology.
//!
//! Data flows one way, and a crate or module knows only what stands below it:
//!
//! | crate or module | what it is for |
//! |---|---|
//! | [`Adapter`], [`cli`], [`server`] | wiring: arguments, configuration, start and drain |
//! | `http` | the contracts: converts, calls the service, converts; the only one that knows actix and [`generated`] |
//! | [`config`], [`registry`] | configuration, and which drivers there are |
//! | [`auth`] | who may call: names and secrets against hashes, at a bounded cost |
//! | [`landfall_operation`] | durable tasks: what was accepted gets done, once at a time, and its end is kept; where a component lands |
//! | `crates/technologies/*` | what turns a component into something real: check, plan, apply |
//! | [`landfall_adapter`] | what technologies are made of: descriptors, access lists, errors, the interface itself |
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
