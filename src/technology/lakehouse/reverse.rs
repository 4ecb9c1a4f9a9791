//! Reverse provisioning: a table of the catalog, ours or not, as updates of a descriptor. Reads only.
//!
//! `params` has `table` and, unless one table alone has that name, `namespace`. The answer's keys:
//!
//! | key | from |
//! |---|---|
//! | `spec.mesh.description` | `comment` |
//! | `spec.mesh.dataContract.schema` | columns, with descriptions, constraints, tags and declared types |
//! | `spec.mesh.dataContract.termsAndConditions`, `.endpoint`, `.SLA`, `spec.mesh.dataSharingAgreement` | properties, where set |
//! | `spec.mesh.tags` | `landfall.tags` |
//! | `spec.mesh.specific.format`, `.namespace`, `.table` | the table itself |

use std::collections::BTreeSet;

use iceberg::spec::NestedFieldRef;
use iceberg::{NamespaceIdent, TableIdent};
use serde_json::{Value, json};

use super::catalog::dotted;
use super::{Opened, properties, types};
use crate::descriptor::{Object, SpecificReader, names};
use crate::error::{Error, Result};
use crate::technology::{Context, ReverseRequest};

/// Names listed in an error at most.
const MAX_LISTED: usize = 10;

impl Opened {
    pub(super) async fn read_back(&self, request: &ReverseRequest, context: &Context) -> Result<Object> {
        let mut params = SpecificReader::at("params", &request.params);
        let namespace = params.string("namespace").map(str::to_owned);
        let table = params.required_string("table").map(str::to_owned);
        let problems = params.finish();
        let Some(table) = table.filter(|_| problems.is_empty()) else {
            return Err(Error::invalid(problems));
        };
        let ident = self.find_table(namespace.as_deref(), &table).await?;
        context.check_cancelled()?;
        let name = dotted(&ident);
        let Some(table) = self.catalog.load(&ident).await? else {
            return Err(Error::retryable(format!("table `{name}` is gone")));
        };
        let metadata = table.metadata();
        let properties = metadata.properties();
        let schema = properties::describe_columns(metadata.current_schema(), properties)?;
        context.journal.info(format!("read {} columns of table `{name}`", schema.len()));
        warn_of_names(metadata.current_schema().as_struct().fields(), context);
        let mut updates = Object::new();
        let mut update = |key: &str, value: Value| {
            updates.insert(format!("spec.mesh.{key}"), value);
        };
        let text = |key: &str| properties.get(key).map(|text| json!(text));
        if let Some(description) = text("comment") {
            update("description", description);
        }
        if let Some(tags) = properties.get("landfall.tags").and_then(|tags| serde_json::from_str(tags).ok()) {
            update("tags", tags);
        }
        update("dataContract.schema", Value::Array(schema));
        for (key, value) in [
            ("dataContract.termsAndConditions", text("landfall.terms-and-conditions")),
            ("dataContract.endpoint", text("landfall.endpoint")),
        ] {
            if let Some(value) = value {
                update(key, value);
            }
        }
        for (key, prefix) in [
            ("dataContract.SLA", "landfall.sla."),
            ("dataSharingAgreement", "landfall.data-sharing-agreement."),
        ] {
            let group = properties::group(properties, prefix);
            if !group.is_empty() {
                update(key, Value::Object(group));
            }
        }
        update("specific.format", json!("Iceberg"));
        update("specific.namespace", json!(ident.namespace().join(".")));
        update("specific.table", json!(ident.name()));
        Ok(updates)
    }

    async fn find_table(&self, namespace: Option<&str>, table: &str) -> Result<TableIdent> {
        let namespaces = match namespace {
            Some(name) => NamespaceIdent::from_strs(name.split('.')).into_iter().collect(),
            None => self.catalog.namespaces().await?,
        };
        let mut tables = Vec::new();
        for namespace in &namespaces {
            tables.extend(self.catalog.tables(namespace).await?);
        }
        let mut named: Vec<_> = tables.iter().filter(|ident| ident.name() == table).collect();
        named.sort_by_key(|ident| dotted(ident));
        match named.as_slice() {
            [ident] => Ok((*ident).clone()),
            [] => {
                let asked =
                    namespace.map_or_else(|| table.to_owned(), |namespace| format!("{namespace}.{table}"));
                Err(Error::permanent(format!(
                    "there is no table `{asked}` in the catalog of target `{}`: {}",
                    self.target,
                    self.what_exists(namespace, &tables).await?
                )))
            }
            several => Err(Error::permanent(format!(
                "{} tables are called `{table}`: say which one with `namespace`, one of {}",
                several.len(),
                listed(several.iter().map(|ident| ident.namespace().join(".")))
            ))),
        }
    }

    /// "the namespace has ...", "it has ...".
    async fn what_exists(&self, namespace: Option<&str>, tables: &[TableIdent]) -> Result<String> {
        if !tables.is_empty() {
            return Ok(format!("there are {}", listed(tables.iter().map(dotted))));
        }
        let namespaces = self.catalog.namespaces().await?;
        Ok(match (namespace, namespaces.as_slice()) {
            (_, []) => "it is empty".to_owned(),
            (Some(_), _) => {
                format!("there are the namespaces {}", listed(namespaces.iter().map(|name| name.join("."))))
            }
            (None, _) => "its namespaces are empty".to_owned(),
        })
    }
}

/// Columns whose names would be refused are imported all the same: what is there is what is told.
fn warn_of_names(fields: &[NestedFieldRef], context: &Context) {
    for field in fields {
        if let Some(warning) = names::warning("column", &field.name) {
            context.journal.warn(warning);
        }
        let inner: Vec<NestedFieldRef> =
            types::inner_fields(&field.field_type).into_iter().cloned().collect();
        warn_of_names(&inner, context);
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: BTreeSet<String> = names.collect();
    let shown: Vec<_> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(MAX_LISTED);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}
