//! Generated from tasks.yaml and boxes.yaml, committed, compared by src/tests.rs and compiled here, as generated/ is in the product.

#![allow(
    clippy::all,
    clippy::allow_attributes,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "as generated/mod.rs"
)]

#[path = "../../support/json.rs"]
pub mod json;
#[path = "../../support/runtime.rs"]
pub mod runtime;
/// What both contracts have alike.
#[rustfmt::skip]
pub mod shared;
#[path = "../../support/transport.rs"]
pub mod transport;

/// Behind Basic authentication.
#[rustfmt::skip]
pub mod boxes;
/// The same contract with its paths moved.
#[rustfmt::skip]
pub mod moved;
#[rustfmt::skip]
pub mod tasks;
