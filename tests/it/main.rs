//! The integration tests: one binary, a module a subject. Each test owns its server, store and warehouse.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "an unexpected value fails the test, and the panic shows the line"
)]

mod airbyte;
mod architecture;
mod attack;
mod auth;
mod bodies;
mod campaign;
mod contract;
mod crash;
mod field;
mod plugins;

mod cli;
mod conformance;
mod harness;
mod health;
mod hostile;
mod imports;
#[expect(dead_code, reason = "only the tests of the library use encryption")]
#[path = "../support/ldap.rs"]
mod ldap;
mod lifecycle;
mod losers;
#[path = "../support/postgres.rs"]
mod postgres;
mod postgres_fixture;
mod postgresql;
mod pressure;
mod privacy;
mod proxy;
mod readers;
mod spec;
mod stop;
mod topology;
mod transcripts;
mod upgrade;
