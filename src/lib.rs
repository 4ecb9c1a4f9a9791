//! Landfall, a Witboost Tech Adapter.

pub mod access;
pub mod descriptor;
pub mod error;
pub mod operation;
pub mod technology;
