//! Components for the unit tests of technologies.

use std::sync::Arc;

use super::Work;
use crate::descriptor::{DescriptorKind, Limits, Strictness, parse};

#[path = "../../tests/support/identifiers.rs"]
mod identifiers;
pub(crate) use identifiers::identifiers;

pub(crate) const CASHFLOW: &str = include_str!("../../examples/cashflow.yaml");
pub(crate) const PORT: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port";
pub(crate) const STORAGE: &str = "urn:dmb:cmp:finance:cashflow:0:storage-component";
pub(crate) const WORKLOAD: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-calculation";

/// A component of a data product written as YAML, without an access list.
pub(crate) fn work(text: &str, component: &str) -> Work {
    let descriptor =
        parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default(), &|_| true).unwrap();
    let product = Arc::new(descriptor.product);
    let component = product.component(&component.parse().unwrap()).unwrap().clone();
    Work {
        environment: product.environment.clone().unwrap(),
        product,
        component: Arc::new(component),
        access: None,
    }
}
