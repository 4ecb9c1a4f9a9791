//! From the schema of a table to the schema of its contract. Pure.
//!
//! Evolution is limited to what Iceberg can do without touching data *and* iceberg 0.10 offers on a table in a
//! catalog: adding optional columns and dropping columns, at any depth. No public interface of it can change an
//! existing column (type, required or optional, name, position, key, comment). So:
//!
//! - another type is refused, even if Iceberg's rules would allow the promotion;
//! - a column that becomes required is refused, because rows may lack it, and so is one that becomes optional,
//!   because the table would still refuse nulls;
//! - a new required column is refused, because existing rows have no value for it;
//! - a renamed column counts as one dropped and one added column, and a note says that values are not moved;
//! - a column that is left out is dropped only with `allowDropColumns`, as in every technology;
//! - the order of columns is not compared, and new columns go last;
//! - a changed comment is stored in a table property (see `properties`).
//!
//! All refusals are found here, before the first change.

use std::collections::BTreeMap;

use iceberg::spec::{NestedField, NestedFieldRef, Schema, TableMetadata, Type};

use super::types::{self, Wanted};
use landfall_adapter::descriptor::Problem;

/// The changes of the schema.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Evolution {
    /// Iceberg paths of columns to add, in order.
    pub(super) add: Vec<String>,
    /// Iceberg paths of columns to drop.
    pub(super) drop: Vec<String>,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// Compares the schemas. `may_drop` is `specific.allowDropColumns`.
pub(super) fn evolve(observed: &Schema, wanted: &Wanted, may_drop: bool) -> Result<Evolution, Vec<Problem>> {
    let mut comparison =
        Comparison { observed, wanted, may_drop, evolution: Evolution::default(), problems: Vec::new() };
    comparison.fields(
        &observed.as_struct().fields().iter().collect::<Vec<_>>(),
        &wanted.schema.as_struct().fields().iter().collect::<Vec<_>>(),
        "",
        "dataContract.schema",
    );
    comparison.keys();
    if comparison.problems.is_empty() { Ok(comparison.evolution) } else { Err(comparison.problems) }
}

/// The problems of dropping columns that another program uses for partitions or a sort order: Iceberg refuses to drop
/// these.
pub(super) fn in_use(metadata: &TableMetadata, drop: &[String]) -> Vec<Problem> {
    let schema = metadata.current_schema();
    let partitions =
        metadata.default_partition_spec().fields().iter().map(|field| (field.source_id, "partitions"));
    let order = metadata.default_sort_order().fields.iter().map(|field| (field.source_id, "sort order"));
    partitions
        .chain(order)
        .filter_map(|(id, use_)| Some((schema.name_by_field_id(id)?, use_)))
        .filter(|(source, _)| {
            drop.iter().any(|path| source.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        })
        .map(|(source, use_)| {
            Problem::new(
                "dataContract.schema",
                format!("column `{source}` is in the {use_} that another program gave the table, and cannot be dropped"),
            )
            .value(source)
            .remedy(format!("keep the column, or take it out of the table's {use_} first"))
        })
        .collect()
}

struct Comparison<'a> {
    observed: &'a Schema,
    wanted: &'a Wanted,
    may_drop: bool,
    evolution: Evolution,
    problems: Vec<Problem>,
}

impl Comparison<'_> {
    /// Returns the path in the descriptor of `key` for the wanted field at the Iceberg path `path`. The column
    /// of an ARRAY describes its elements.
    fn place(&self, path: &str, key: &str) -> String {
        match (self.wanted.columns.get(path), path.rsplit_once('.')) {
            (Some(declared), _) => format!("{}.{key}", declared.path),
            (None, Some((array, _))) => {
                self.place(array, if key == "dataType" { "arrayDataType" } else { key })
            }
            (None, None) => format!("dataContract.schema.{key}"),
        }
    }

    fn fields(
        &mut self,
        observed: &[&NestedFieldRef],
        wanted: &[&NestedFieldRef],
        parent: &str,
        parent_place: &str,
    ) {
        let path = |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        let have: BTreeMap<&str, &NestedField> =
            observed.iter().map(|field| (field.name.as_str(), &***field)).collect();
        let mut added = Vec::new();
        for field in wanted {
            let path = path(&field.name);
            match have.get(field.name.as_str()) {
                Some(old) => self.field(old, field, &path),
                None => {
                    if let Some(old) = have.keys().find(|old| old.to_lowercase() == field.name.to_lowercase())
                    {
                        self.problems.push(
                            Problem::new(
                                self.place(&path, "name"),
                                format!("the table has this column as `{old}`; a column cannot be renamed"),
                            )
                            .value(&field.name)
                            .remedy(format!("keep the name `{old}`")),
                        );
                    } else if field.required {
                        self.problems.push(
                            Problem::new(
                                self.place(&path, "constraint"),
                                format!(
                                    "column `{path}` is new and required, but the rows already in the table have no value for it"
                                ),
                            )
                            .remedy("add it without a constraint, or publish a new major version of the data product"),
                        );
                    } else {
                        added.push(field.name.as_str());
                        self.evolution.add.push(path);
                    }
                }
            }
        }
        let gone: Vec<&str> = have
            .keys()
            .copied()
            .filter(|name| !wanted.iter().any(|field| field.name.to_lowercase() == name.to_lowercase()))
            .collect();
        for name in &gone {
            let path = path(name);
            if have
                .get(name)
                .is_some_and(|field| self.observed.identifier_field_ids().any(|id| id == field.id))
            {
                self.problems.push(
                    Problem::new(
                        parent_place,
                        format!("column `{path}` is a primary key of the table and cannot be dropped"),
                    )
                    .value(name)
                    .remedy("keep the column, or publish a new major version of the data product"),
                );
            } else if self.may_drop {
                self.evolution.drop.push(path);
            } else {
                self.problems.push(
                    Problem::new(
                        parent_place,
                        format!(
                            "column `{path}` of the table is missing: dropping it would take its values from readers, and \
                             `allowDropColumns` is not true"
                        ),
                    )
                    .value(name)
                    .remedy(
                        "keep the column, write `allowDropColumns: true`, or publish a new major version of the data product",
                    ),
                );
            }
        }
        if !gone.is_empty() && !added.is_empty() {
            let list = |names: &[&str]| {
                names.iter().map(|name| format!("`{}`", path(name))).collect::<Vec<_>>().join(", ")
            };
            self.evolution.notes.push(format!(
                "{} dropped and {} added: if one is the new name of the other, its values do not move",
                list(&gone),
                list(&added)
            ));
        }
    }

    fn field(&mut self, observed: &NestedField, wanted: &NestedField, path: &str) {
        let same_shape = match (observed.field_type.as_ref(), wanted.field_type.as_ref()) {
            (Type::Primitive(old), Type::Primitive(new)) => old == new,
            (Type::Struct(_), Type::Struct(_)) => true,
            (Type::List(_), Type::List(_)) => true,
            // If the struct of a key gets a field, other keys become equal.
            (Type::Map(old), Type::Map(new)) => {
                types::readable(&old.key_field.field_type) == types::readable(&new.key_field.field_type)
            }
            _ => false,
        };
        if !same_shape {
            let (old, new) = (types::readable(&observed.field_type), types::readable(&wanted.field_type));
            self.problems.push(
                Problem::new(
                    self.place(path, "dataType"),
                    format!("column `{path}` cannot change from {old} to {new}; the type of a column is fixed"),
                )
                .value(new)
                .remedy(format!(
                    "keep a type that is {old} in Iceberg, add a column under another name, or publish a new major version of the data product"
                )),
            );
            return;
        }
        if observed.required != wanted.required {
            let (now, then, why) = if wanted.required {
                ("optional", "required", "rows already in the table may lack a value")
            } else {
                ("required", "optional", "the table would go on refusing nulls")
            };
            self.problems.push(
                Problem::new(
                    self.place(path, "constraint"),
                    format!("column `{path}` is {now} and cannot become {then}: {why}"),
                )
                .remedy("keep the constraint, or publish a new major version of the data product"),
            );
        }
        let (old, new) = (types::inner_fields(&observed.field_type), types::inner_fields(&wanted.field_type));
        if !new.is_empty() {
            let place = self.place(path, "children");
            self.fields(&old, &new, path, &place);
        }
    }

    /// Adds a problem if the primary key differs. Writers rely on it, so it cannot change.
    fn keys(&mut self) {
        let names = |schema: &Schema| {
            let mut names: Vec<_> = schema
                .identifier_field_ids()
                .filter_map(|id| schema.name_by_field_id(id))
                .map(str::to_owned)
                .collect();
            names.sort();
            names
        };
        let (old, new) = (names(self.observed), names(&self.wanted.schema));
        // A changed key usually changes a required column, too, which was already refused. Do not report it
        // twice.
        if old != new && self.problems.is_empty() {
            let list = |names: &[String]| {
                if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
            };
            self.problems.push(
                Problem::new(
                    "dataContract.schema",
                    format!("the primary key cannot change from {} to {}", list(&old), list(&new)),
                )
                .remedy(
                    "keep the PRIMARY_KEY constraints, or publish a new major version of the data product",
                ),
            );
        }
    }
}
