//! Reverse provisioning: a table of the catalog as updates of a descriptor. Reads only.
//!
//! The parameters are `table` and `namespace`. Without `table`, the descriptor's component decides. Without
//! `namespace`, only one table may have the name.
//!
//! | what | from |
//! |---|---|
//! | description | `comment` |
//! | columns | the schema, with descriptions, constraints, tags and declared types |
//! | terms and conditions, endpoint, SLA, data sharing agreement | properties, where set |
//! | tags | `landfall.tags` |
//! | `specific.format`, `.namespace`, `.table` | the table itself |

use std::collections::BTreeSet;

use iceberg::spec::NestedFieldRef;
use iceberg::{NamespaceIdent, TableIdent};
use serde_json::json;

use super::catalog::dotted;
use super::{Opened, naming, properties, types};
use landfall_adapter::Context;
use landfall_adapter::descriptor::{Object, names};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::import::{Import, ImportParams, Imported, ImportedTable, Source};

/// The maximum number of names that an error lists.
const MAX_LISTED: usize = 10;

/// The requested table.
struct Asked {
    namespace: Option<String>,
    table: String,
}

impl Asked {
    /// Reads the parameters. `None` after problems, which are added to `params`.
    fn read(params: &mut ImportParams<'_>) -> Option<Self> {
        let namespace = params.text("namespace");
        let table = params.text("table");
        let import = params.import();
        let (subject, environment) = (import.subject(), &import.request().environment);
        let derived = subject.product.as_deref().zip(subject.component.as_deref());
        let (table, source) = match (table, derived) {
            (Some(table), _) => (table.value, table.source),
            (None, Some((product, component))) => {
                let table = naming::table(product, component);
                params.is_default("table", &table, Source::Descriptor, "the ids in the descriptor");
                (table, Source::Descriptor)
            }
            (None, None) => {
                params.missing("table");
                return None;
            }
        };
        // The table of the component is in the namespace of its data product; a table that the user names may be
        // anywhere.
        let namespace = match (namespace, derived) {
            (Some(namespace), _) => Some(namespace.value),
            (None, Some((product, _))) if source == Source::Descriptor => {
                let namespace = naming::namespace(product, environment);
                params.is_default("namespace", &namespace, Source::Descriptor, "the ids in the descriptor");
                Some(namespace)
            }
            (None, _) => None,
        };
        Some(Self { namespace, table })
    }
}

pub(super) fn check(params: &mut ImportParams<'_>) {
    Asked::read(params);
}

impl Opened {
    pub(super) async fn read_back(&self, import: &Import, context: &Context) -> Result<Imported> {
        let mut params = import.params();
        let asked = Asked::read(&mut params);
        let problems = params.finish().problems;
        let Some(asked) = asked.filter(|_| problems.is_empty()) else {
            return Err(Error::invalid(problems));
        };
        let ident = self.find_table(asked.namespace.as_deref(), &asked.table).await?;
        context.check_cancelled()?;
        let name = dotted(&ident);
        let Some(table) = self.catalog.load(&ident).await? else {
            return Err(Error::retryable(format!("table `{name}` is gone")));
        };
        let metadata = table.metadata();
        let properties = metadata.properties();
        let columns = properties::describe_columns(metadata.current_schema(), properties)?;
        context.journal.info(format!("read {} columns of table `{name}`", columns.len()));
        warn_of_names(metadata.current_schema().as_struct().fields(), context);
        let text = |key: &str| properties.get(key).cloned();
        let tags = text("landfall.tags").and_then(|tags| serde_json::from_str(&tags).ok());
        let table = ImportedTable {
            table: ident.name().to_owned(),
            columns,
            description: text("comment"),
            tags: tags.map(|tags| properties::tags(&tags)).unwrap_or_default(),
            terms_and_conditions: text("landfall.terms-and-conditions"),
            endpoint: text("landfall.endpoint"),
            sla: properties::group(properties, "landfall.sla."),
            data_sharing_agreement: properties::group(properties, "landfall.data-sharing-agreement."),
            specific: Object::from_iter([
                ("format".to_owned(), json!("Iceberg")),
                ("namespace".to_owned(), json!(ident.namespace().join("."))),
                ("table".to_owned(), json!(ident.name())),
            ]),
        };
        Ok(table.into())
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

/// Adds a warning for each column name that a descriptor would refuse. Such names are imported unchanged.
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
