//! Descriptors: YAML in, a typed data product or every problem out. Pure.
//!
//! [`parse`] is the only way in. It guarantees that
//! - whatever the bytes, it answers: it does not panic, and its cost is bounded by [`Limits`];
//! - all problems that can be told apart are in one answer, in document order, each with the dot path the author
//!   knows it by, line and column, the offending value and a remedy;
//! - a [`Descriptor`] in hand has identifiers that parse, are unique, and belong where they are.
//!
//! Most of a document is often not ours: the control plane sends whole data products, and the components of one are
//! provisioned by many adapters. The caller says of each [`Outline`] whether it is ours. What is ours is read strictly;
//! of anything else only its outline and its place in the order of `dependsOn` is known, whatever its shape, and it has no
//! problems. Of a component's descriptor, that component is ours, and what is ours of the components in it; what it names in
//! `dependsOn` is read beside it, for technologies that compare the two, and has no problems either.
//!
//! Real descriptors are untidy. Fields of the standard that Landfall does not use are passed over, what is empty is
//! absent, and a number where free text is expected keeps the text it was written as. What is *not* tolerated in what is
//! ours is anything ambiguous: a key that is there twice, a merge key, a tag, a version that YAML has already turned into
//! a float. A template's own `specific` is checked by the technology that reads it, with [`SpecificReader`].
//!
//! How much is asked depends on what it is for, see [`Strictness`]: what was good enough to provision must never
//! be too bad to unprovision.
//!
//! What this is not: it knows no technology, no target and no environment, and it makes no request.

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

/// `descriptorKind` of a request: what the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptorKind {
    /// `DATAPRODUCT_DESCRIPTOR`: the data product itself.
    DataProduct,
    /// `COMPONENT_DESCRIPTOR`: `dataProduct:` and `componentIdToProvision:`.
    Component,
    /// `DATAPRODUCT_DESCRIPTOR_WITH_RESULTS`: in the contract, and not used by the platform.
    DataProductWithResults,
}

/// How much is asked of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// To validate and provision: everything has to be there and make sense.
    Full,
    /// To update access and unprovision: enough to know which component is meant. Identifiers have to parse; what else
    /// is absent or wrong is left out of the model without a word, but for what is [unread](Component::unread). Components that are not ours are read, too, as far
    /// as that goes: they may have been ours.
    Short,
}

/// What a descriptor may cost. The defaults are generous for people and tight for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of the whole text.
    pub max_bytes: usize,
    /// Levels of lists and mappings, at most 255.
    pub max_depth: usize,
    /// Values, lists and mappings together; also how much aliases may expand to.
    pub max_nodes: usize,
    /// Uses of anchors.
    pub max_aliases: usize,
    /// Text of all values together.
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

/// A descriptor that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// The data product, with the components that were read.
    pub product: DataProduct,
    /// Which part of it the request is about.
    pub scope: Scope,
    /// Of a data product: the components that are not ours.
    pub others: Vec<Outline>,
    /// What comes before what.
    pub sequence: Sequence,
    document: Document,
}

/// Which part of a data product a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All components.
    DataProduct,
    /// This component, which the data product has.
    Component(Identifier),
}

/// A descriptor that is not to be worked on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Why: never empty, at most a hundred and one, in document order.
    pub problems: Vec<Problem>,
    /// What could be read all the same, to find what else is wrong. A component under whose path a problem was found
    /// is not as written.
    pub readable: Option<Box<Descriptor>>,
}

impl From<Vec<Problem>> for Rejected {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, readable: None }
    }
}

/// Reads a descriptor: all of it that is ours, or every problem found.
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

/// Reading recurses once a level, and its caller may run on any stack. One that is large enough is taken at the root, and
/// only there: growing where the stack happens to end could happen once a list element.
fn on_a_large_stack<T>(limits: &Limits, read: impl FnOnce() -> T) -> T {
    let stack = STACK_PER_LEVEL.saturating_mul(limits.max_depth.clamp(8, 255) + 8);
    stacker::maybe_grow(stack, stack, read)
}

/// More than twice what was measured a level: 40 KiB unoptimised, 6 KiB optimised.
const STACK_PER_LEVEL: usize = if cfg!(debug_assertions) { 96 << 10 } else { 24 << 10 };

impl Descriptor {
    /// The components the request is about that were read, in the order in which to provision them: every component
    /// after those it depends on; for the rest in the order written. A nested component follows the one it is in, unless
    /// that one depends on it. Reversed, this is the order to unprovision in.
    pub fn targets(&self) -> Vec<&Component> {
        match &self.scope {
            Scope::DataProduct => {
                let numbers = self.sequence.steps().iter().filter_map(|step| step.component);
                numbers.filter_map(|number| self.product.components.get(number)).collect()
            }
            Scope::Component(id) => self.product.component(id).into_iter().collect(),
        }
    }

    /// The same for two documents with the same content, whatever their layout: comments, white space, quotes, the order of
    /// keys, aliases, YAML or JSON. A number is as it is written: `1.0` is another content than `1`.
    pub fn digest(&self) -> [u8; 32] {
        self.document.digest()
    }

    /// Completes problems that were found in the model, by a technology for instance: line, column and value of
    /// what their paths name, and document order. No more than an answer lists are kept, and the others are counted. Paths are from the root: see [`Component::path`].
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
    /// Every component that was read, nested ones after the one they are in, in the order written.
    pub fn all_components(&self) -> impl Iterator<Item = &Component> {
        self.components.iter()
    }

    /// A component that was read, by its identifier.
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
