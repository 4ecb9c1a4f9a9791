//! Conversions of the Tech Adapter contract's types, most of which other contracts share.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::generated::tech_adapter::types;
use landfall_adapter::descriptor::DescriptorKind;

use super::refusal::{Fault, Refusal};

impl From<types::DescriptorKind> for DescriptorKind {
    fn from(kind: types::DescriptorKind) -> Self {
        match kind {
            types::DescriptorKind::DataproductDescriptor => Self::DataProduct,
            types::DescriptorKind::ComponentDescriptor => Self::Component,
            types::DescriptorKind::DataproductDescriptorWithResults => Self::DataProductWithResults,
        }
    }
}

impl From<Refusal> for types::RequestValidationError {
    fn from(refusal: Refusal) -> Self {
        let (problems, solutions) = problems_and_solutions(&refusal);
        Self {
            errors: problems.clone(),
            user_message: Some(refusal.user_message),
            input: refusal.input,
            input_error_field: refusal.input_error_field,
            more_info: Some(types::ErrorMoreInfo { problems, solutions }),
        }
    }
}

impl From<Fault> for types::SystemError {
    fn from(fault: Fault) -> Self {
        Self {
            user_message: Some(format!("The operation could not be carried out: {}", fault.message)),
            input: None,
            input_error_field: None,
            more_info: Some(types::ErrorMoreInfo {
                problems: vec![fault.message.clone()],
                solutions: vec![fault.solution],
            }),
            error: fault.message,
        }
    }
}

/// An error before the contract of the request is known, with the fields of all contracts.
#[derive(Serialize)]
pub(super) struct AnyError {
    #[serde(flatten)]
    error: types::SystemError,
    message: String,
}

impl From<Fault> for AnyError {
    fn from(fault: Fault) -> Self {
        Self { message: fault.on_one_line(), error: fault.into() }
    }
}

impl From<Refusal> for types::ValidationError {
    fn from(refusal: Refusal) -> Self {
        let (problems, solutions) = problems_and_solutions(&refusal);
        Self {
            errors: problems.clone(),
            user_message: Some(refusal.user_message),
            input: refusal.input,
            input_error_field: refusal.input_error_field,
            more_info: Some(types::ErrorMoreInfo { problems, solutions }),
        }
    }
}

impl From<Option<Refusal>> for types::ValidationResult {
    fn from(refusal: Option<Refusal>) -> Self {
        Self { valid: refusal.is_none(), error: refusal.map(Into::into) }
    }
}

/// Returns the text of every problem, and every remedy once.
fn problems_and_solutions(refusal: &Refusal) -> (Vec<String>, Vec<String>) {
    let mut seen = BTreeSet::new();
    let solutions = refusal.problems.iter().filter_map(|said| said.remedy.clone());
    (
        refusal.problems.iter().map(|said| said.text.clone()).collect(),
        solutions.filter(|remedy| seen.insert(remedy.clone())).collect(),
    )
}
