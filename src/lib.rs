//! Landfall, a Witboost Tech Adapter.

pub mod access;
pub mod descriptor;
pub mod error;
#[rustfmt::skip]
#[path = "../generated/mod.rs"]
pub mod generated;
pub mod technology;
