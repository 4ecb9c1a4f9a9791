//! Generated from tasks.yaml, committed, compared by it/golden.rs and compiled here, as generated/ is in the product.

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
