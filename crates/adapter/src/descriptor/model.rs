//! The typed descriptor: Landfall's view of a data product.
//!
//! Only [`super::parse`] makes these values from input, so a `DataProduct` has valid identifiers, resolved
//! dependencies and valid data contracts. It has only the components that were read, and only the fields that
//! Landfall uses. The attributes are the rules for single fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use validator::Validate;

use super::type_names::{self, Named};
use super::{DataType, Identifier, Problem, rules};
use crate::Info;

/// A JSON or YAML mapping, in the order it was written.
pub type Object = Map<String, Value>;

/// A data product ("system") with the components that were read.
#[derive(Debug, Clone, PartialEq, Validate)]
pub struct DataProduct {
    /// `urn:dmb:dp:finance:cashflow:0`.
    pub id: Identifier,
    /// Human name.
    #[validate(length(min = 1, max = 255), custom(function = rules::one_line))]
    pub name: String,
    /// Free text, empty if absent.
    #[validate(length(max = 65_535))]
    pub description: String,
    /// `0.1.0`; its major version equals the one in the id. Absent only in the short form of updateacl.
    #[validate(custom(function = rules::version))]
    pub version: Option<String>,
    /// The Witboost environment, as written. Absent only in short forms.
    #[validate(length(min = 1, max = 255), custom(function = rules::one_line))]
    pub environment: Option<String>,
    /// Domain name, as written.
    #[validate(length(max = 255), custom(function = rules::one_line))]
    pub domain: Option<String>,
    /// `dataProductOwner` (or `projectOwner`): a ref such as `user:john.smith_example.com`.
    pub owner: Option<String>,
    /// `devGroup` (or `ownerGroup`): a ref, possibly without a prefix.
    pub dev_group: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// The fields of the template.
    pub specific: Object,
    /// The components that were read, in document order, nested ones after their parent. In a component descriptor,
    /// the dependencies that are ours and valid follow the component.
    pub components: Vec<Component>,
    /// The info that dependencies of the read components published in an earlier operation, whichever adapter
    /// provisioned them, if the control plane sent it: `info` of a component, or `latestEnrichedDescriptor`.
    pub published: BTreeMap<String, Info>,
}

/// The kind of a component. The standard has four; templates of a platform may have others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ComponentKind {
    /// `storage`
    Storage,
    /// `outputport`
    OutputPort,
    /// `workload`
    Workload,
    /// `observability`
    Observability,
    /// Any other, in lower case.
    Other(String),
    /// The document names no kind.
    Unspecified,
}

impl ComponentKind {
    /// The kinds of the standard.
    pub const STANDARD: [Self; 4] = [Self::Storage, Self::OutputPort, Self::Workload, Self::Observability];

    /// The name in the standard; empty if the document names no kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Storage => "storage",
            Self::OutputPort => "outputport",
            Self::Workload => "workload",
            Self::Observability => "observability",
            Self::Other(name) => name,
            Self::Unspecified => "",
        }
    }

    /// The kind with that name; upper and lower case are equal.
    pub fn of(name: &str) -> Self {
        let name = name.trim();
        match Self::STANDARD.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)) {
            Some(kind) => kind,
            None if name.is_empty() => Self::Unspecified,
            None => Self::Other(name.to_lowercase()),
        }
    }

    /// Whether it is a kind of the standard.
    pub fn is_standard(&self) -> bool {
        !matches!(self, Self::Other(_) | Self::Unspecified)
    }
}

/// The fields of a component that routes use, as written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Routing<'a> {
    /// `technology`
    pub technology: Option<&'a str>,
    /// `platform`
    pub platform: Option<&'a str>,
    /// `kind`
    pub kind: Option<&'a str>,
    /// `infrastructureTemplateId`
    pub infrastructure_template_id: Option<&'a str>,
    /// `useCaseTemplateId`
    pub use_case_template_id: Option<&'a str>,
    /// Keys that look like one of these fields, if that field is absent.
    pub misspelt: &'a [Misspelt],
}

/// A key that looks like an absent field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misspelt {
    /// The key as written: `technolgy`.
    pub key: String,
    /// The field: `technology`.
    pub field: &'static str,
    /// Its value.
    pub value: String,
}

/// The facts about a component that can be read whatever its shape: its identity, and the fields that routes use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// Its `id`, if it is a text.
    pub id: Option<String>,
    /// Its `name`, if it has one.
    pub name: Option<String>,
    /// Dot path in the document.
    pub path: String,
    /// `technology`
    pub technology: Option<String>,
    /// `platform`
    pub platform: Option<String>,
    /// `kind`
    pub kind: Option<String>,
    /// `infrastructureTemplateId`
    pub infrastructure_template_id: Option<String>,
    /// `useCaseTemplateId`
    pub use_case_template_id: Option<String>,
    /// Keys that look like one of the last five fields.
    pub misspelt: Vec<Misspelt>,
}

impl Outline {
    /// The fields that routes use.
    pub fn routing(&self) -> Routing<'_> {
        Routing {
            technology: self.technology.as_deref(),
            platform: self.platform.as_deref(),
            kind: self.kind.as_deref(),
            infrastructure_template_id: self.infrastructure_template_id.as_deref(),
            use_case_template_id: self.use_case_template_id.as_deref(),
            misspelt: &self.misspelt,
        }
    }

    /// A label for users: its id, or else its name, or else its path.
    pub fn label(&self) -> &str {
        self.id.as_deref().or(self.name.as_deref()).unwrap_or(&self.path)
    }
}

/// One component of a data product.
#[derive(Debug, Clone, PartialEq, Validate)]
pub struct Component {
    /// `urn:dmb:cmp:finance:cashflow:0:cashflow-output-port`.
    pub id: Identifier,
    /// The kind. The target decides which kinds it accepts.
    pub kind: ComponentKind,
    /// Human name.
    #[validate(length(min = 1, max = 255), custom(function = rules::one_line))]
    pub name: String,
    /// Free text, empty if absent.
    #[validate(length(max = 65_535))]
    pub description: String,
    /// `0.0.0`; by default the version of the data product. Absent only in short forms.
    #[validate(custom(function = rules::version))]
    pub version: Option<String>,
    /// `urn:dmb:itm:output-port-provisioner:1`; decides in Witboost which adapter is called.
    #[validate(length(max = 255), custom(function = rules::one_line))]
    pub infrastructure_template_id: Option<String>,
    /// `urn:dmb:utm:output-port-template:1.0.0`.
    #[validate(length(max = 255), custom(function = rules::one_line))]
    pub use_case_template_id: Option<String>,
    /// `AWS`.
    #[validate(length(max = 255), custom(function = rules::one_line))]
    pub platform: Option<String>,
    /// `S3`.
    #[validate(length(max = 255), custom(function = rules::one_line))]
    pub technology: Option<String>,
    /// Ids of components of the same document that must exist first, whichever adapter provisions them. Other ids are
    /// not kept.
    pub depends_on: Vec<Identifier>,
    /// The data contract of an output port.
    pub data_contract: Option<DataContract>,
    /// Example rows.
    pub sample_data: Option<SampleData>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// The fields of the template, which a technology reads.
    pub specific: Object,
    /// Keys that look like an absent field that routes use.
    pub misspelt: Vec<Misspelt>,
    /// In a short form: problems of the fields that decide where the component is. They matter only without a stored
    /// deployment.
    pub unread: Vec<Unread>,
    /// Problems of parts that only some technologies use.
    pub faults: Faults,
    /// The dot path of this component in its document, and the prefix of every problem in it.
    pub path: String,
}

/// A field of a component that could not be read, or is ambiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// `specific`
    pub field: &'static str,
    /// The problem, with its path from the root.
    pub problem: Problem,
}

impl Unread {
    /// Whether routes use the field.
    pub fn decides_the_place(&self) -> bool {
        ROUTING.contains(&self.field)
    }
}

/// The fields that routes use, besides the kind.
pub(super) const ROUTING: [&str; 4] =
    ["technology", "platform", "infrastructureTemplateId", "useCaseTemplateId"];

/// Problems of parts that only some technologies use: a bucket or a dashboard ignores its data contract. A technology
/// that uses such a part refuses the component with these problems. They have positions in the document, and paths
/// relative to the component.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// Of `dataContract`, which could not be read completely.
    pub contract: Vec<Problem>,
    /// Of `sampleData`.
    pub sample: Vec<Problem>,
}

impl Component {
    /// The fields that routes use.
    pub fn routing(&self) -> Routing<'_> {
        Routing {
            technology: self.technology.as_deref(),
            platform: self.platform.as_deref(),
            kind: Some(self.kind.name()).filter(|name| !name.is_empty()),
            infrastructure_template_id: self.infrastructure_template_id.as_deref(),
            use_case_template_id: self.use_case_template_id.as_deref(),
            misspelt: &self.misspelt,
        }
    }
}

/// The data contract of an output port.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataContract {
    /// Columns in order.
    pub schema: Vec<Column>,
    /// The shape of the contract.
    pub shape: ContractShape,
    /// The path of the columns, relative to the component: `dataContract.schema`.
    pub columns_path: String,
    /// Notes about parts of the contract that have no effect.
    pub notes: Vec<String>,
    /// Free text.
    pub terms_and_conditions: Option<String>,
    /// Address promised to consumers.
    pub endpoint: Option<String>,
    /// `SLA` entries as written (`intervalOfChange`, `timeliness`, `upTime`, ...).
    pub sla: Object,
    /// `dataSharingAgreement`, inside or beside the data contract.
    pub data_sharing_agreement: Object,
}

/// The shape of a data contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContractShape {
    /// A list of columns in the vocabulary of OpenMetadata.
    #[default]
    OpenMetadata,
    /// A contract of the Open Data Contract Standard, version 3.
    Odcs,
}

/// The paths of a column's parts, relative to the column, by the keys of OpenMetadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    elsewhere: Vec<(&'static str, Cow<'static, str>)>,
    /// The path of the whole column, if the type of another column describes it.
    all: Option<&'static str>,
}

impl Keys {
    /// The path of the value that OpenMetadata has under `key`.
    pub fn of<'a>(&'a self, key: &'a str) -> &'a str {
        let elsewhere = || self.elsewhere.iter().find(|(known, _)| *known == key);
        self.all.or_else(|| elsewhere().map(|(_, place)| place.as_ref())).unwrap_or(key)
    }

    /// Records that the document has this value under `key` itself.
    pub fn is_own(&mut self, key: &'static str) {
        self.put(key, key);
    }

    pub(super) fn put(&mut self, key: &'static str, place: impl Into<Cow<'static, str>>) {
        self.elsewhere.retain(|(known, _)| *known != key);
        let place = place.into();
        if place != key {
            self.elsewhere.push((key, place));
        }
    }

    /// Whether the type of another column describes the whole column.
    pub(super) fn all(&self) -> Option<&'static str> {
        self.all
    }
}

/// A column, in the vocabulary of OpenMetadata.
#[derive(Debug, Clone, PartialEq, Validate)]
pub struct Column {
    /// Name as written.
    #[validate(length(min = 1, max = 255), custom(function = rules::one_line))]
    pub name: String,
    /// Type.
    pub data_type: DataType,
    /// For CHAR, VARCHAR, BINARY, VARBINARY.
    pub data_length: Option<u32>,
    /// Total digits of a DECIMAL, NUMERIC or NUMBER.
    #[validate(range(min = 1, max = 38))]
    pub precision: Option<u32>,
    /// Digits after the point.
    #[validate(range(max = 38))]
    pub scale: Option<u32>,
    /// Element type of an ARRAY.
    pub array_data_type: Option<DataType>,
    /// Fields of a STRUCT, UNION, key and value of a MAP, or of the STRUCT elements of an ARRAY.
    pub children: Vec<Column>,
    /// `description`, empty when absent.
    #[validate(length(max = 65_535))]
    pub description: String,
    /// Whether every row has a value. A primary key column is required.
    pub required: bool,
    /// Whether all rows have different values.
    pub unique: bool,
    /// The position in the primary key, from 1. Equal positions keep the order of the columns.
    pub primary_key: Option<u32>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// `physicalName` of ODCS, if it differs from the name.
    pub physical_name: Option<String>,
    /// The dot path of this column in its document, or the path of the column whose type describes it.
    pub path: String,
    /// The paths of the column's parts in the document, relative to the column.
    pub keys: Keys,
}

impl Column {
    /// A column of that type, without a name or constraints.
    pub fn of(data_type: DataType) -> Self {
        Self {
            name: String::new(),
            data_type,
            data_length: None,
            precision: None,
            scale: None,
            array_data_type: None,
            children: Vec::new(),
            description: String::new(),
            required: false,
            unique: false,
            primary_key: None,
            tags: Vec::new(),
            physical_name: None,
            path: String::new(),
            keys: Keys::default(),
        }
    }

    /// A column with the type in a text, such as `varchar(20)` or `int64`, and a separate length; or the problem with
    /// the text, and its remedy.
    pub fn typed(text: &str, length: Option<u32>) -> Result<Self, (String, String)> {
        let mut column = Self::of(DataType::String);
        column.has_type(&named(text)?, "dataType", length);
        Ok(column)
    }

    /// Sets the elements of an ARRAY from the text of their type.
    pub fn typed_elements(&mut self, text: &str, length: Option<u32>) -> Result<(), (String, String)> {
        self.has_elements(&named(text)?, "arrayDataType", length);
        Ok(())
    }

    /// A column that could not be read, with its name and path. Its problem is known, and nothing is created from it.
    pub(super) fn unread(path: &str, name: &str) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), ..Self::of(DataType::String) }
    }

    /// Makes the column required, and part of the primary key at this position, from 1.
    pub fn is_key(&mut self, place: u32) {
        self.primary_key = Some(place);
        self.required = true;
    }

    /// `constraint` in OpenMetadata, which has one for each column: the strongest.
    pub fn constraint(&self) -> Option<&'static str> {
        match self {
            Self { primary_key: Some(_), .. } => Some("PRIMARY_KEY"),
            Self { required: true, .. } => Some("NOT_NULL"),
            Self { unique: true, .. } => Some("UNIQUE"),
            _ => None,
        }
    }

    /// Applies the text of a type under `key`. A separate length may exist.
    pub(super) fn has_type(&mut self, named: &Named, key: &'static str, length: Option<u32>) {
        self.data_type = named.type_with(length);
        self.has_measures(named, key);
        if named.required {
            self.required = true;
            self.keys.put("constraint", key);
        }
        if let Some(description) = named.description.as_ref().filter(|_| self.description.is_empty()) {
            self.description.clone_from(description);
        }
        match &named.element {
            Some(element) => self.has_elements(element, key, length),
            None => self.has_fields(named, key),
        }
    }

    /// Applies the text of a type to the elements of an ARRAY.
    pub(super) fn has_elements(&mut self, element: &Named, key: &'static str, length: Option<u32>) {
        self.array_data_type = Some(element.type_with(length));
        self.keys.put("arrayDataType", key);
        self.has_measures(element, key);
        match element.data_type {
            // One child describes the inner array.
            DataType::Array if element.element.is_some() => {
                self.children = vec![self.child("element", element, key)];
                self.keys.put("children", key);
            }
            _ => self.has_fields(element, key),
        }
    }

    fn has_measures(&mut self, named: &Named, key: &'static str) {
        for (measure, own, said) in [
            ("dataLength", &mut self.data_length, named.length),
            ("precision", &mut self.precision, named.precision),
            ("scale", &mut self.scale, named.scale),
        ] {
            *own = said;
            if said.is_some() {
                self.keys.put(measure, key);
            }
        }
    }

    fn has_fields(&mut self, named: &Named, key: &'static str) {
        self.children = named.fields.iter().map(|(name, field)| self.child(name, field, key)).collect();
        if !self.children.is_empty() {
            self.keys.put("children", key);
        }
    }

    fn child(&self, name: &str, named: &Named, key: &'static str) -> Self {
        let mut child = Self { name: name.to_owned(), path: self.path.clone(), ..Self::of(named.data_type) };
        child.has_type(named, key, None);
        child.keys = Keys { elsewhere: Vec::new(), all: Some(key) };
        child
    }
}

impl Named {
    /// The type with its own or a separate length. PostgreSQL's `bpchar` without a length has no limit.
    fn type_with(&self, length: Option<u32>) -> DataType {
        if self.unlimited && self.length.or(length).is_none() { DataType::Text } else { self.data_type }
    }
}

fn named(text: &str) -> Result<Named, (String, String)> {
    type_names::parse(text).map_err(|unknown| {
        (unknown.message().into_owned(), unknown.remedy(super::ContractShape::OpenMetadata))
    })
}

/// A tag: `tagFQN`, `source`, `labelType`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// `PII.Sensitive`.
    pub fqn: String,
    /// `Tag`, `Classification`, `Glossary`, or empty.
    pub source: String,
    /// `Manual`, `Derived`, ... or empty.
    pub label_type: String,
}

/// Example rows of an output port.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampleData {
    /// Column names.
    pub columns: Vec<String>,
    /// Cells in the order of `columns`.
    pub rows: Vec<Vec<Value>>,
}
