//! The contract of a table as table properties, in both directions.
//!
//! | property | what |
//! |---|---|
//! | `landfall.component`, `landfall.environment` | the ownership mark |
//! | `comment` | description of the output port |
//! | `landfall.name`, `landfall.version` | of the output port |
//! | `landfall.data-product`, `landfall.data-product.version`, `landfall.domain`, `landfall.owner`, `landfall.dev-group` | of its data product |
//! | `landfall.terms-and-conditions`, `landfall.endpoint`, `landfall.sla.KEY`, `landfall.data-sharing-agreement.KEY` | of the data contract |
//! | `landfall.tags`, `landfall.tags.COLUMN` | tags of the output port and of a column, a JSON list of `tagFQN`, `source`, `labelType` |
//! | `landfall.type.COLUMN` | the declared type, where Iceberg's does not say it |
//! | `landfall.constraint.COLUMN` | `UNIQUE`, which Iceberg does not have |
//! | `landfall.description.COLUMN` | a description that changed after the column was made; wins over the column's own |
//! | `landfall.access.refs`, `landfall.access.fields` | recorded access: a JSON list and a JSON object |
//!
//! COLUMN is Iceberg's path of the column (`address.city`). Empty values are left out. Landfall sets and removes
//! `comment` and the properties under `landfall.`, and leaves all others unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iceberg::spec::{NestedField, Schema};
use serde_json::{Value, json};

use super::types::{self, ICEBERG_TYPE, Wanted};
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::{Column, Object, Tag};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{AccessList, Owner, Work};

const PREFIX: &str = "landfall.";
const COMPONENT: &str = "landfall.component";
const ENVIRONMENT: &str = "landfall.environment";
const COMMENT: &str = "comment";
pub(super) const ACCESS_REFS: &str = "landfall.access.refs";
pub(super) const ACCESS_FIELDS: &str = "landfall.access.fields";

/// The owner of a table, if it has a mark.
pub(super) fn owner(properties: &HashMap<String, String>) -> Option<Owner> {
    Some(Owner {
        component: properties.get(COMPONENT)?.clone(),
        environment: properties.get(ENVIRONMENT)?.clone(),
    })
}

/// The properties of a contract, for a table with the schema `schema`.
pub(super) fn wanted(work: &Work, wanted: &Wanted, schema: &Schema) -> BTreeMap<String, String> {
    let mut properties = Properties::default();
    let (product, component) = (&work.product, &work.component);
    let owner = work.owner();
    properties.put(COMPONENT, &owner.component);
    properties.put(ENVIRONMENT, &owner.environment);
    properties.put(COMMENT, &component.description);
    properties.put("landfall.name", &component.name);
    properties.put_some("landfall.version", component.version.as_deref());
    properties.put("landfall.data-product", product.id.to_string());
    properties.put_some("landfall.data-product.version", product.version.as_deref());
    properties.put_some("landfall.domain", product.domain.as_deref());
    properties.put_some("landfall.owner", product.owner.as_deref());
    properties.put_some("landfall.dev-group", product.dev_group.as_deref());
    properties.put_tags("landfall.tags", &component.tags);
    if let Some(contract) = &component.data_contract {
        properties.put_some("landfall.terms-and-conditions", contract.terms_and_conditions.as_deref());
        properties.put_some("landfall.endpoint", contract.endpoint.as_deref());
        properties.put_all("landfall.sla.", &contract.sla);
        properties.put_all("landfall.data-sharing-agreement.", &contract.data_sharing_agreement);
    }
    for (path, declared) in &wanted.columns {
        let column = &declared.column;
        properties.put_tags(&format!("landfall.tags.{path}"), &column.tags);
        if let Some(data_type) = &declared.data_type {
            properties.put(&format!("landfall.type.{path}"), data_type.to_string());
        }
        if column.unique {
            properties.put(&format!("landfall.constraint.{path}"), "UNIQUE");
        }
        let said =
            wanted.schema.field_by_name(path).and_then(|field| field.doc.as_deref()).unwrap_or_default();
        if let Some(field) = schema.field_by_name(path)
            && field.doc.as_deref().unwrap_or_default() != said
        {
            // An empty value is intended: the description was removed.
            properties.0.insert(format!("landfall.description.{path}"), said.to_owned());
        }
    }
    properties.0
}

#[derive(Default)]
struct Properties(BTreeMap<String, String>);

impl Properties {
    fn put(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.trim().is_empty() {
            self.0.insert(key.to_owned(), value);
        }
    }

    fn put_some(&mut self, key: &str, value: Option<&str>) {
        self.put(key, value.unwrap_or_default());
    }

    fn put_all(&mut self, prefix: &str, values: &Object) {
        for (key, value) in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            self.put(&format!("{prefix}{key}"), text);
        }
    }

    fn put_tags(&mut self, key: &str, tags: &[Tag]) {
        if tags.is_empty() {
            return;
        }
        let tags: Vec<Value> = tags
            .iter()
            .map(|tag| {
                let mut object = Object::new();
                object.insert("tagFQN".to_owned(), json!(tag.fqn));
                for (key, value) in [("source", &tag.source), ("labelType", &tag.label_type)] {
                    if !value.is_empty() {
                        object.insert(key.to_owned(), json!(value));
                    }
                }
                Value::Object(object)
            })
            .collect();
        self.put(key, Value::Array(tags).to_string());
    }
}

/// Properties to set and to remove.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Difference {
    /// Properties that are missing or have another value.
    pub(super) set: BTreeMap<String, String>,
    /// Keys of properties that are no longer wanted.
    pub(super) remove: BTreeSet<String>,
}

impl Difference {
    /// Whether there is nothing to change.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The keys, for messages.
    pub(super) fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<_> = self.set.keys().chain(&self.remove).map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }
}

/// Compares properties, except recorded access and properties of others.
pub(super) fn difference(
    observed: &HashMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Difference {
    let ours =
        |key: &str| (key.starts_with(PREFIX) || key == COMMENT) && key != ACCESS_REFS && key != ACCESS_FIELDS;
    Difference {
        set: wanted
            .iter()
            .filter(|(key, value)| observed.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        remove: observed.keys().filter(|key| ours(key) && !wanted.contains_key(*key)).cloned().collect(),
    }
}

/// Returns the access list recorded on a table. Fails if the properties cannot be read.
pub(super) fn access(properties: &HashMap<String, String>) -> Result<AccessList> {
    let refs: Vec<Ref> = read(properties, ACCESS_REFS)?.unwrap_or_default();
    let fields: Object = read(properties, ACCESS_FIELDS)?.unwrap_or_default();
    Ok(AccessList { refs, fields })
}

fn read<T: serde::de::DeserializeOwned>(
    properties: &HashMap<String, String>,
    key: &str,
) -> Result<Option<T>> {
    properties
        .get(key)
        .map(|text| {
            serde_json::from_str(text).map_err(|e| {
                Error::conflict(format!(
                    "the table property `{key}` was changed by another program and cannot be read: set it to `[]` or `{{}}`, or remove it"
                ))
                .because(e)
            })
        })
        .transpose()
}

/// The text of [`ACCESS_REFS`].
pub(super) fn refs_text(refs: &BTreeSet<String>) -> String {
    json!(refs).to_string()
}

/// The columns of a table, from its schema and its properties.
pub(super) fn describe_columns(schema: &Schema, properties: &HashMap<String, String>) -> Result<Vec<Column>> {
    let keys: BTreeSet<i32> = schema.identifier_field_ids().collect();
    let decorate = |path: &str, field: &NestedField, column: &mut Column| {
        let json = |kind: &str| -> Option<Value> {
            serde_json::from_str(properties.get(&format!("landfall.{kind}.{path}"))?).ok()
        };
        if let Some(Value::Object(mut declared)) = json("type")
            && declared.shift_remove(ICEBERG_TYPE) == Some(json!(types::readable(&field.field_type)))
        {
            types::declared_type(column, &declared);
        }
        let description = properties.get(&format!("landfall.description.{path}")).or(field.doc.as_ref());
        column.description = description.cloned().unwrap_or_default();
        let is_map_key = path.ends_with(".key") && field.required && field.name == "key";
        column.required = field.required && !is_map_key;
        column.unique =
            properties.get(&format!("landfall.constraint.{path}")).is_some_and(|text| text == "UNIQUE");
        if keys.contains(&field.id) {
            // Identifier fields have no order.
            column.is_key(1);
        }
        column.tags = json("tags").map(|tags| self::tags(&tags)).unwrap_or_default();
    };
    schema.as_struct().fields().iter().map(|field| types::describe(field, &field.name, &decorate)).collect()
}

/// Tags as [`Properties::put_tags`] wrote them.
pub(super) fn tags(list: &Value) -> Vec<Tag> {
    let tag = |tag: &Value| {
        let text = |key: &str| tag.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fqn = text("tagFQN");
        (!fqn.is_empty()).then(|| Tag { fqn, source: text("source"), label_type: text("labelType") })
    };
    list.as_array().into_iter().flatten().filter_map(tag).collect()
}

/// Entries of a group of properties such as `landfall.sla.`, in order of their keys.
pub(super) fn group(properties: &HashMap<String, String>, prefix: &str) -> Object {
    let sorted: BTreeMap<_, _> = properties.iter().collect();
    sorted
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), json!(value))))
        .collect()
}
