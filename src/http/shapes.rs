//! What several contracts define alike, each as types of its own.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::generated::{airbyte, operator, tech_adapter};
use landfall_adapter::descriptor::DescriptorKind;

use super::refusal::{Fault, Refusal};

macro_rules! descriptor_kinds {
    ($($contract:ident),*) => {$(
        impl From<$contract::types::DescriptorKind> for DescriptorKind {
            fn from(kind: $contract::types::DescriptorKind) -> Self {
                use $contract::types::DescriptorKind as Kind;
                match kind {
                    Kind::DataproductDescriptor => Self::DataProduct,
                    Kind::ComponentDescriptor => Self::Component,
                    Kind::DataproductDescriptorWithResults => Self::DataProductWithResults,
                }
            }
        }
    )*};
}
descriptor_kinds!(tech_adapter, airbyte, operator);

/// The errors of the Tech Adapter contract, and of those that took them over.
macro_rules! detailed_errors {
    ($($contract:ident),*) => {$(
        impl From<Refusal> for $contract::types::RequestValidationError {
            fn from(refusal: Refusal) -> Self {
                let (problems, solutions) = problems_and_solutions(&refusal);
                Self {
                    errors: problems.clone(),
                    user_message: Some(refusal.user_message),
                    input: refusal.input,
                    input_error_field: refusal.input_error_field,
                    more_info: Some($contract::types::ErrorMoreInfo { problems, solutions }),
                }
            }
        }

        impl From<Fault> for $contract::types::SystemError {
            fn from(fault: Fault) -> Self {
                Self {
                    user_message: Some(format!("The operation could not be carried out: {}", fault.message)),
                    input: None,
                    input_error_field: None,
                    more_info: Some($contract::types::ErrorMoreInfo {
                        problems: vec![fault.message.clone()],
                        solutions: vec![fault.solution],
                    }),
                    error: fault.message,
                }
            }
        }
    )*};
}
detailed_errors!(tech_adapter, operator);

/// An error that is told before it is known which contract the request is of: it has what each of them asks for.
#[derive(Serialize)]
pub(super) struct AnyError {
    #[serde(flatten)]
    error: tech_adapter::types::SystemError,
    message: String,
}

impl From<Fault> for AnyError {
    fn from(fault: Fault) -> Self {
        Self { message: fault.on_one_line(), error: fault.into() }
    }
}

impl From<Refusal> for tech_adapter::types::ValidationError {
    fn from(refusal: Refusal) -> Self {
        let (problems, solutions) = problems_and_solutions(&refusal);
        Self {
            errors: problems.clone(),
            user_message: Some(refusal.user_message),
            input: refusal.input,
            input_error_field: refusal.input_error_field,
            more_info: Some(tech_adapter::types::ErrorMoreInfo { problems, solutions }),
        }
    }
}

macro_rules! verdicts {
    ($($contract:ident),*) => {$(
        impl From<Option<Refusal>> for $contract::types::ValidationResult {
            fn from(refusal: Option<Refusal>) -> Self {
                Self { valid: refusal.is_none(), error: refusal.map(Into::into) }
            }
        }
    )*};
}
verdicts!(tech_adapter, airbyte);

/// Every problem, and every remedy once.
fn problems_and_solutions(refusal: &Refusal) -> (Vec<String>, Vec<String>) {
    let mut seen = BTreeSet::new();
    let solutions = refusal.problems.iter().filter_map(|said| said.remedy.clone());
    (
        refusal.problems.iter().map(|said| said.text.clone()).collect(),
        solutions.filter(|remedy| seen.insert(remedy.clone())).collect(),
    )
}
