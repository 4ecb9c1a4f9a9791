//! Descriptors: YAML in, a typed data product or every problem out. Pure.

mod data_type;
mod model;
mod problem;

pub use data_type::{DataType, UnknownDataType};
pub use model::*;
pub use problem::Problem;

use std::fmt;

/// A URN such as `urn:dmb:cmp:finance:cashflow:0:cashflow-output-port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(String);

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
