//! Landfall.

#[rustfmt::skip]
#[path = "../generated/mod.rs"]
pub mod generated;
