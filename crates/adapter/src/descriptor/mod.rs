//! Descriptors: YAML in, a typed data product or every problem out. Pure.
//!
//! [`parse`] is the only entry. It guarantees that
//! - it returns for any bytes: it does not panic, and [`Limits`] limit its cost;
//! - one result has all problems that can be distinguished, in document order, each with the author's dot path, line
//!   and column, the value and a remedy;
//! - a [`Descriptor`] has valid, unique identifiers in their right places.
//!
//! Most of a document often belongs to other adapters: the control plane sends whole data products, whose components
//! many adapters provision. The caller decides for each [`Outline`] whether it is *ours*, that is, Landfall's own.
//! Our components are read strictly. Of other components, only the outline and the position in the order of
//! `dependsOn` are read, whatever their shape, and they have no problems. In a component descriptor, the component
//! and our components in it are ours. The components in its `dependsOn` are also read, for technologies that compare
//! the two, without problems.
//!
//! Real descriptors are untidy. Fields of the standard that Landfall does not use are ignored, empty values count as
//! absent, and a number instead of a text keeps its spelling. In our components, ambiguous input is refused: a
//! duplicate key, a merge key, a tag, a version that YAML reads as a float. The technology checks its own `specific`
//! with [`SpecificReader`].
//!
//! [`Strictness`] decides how much is required: everything that could be provisioned can be unprovisioned.
//!
//! This module knows no technology, target or environment, and sends no request.

mod contract;
mod data_type;
mod document;
mod faults;
mod graph;
mod identifier;
mod index;
mod keys;
mod model;
pub mod names;
mod odcs;
mod problem;
mod problems;
mod read;
mod render;
mod rules;
mod sent;
mod shape;
mod specific;
mod subject;
#[cfg(test)]
mod tests;
mod type_names;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use data_type::{DataType, UnknownDataType};
pub use faults::Causes;
pub use graph::{Sequence, Step};
pub use identifier::{Identifier, InvalidIdentifier, Urn};
pub use model::*;
pub use problem::Problem;
pub use problems::{Suggestions, is_typo};
pub use render::{Written as WrittenContract, type_keys, write_contract, write_sla, write_tags};
pub use sent::{Sent, published};
pub use shape::{kind_of, of_component};
pub use specific::SpecificReader;
pub use subject::Subject;

use document::Document;
use problems::Problems;

/// `descriptorKind` of a request: the kind of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptorKind {
    /// `DATAPRODUCT_DESCRIPTOR`: the data product itself.
    DataProduct,
    /// `COMPONENT_DESCRIPTOR`: `dataProduct:` and `componentIdToProvision:`.
    Component,
    /// `DATAPRODUCT_DESCRIPTOR_WITH_RESULTS`: part of the contract, but not used by the platform.
    DataProductWithResults,
}

/// How much a descriptor must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// For validations and provisioning: everything must be present and valid.
    Full,
    /// For updates of access and unprovisioning: enough to identify the component. Identifiers must be valid. Other
    /// missing or wrong parts are left out of the model without a problem, except what is
    /// [unread](Component::unread). Other adapters' components are read, too, as far as possible, because they may
    /// have been ours.
    Short,
}

/// The limits of a descriptor. The defaults are generous for human authors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of the whole text.
    pub max_bytes: usize,
    /// Levels of lists and mappings, at most 255.
    pub max_depth: usize,
    /// Values, lists and mappings together, after the expansion of aliases.
    pub max_nodes: usize,
    /// Uses of anchors.
    pub max_aliases: usize,
    /// The text of all values together.
    pub max_scalar_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 20,
            max_depth: 64,
            max_nodes: 100_000,
            max_aliases: 1_000,
            max_scalar_bytes: 16 << 20,
        }
    }
}

/// A parsed descriptor.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// The data product, with the components that were read.
    pub product: DataProduct,
    /// The part of it that the request works on.
    pub scope: Scope,
    /// For a data product: the components of other adapters.
    pub others: Vec<Outline>,
    /// The order of all components.
    pub sequence: Sequence,
    document: Document,
}

/// The part of a data product that a request works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All components.
    DataProduct,
    /// This component of the data product.
    Component(Identifier),
}

/// A descriptor with problems.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The problems: at least one, at most a hundred and one, in document order.
    pub problems: Vec<Problem>,
    /// The parts that could be read, for finding further problems. A component with a problem below its path differs
    /// from the text.
    pub readable: Option<Box<Descriptor>>,
}

impl From<Vec<Problem>> for Rejected {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, readable: None }
    }
}

/// Parses a descriptor: returns all components that are ours, or every problem.
///
/// `text` is YAML or JSON in UTF-8, with or without a byte order mark.
pub fn parse(
    kind: DescriptorKind,
    text: impl AsRef<[u8]>,
    strictness: Strictness,
    limits: &Limits,
    ours: &dyn Fn(&Outline) -> bool,
) -> Result<Descriptor, Rejected> {
    let mut problems = Problems::new(strictness);
    if kind == DescriptorKind::DataProductWithResults {
        return Err(vec![
            Problem::new("", "this kind of descriptor is not in use")
                .value(kind)
                .remedy("send a `DATAPRODUCT_DESCRIPTOR` or a `COMPONENT_DESCRIPTOR`"),
        ]
        .into());
    }
    on_a_large_stack(limits, || {
        let document = Document::read(text.as_ref(), limits).map_err(|problem| vec![problem])?;
        let read = read::descriptor(kind, &document.root, ours, &mut problems);
        let descriptor = |document| {
            read.map(|read::Read { product, scope, sequence, others }| Descriptor {
                product,
                scope,
                others,
                sequence,
                document,
            })
        };
        match descriptor(document) {
            Some(descriptor) if problems.is_empty() => Ok(descriptor),
            read => Err(Rejected { problems: problems.into_list(), readable: read.map(Box::new) }),
        }
    })
}

/// Reading recurses once for each level, on the stack of any caller. A large enough stack is taken once at the root,
/// because taking one wherever the stack ends could happen for every list element.
fn on_a_large_stack<T>(limits: &Limits, read: impl FnOnce() -> T) -> T {
    let stack = STACK_PER_LEVEL.saturating_mul(limits.max_depth.clamp(8, 255) + 8);
    stacker::maybe_grow(stack, stack, read)
}

/// More than twice the measured size of a level: 40 KiB in a debug build, 6 KiB in a release build.
const STACK_PER_LEVEL: usize = if cfg!(debug_assertions) { 96 << 10 } else { 24 << 10 };

impl Descriptor {
    /// The components of the request that were read, in the order for provisioning: every component after its
    /// dependencies, and otherwise in document order. A nested component follows its parent, unless the parent
    /// depends on it. The reverse is the order for unprovisioning.
    pub fn targets(&self) -> Vec<&Component> {
        match &self.scope {
            Scope::DataProduct => {
                let numbers = self.sequence.steps().iter().filter_map(|step| step.component);
                numbers.filter_map(|number| self.product.components.get(number)).collect()
            }
            Scope::Component(id) => self.product.component(id).into_iter().collect(),
        }
    }

    /// Equal for two documents with the same content, whatever their layout: comments, white space, quotes, the order
    /// of keys, aliases, YAML or JSON. Numbers are compared as written: `1.0` differs from `1`.
    pub fn digest(&self) -> [u8; 32] {
        self.document.digest()
    }

    /// Completes problems that were found in the model, for example by a technology, with line, column and value of
    /// their paths, in document order. The number of problems is limited, and the others are counted. Paths start at
    /// the root: see [`Component::path`].
    #[must_use]
    pub fn locate(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let located = |problem: Problem| match problem.counted() {
            Some(_) => problem,
            None => self.document.locate(problem),
        };
        problems::in_order(problems.into_iter().map(located).collect(), 0)
    }
}

impl DataProduct {
    /// Every component that was read, in document order, nested ones after their parent.
    pub fn all_components(&self) -> impl Iterator<Item = &Component> {
        self.components.iter()
    }

    /// The component with that identifier, if it was read.
    pub fn component(&self, id: &Identifier) -> Option<&Component> {
        self.components.iter().find(|component| &component.id == id)
    }
}

impl DescriptorKind {
    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataProduct => "DATAPRODUCT_DESCRIPTOR",
            Self::Component => "COMPONENT_DESCRIPTOR",
            Self::DataProductWithResults => "DATAPRODUCT_DESCRIPTOR_WITH_RESULTS",
        }
    }
}

impl fmt::Display for DescriptorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DescriptorKind {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        [Self::DataProduct, Self::Component, Self::DataProductWithResults]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                Problem::new("descriptorKind", "unknown kind of descriptor")
                    .value(text)
                    .remedy("use `DATAPRODUCT_DESCRIPTOR` or `COMPONENT_DESCRIPTOR`")
            })
    }
}
