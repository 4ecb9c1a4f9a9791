//! From the existing table to the wanted one. Pure.
//!
//! | change | what happens |
//! |---|---|
//! | new column | added, at the end; NOT_NULL only while the table is empty |
//! | column left out | refused, with how many values would be lost; dropped with `allowDropColumns: true` |
//! | another name, given as `renameColumns: {old: new}` | renamed, with its values |
//! | a type that holds every value of the old one | changed; views of the data product on it are recreated; any other object that uses the column prevents the change |
//! | another type | refused |
//! | required | set, unless there are rows without a value: refused, with how many |
//! | optional | the constraint is dropped |
//! | another primary key | set where there was none, unless rows share their values: refused, with how many; refused otherwise |
//! | unique or not | the constraint is added or dropped; refused, with how many, where rows share a value |
//! | the order of columns | not compared |
//!
//! A refusal names the column, what would be lost, and the remedy.

use super::columns::{Table, Wanted};
use super::desired::{self, Left, Place, Step, column_comment, table_comment};
use super::observe::{Count, Probe, Relation, Seen, SeenColumn, SeenConstraint, counted};
use super::session::Unknown;
use super::sql::{dotted, ident, idents, literal};
use super::types::widens;
use landfall_adapter::Action;
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};

const NEW_MAJOR: &str = "or publish a new major version of the data product";

/// Returns the questions about rows that must be answered to report what a change would lose.
pub(super) fn probes(table: &Table, seen: &Seen) -> Vec<Probe> {
    let Some(relation) = seen.relation(&table.name).filter(|relation| relation.kind == 'r') else {
        return Vec::new();
    };
    let name = || table.name.clone();
    let mut probes = Vec::new();
    for column in table.columns.iter().filter(|column| column.required) {
        match old(table, relation, &column.name) {
            None => probes.push(Probe::Rows { table: name() }),
            Some(have) if !have.required => {
                probes.push(Probe::Nulls { table: name(), column: have.name.clone() });
            }
            Some(_) => {}
        }
    }
    for have in gone(table, relation) {
        probes.push(Probe::Values { table: name(), column: have.name.clone() });
    }
    probes.extend(key_probe(table, relation));
    probes.extend(table.columns.iter().filter_map(|column| unique_probe(table, relation, column)));
    probes.sort();
    probes.dedup();
    probes
}

/// The probe for duplicate keys, if the change adds a primary key. `None` if the key has a new column: then
/// [`Probe::Rows`] is enough.
fn key_probe(table: &Table, relation: &Relation) -> Option<Probe> {
    if keys(table).is_empty() || relation.constraints.iter().any(|constraint| constraint.kind == 'p') {
        return None;
    }
    let columns: Option<Vec<String>> =
        keys(table).into_iter().map(|name| Some(old(table, relation, name)?.name.clone())).collect();
    Some(Probe::Duplicates { table: table.name.clone(), columns: columns? })
}

/// The probe for duplicate values, if the change makes an existing column unique.
fn unique_probe(table: &Table, relation: &Relation, column: &Wanted) -> Option<Probe> {
    if !column.unique || unique_constraint(table, relation, column).is_some() {
        return None;
    }
    let have = old(table, relation, &column.name)?;
    Some(Probe::Duplicates { table: table.name.clone(), columns: vec![have.name.clone()] })
}

/// Why rows cannot be distinguished, and the remedy; `None` if they can. `of` names the shared values.
fn shared(count: Count, of: &str) -> Option<(String, &'static str)> {
    match count {
        Ok(0) => None,
        Ok(rows) => Some((
            format!("{} {of} that another row has, too", counted(rows, "row")),
            "make the values differ first",
        )),
        Err(why) => {
            Some((format!("whether rows share values is not known, because {}", why.why()), why.remedy()))
        }
    }
}

/// The constraint that makes a column unique, if any.
fn unique_constraint<'a>(
    table: &Table,
    relation: &'a Relation,
    column: &Wanted,
) -> Option<&'a SeenConstraint> {
    relation.constraints.iter().find(|constraint| {
        constraint.kind == 'u'
            && matches!(constraint.columns.as_slice(), [one] if renamed(table, relation, one) == column.name)
    })
}

/// The name of a column after the change.
fn renamed(table: &Table, relation: &Relation, name: &str) -> String {
    let to = table.renames.iter().find(|(from, _)| from == name && relation.column(name).is_some());
    to.map_or(name, |(_, to)| to).to_owned()
}

/// The existing column that becomes the wanted column `name`; for a rename, the column with the old name.
/// `None` if the wanted column is new.
fn old<'a>(table: &Table, relation: &'a Relation, name: &str) -> Option<&'a SeenColumn> {
    relation.column(name).or_else(|| {
        let (from, _) = table.renames.iter().find(|(_, to)| to == name)?;
        relation.column(from).filter(|_| !table.columns.iter().any(|column| column.name == *from))
    })
}

/// The existing columns that the change drops.
fn gone<'a>(table: &'a Table, relation: &'a Relation) -> impl Iterator<Item = &'a SeenColumn> {
    relation.columns.iter().filter(|have| {
        !table
            .columns
            .iter()
            .any(|column| old(table, relation, &column.name).is_some_and(|known| known.name == have.name))
    })
}

/// Returns the remaining changes of a table, or the reasons why it cannot be changed.
pub(super) fn table(place: &Place, table: &Table, seen: &Seen) -> Result<Left> {
    let mut left = Left { notes: table.notes.clone(), ..Left::default() };
    let Some(relation) = seen.relation(&table.name) else {
        desired::refuse_taken(place, &table.name, seen)?;
        left.pieces.push(create(place, table));
        return Ok(left);
    };
    place.own(relation)?;
    if relation.kind != 'r' {
        let kind = relation.keyword().to_ascii_lowercase();
        let kind = if relation.kind == 'p' { "partitioned table" } else { &kind };
        return Err(Error::invalid(vec![
            Problem::new(
                &table.place,
                format!("`{}.{}` is a {kind} and cannot become a table", place.schema, table.name),
            )
            .remedy("unprovision the component with its data first, or give the table another name"),
        ]));
    }
    let mut evolution = Evolution { place, table, relation, seen, left, problems: Vec::new() };
    evolution.columns();
    evolution.dropped();
    evolution.keys();
    if evolution.problems.is_empty() { Ok(evolution.left) } else { Err(Error::invalid(evolution.problems)) }
}

fn create(place: &Place, table: &Table) -> desired::Piece {
    let name = dotted(&place.schema, &table.name);
    let mut parts: Vec<String> = table.columns.iter().map(definition).collect();
    let keys: Vec<&str> = keys(table);
    if !keys.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", idents(keys)));
    }
    for column in table.columns.iter().filter(|column| column.unique) {
        parts.push(format!("UNIQUE ({})", ident(&column.name)));
    }
    let mut sql = vec![format!("CREATE TABLE {name} ({})", parts.join(", "))];
    let comment = table_comment(place, &table.description, &table.tags);
    sql.push(format!("COMMENT ON TABLE {name} IS {}", literal(&comment)));
    for column in table.columns.iter().filter(|column| column.comment.is_some()) {
        sql.push(column_comment(&name, column));
    }
    let owner = ident(&place.owner_role);
    sql.extend(desired::handed_over(place, vec![format!("ALTER TABLE {name} OWNER TO {owner}")]));
    sql.push(format!("GRANT SELECT ON {name} TO {}", ident(&place.reader_role)));
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("`{}` {}", column.name, column.data_type)).collect();
    place.piece(
        Step::CreateTable { table: table.name.clone() },
        Action::Create,
        format!("create table `{}` with {}", table.name, columns.join(", ")),
        sql,
    )
}

/// The definition of a column for CREATE TABLE and ADD COLUMN. The type is generated here and never copied from
/// the descriptor.
fn definition(column: &Wanted) -> String {
    let required = if column.required { " NOT NULL" } else { "" };
    format!("{} {}{required}", ident(&column.name), column.data_type)
}

fn keys(table: &Table) -> Vec<&str> {
    let mut keys: Vec<_> =
        table.columns.iter().filter_map(|column| Some((column.key?, column.name.as_str()))).collect();
    // A stable sort: without explicit positions, the key has the order of the columns.
    keys.sort_by_key(|(place, _)| *place);
    keys.into_iter().map(|(_, name)| name).collect()
}

struct Evolution<'a> {
    place: &'a Place,
    table: &'a Table,
    relation: &'a Relation,
    seen: &'a Seen,
    left: Left,
    problems: Vec<Problem>,
}

impl Evolution<'_> {
    fn alter(&mut self, step: Step, summary: String, change: String) {
        let sql = vec![format!("ALTER TABLE {} {change}", dotted(&self.place.schema, &self.table.name))];
        let summary = format!("table `{}`: {summary}", self.table.name);
        self.left.pieces.push(self.place.piece(step, Action::Alter, summary, sql));
    }

    /// Makes the previous change run with the owners' rights, because it may call their functions: PostgreSQL
    /// runs functions of checks when it sets NOT NULL, and functions of checks, indexes and foreign keys when
    /// it changes a type.
    fn as_owner(&mut self) {
        if let Some(piece) = self.left.pieces.last_mut() {
            piece.as_owner = piece.sql.first().cloned();
        }
    }

    fn columns(&mut self) {
        let (place, table, relation) = (self.place, self.table, self.relation);
        let name = || table.name.clone();
        for column in &table.columns {
            let quoted = ident(&column.name);
            let Some(have) = old(table, relation, &column.name) else {
                self.new_column(column);
                continue;
            };
            if have.name != column.name {
                self.alter(
                    Step::RenameColumn { table: name(), from: have.name.clone(), to: column.name.clone() },
                    format!("rename column `{}` to `{}`", have.name, column.name),
                    format!("RENAME COLUMN {} TO {quoted}", ident(&have.name)),
                );
                if have.comment != column.comment {
                    self.describe(column);
                }
            }
            if have.data_type != column.data_type {
                if widens(&have.data_type, &column.data_type) && !relation.plain {
                    self.problems.push(
                        Problem::new(
                            format!("{}.dataType", column.place),
                            format!(
                                "`{}.{}` has checks, indexes with expressions, generated columns, user-defined types \
                                 or tables that inherit from it, whose functions would run as Landfall if column `{}` \
                                 became {}",
                                place.schema, table.name, column.name, column.data_type
                            ),
                        )
                        .value(&column.data_type)
                        .remedy("remove them meanwhile, or have the owner of the table change the column"),
                    );
                } else if widens(&have.data_type, &column.data_type) {
                    self.alter(
                        Step::ChangeType { table: name(), column: column.name.clone() },
                        format!("column `{}` from {} to {}", column.name, have.data_type, column.data_type),
                        format!("ALTER COLUMN {quoted} TYPE {}", column.data_type),
                    );
                    self.as_owner();
                    self.rebuild_readers(column, &have.name);
                } else {
                    self.problems.push(
                        Problem::new(
                            format!("{}.dataType", column.place),
                            format!(
                                "column `{}` of `{}.{}` is {}, and some of its values may not fit {}",
                                column.name, place.schema, table.name, have.data_type, column.data_type
                            ),
                        )
                        .value(&column.data_type)
                        .remedy(format!(
                            "keep a type that is {}, add a column under another name, {NEW_MAJOR}",
                            have.data_type
                        )),
                    );
                }
            }
            if column.required && !have.required {
                let refusal = match self.seen.fact(&Probe::Nulls { table: name(), column: have.name.clone() })
                {
                    Ok(0) => None,
                    Ok(missing) => Some((
                        format!("{} without a value", counted(missing, "row")),
                        "fill in the values first",
                    )),
                    Err(why) => Some((
                        format!("how many rows have no value is not known, because {}", why.why()),
                        why.remedy(),
                    )),
                };
                if let Some((why, remedy)) = refusal {
                    self.problems.push(
                        Problem::new(
                            format!("{}.constraint", column.place),
                            format!("column `{}` cannot be required: {why}", column.name),
                        )
                        .remedy(format!("{remedy}, leave the constraint out, {NEW_MAJOR}")),
                    );
                } else if column.key.is_none() || !self.sets_key() {
                    self.alter(
                        Step::Nullable { table: name(), column: column.name.clone() },
                        format!("column `{}` is required", column.name),
                        format!("ALTER COLUMN {quoted} SET NOT NULL"),
                    );
                    self.as_owner();
                }
            } else if have.required && !column.required && !self.is_key(&have.name) {
                self.alter(
                    Step::Nullable { table: name(), column: column.name.clone() },
                    format!("column `{}` is optional", column.name),
                    format!("ALTER COLUMN {quoted} DROP NOT NULL"),
                );
            }
        }
    }

    fn new_column(&mut self, column: &Wanted) {
        let table = self.table.name.clone();
        let rows = match column.required {
            true => self.seen.fact(&Probe::Rows { table: table.clone() }),
            false => Ok(0),
        };
        let refusal = match rows {
            Ok(0) => None,
            Ok(_) => Some(format!("but the rows already in `{table}` have no value for it")),
            Err(why) => Some(format!("and whether `{table}` has rows is not known, because {}", why.why())),
        };
        if let Some(why) = refusal {
            self.problems.push(
                Problem::new(
                    format!("{}.constraint", column.place),
                    format!("column `{}` is new and required, {why}", column.name),
                )
                .remedy(format!("add it without a constraint, {NEW_MAJOR}")),
            );
            return;
        }
        self.alter(
            Step::AddColumn { table, column: column.name.clone() },
            format!("add column `{}` {}", column.name, column.data_type),
            format!("ADD COLUMN {}", definition(column)),
        );
        if column.comment.is_some() {
            self.describe(column);
        }
    }

    /// Adds the comment of the column, by its new name, to the previous change.
    fn describe(&mut self, column: &Wanted) {
        if let Some(piece) = self.left.pieces.last_mut() {
            piece.sql.push(column_comment(&dotted(&self.place.schema, &self.table.name), column));
        }
    }

    /// Makes the previous change drop the data product's views on a column and create them again. Refuses the
    /// change if another object uses the column.
    fn rebuild_readers(&mut self, column: &Wanted, have: &str) {
        let (Some(around), Some(piece)) =
            (super::view::around(self.place, self.relation, have), self.left.pieces.last_mut())
        else {
            self.refuse_users(format!("{}.dataType", column.place), have, "get another type", true);
            return;
        };
        let (before, after) = around;
        if !before.is_empty() {
            piece.summary.push_str(", and the views on it are recreated with their grants");
            piece.sql.splice(0..0, before);
            piece.sql.extend(after);
        }
        if self.relation.holders.iter().any(|holder| holder.typed && holder.column == have) {
            self.refuse_users(format!("{}.dataType", column.place), have, "get another type", true);
        }
    }

    /// Adds a problem if a view or another object uses the column, because PostgreSQL then refuses to change or
    /// drop it. With `typed`, only objects that prevent a change of type count.
    fn refuse_users(&mut self, path: String, column: &str, change: &str, typed: bool) {
        let reads = |columns: &[String]| columns.iter().any(|name| name == column);
        let views = self.relation.dependents.iter().filter(|dependent| reads(&dependent.columns));
        let mut users: Vec<String> =
            views.map(|dependent| format!("view `{}.{}`", dependent.schema, dependent.name)).collect();
        let holders = self.relation.holders.iter().filter(|holder| holder.column == column);
        users.extend(holders.filter(|holder| holder.typed || !typed).map(|holder| holder.what.clone()));
        if !users.is_empty() {
            self.problems.push(
                Problem::new(
                    path,
                    format!(
                        "column `{column}` of `{}.{}` cannot {change}: it is used by {}",
                        self.place.schema,
                        self.table.name,
                        users.join(", ")
                    ),
                )
                .value(column)
                .remedy(format!("drop or change that first, keep the column as it is, {NEW_MAJOR}")),
            );
        }
    }

    fn dropped(&mut self) {
        let (table, relation) = (self.table, self.relation);
        for have in gone(table, relation) {
            let lost =
                self.seen.fact(&Probe::Values { table: table.name.clone(), column: have.name.clone() });
            let unknown = |why: Unknown| format!("not known, because {}", why.why());
            if table.may_drop && !self.is_key(&have.name) {
                self.alter(
                    Step::DropColumn { table: table.name.clone(), column: have.name.clone() },
                    match lost {
                        Ok(lost) => format!("drop column `{}` with {}", have.name, counted(lost, "value")),
                        Err(why) => {
                            format!(
                                "drop column `{}` with values whose number is {}",
                                have.name,
                                unknown(why)
                            )
                        }
                    },
                    format!("DROP COLUMN {} RESTRICT", ident(&have.name)),
                );
                self.refuse_users(table.place.clone(), &have.name, "be dropped", false);
            } else {
                let (why, remedy) = if self.is_key(&have.name) {
                    ("it is part of the primary key", "keep the column")
                } else {
                    (
                        "`allowDropColumns` is not true",
                        "keep the column, give its new name in `renameColumns`, write `allowDropColumns: true`",
                    )
                };
                let lost = match lost {
                    Ok(lost) => counted(lost, "value"),
                    Err(why) => format!("its values (how many is {})", unknown(why)),
                };
                self.problems.push(
                    Problem::new(
                        &table.place,
                        format!(
                            "column `{}` of `{}.{}` is missing: dropping it would lose {lost}, and {why}",
                            have.name, self.place.schema, table.name
                        ),
                    )
                    .value(&have.name)
                    .remedy(format!("{remedy}, {NEW_MAJOR}")),
                );
            }
        }
    }

    /// The columns of the existing primary key.
    fn key(&self) -> Option<&[String]> {
        let key = self.relation.constraints.iter().find(|constraint| constraint.kind == 'p')?;
        Some(&key.columns)
    }

    fn is_key(&self, column: &str) -> bool {
        self.key().is_some_and(|key| key.iter().any(|name| name == column))
    }

    /// Whether a primary key is added to a table without one.
    fn sets_key(&self) -> bool {
        self.key().is_none() && self.table.columns.iter().any(|column| column.key.is_some())
    }

    fn keys(&mut self) {
        let (table, relation) = (self.table, self.relation);
        let wanted = keys(table);
        let mut have: Vec<String> =
            self.key().unwrap_or_default().iter().map(|name| renamed(table, relation, name)).collect();
        let mut sorted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        have.sort();
        sorted.sort();
        let alike = key_probe(table, relation).and_then(|probe| shared(self.seen.fact(&probe), "of values"));
        if let Some((why, remedy)) = alike {
            let list = wanted.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            self.problems.push(
                Problem::new(
                    &table.place,
                    format!(
                        "{list} cannot be the primary key of `{}.{}`: {why}",
                        self.place.schema, table.name,
                    ),
                )
                .remedy(format!("{remedy}, leave the constraint out, {NEW_MAJOR}")),
            );
        } else if self.sets_key() {
            self.alter(
                Step::PrimaryKey { table: table.name.clone() },
                format!("primary key ({})", wanted.join(", ")),
                format!("ADD PRIMARY KEY ({})", idents(wanted.iter().copied())),
            );
            // This would set NOT NULL by itself, and run functions of checks.
            let required: Vec<String> =
                wanted.iter().map(|name| format!("ALTER COLUMN {} SET NOT NULL", ident(name))).collect();
            let name = dotted(&self.place.schema, &table.name);
            if let Some(piece) = self.left.pieces.last_mut() {
                piece.sql.insert(0, format!("ALTER TABLE {name} {}", required.join(", ")));
            }
            self.as_owner();
        } else if have != sorted {
            let list = |names: &[String]| match names {
                [] => "none".to_owned(),
                names => format!("`{}`", names.join("`, `")),
            };
            self.problems.push(
                Problem::new(
                    &table.place,
                    format!(
                        "the primary key of `{}.{}` cannot change from {} to {}: references to its rows would break",
                        self.place.schema,
                        table.name,
                        list(&have),
                        list(&sorted)
                    ),
                )
                .remedy(format!("keep the PRIMARY_KEY constraints, {NEW_MAJOR}")),
            );
        }
        for column in &table.columns {
            let have = unique_constraint(table, relation, column);
            let probe = unique_probe(table, relation, column);
            let alike = probe.and_then(|probe| shared(self.seen.fact(&probe), "of a value"));
            let step = Step::Unique { table: table.name.clone(), column: column.name.clone() };
            if let Some((why, remedy)) = alike {
                self.problems.push(
                    Problem::new(
                        format!("{}.constraint", column.place),
                        format!("column `{}` cannot be unique: {why}", column.name),
                    )
                    .remedy(format!("{remedy}, leave the constraint out, {NEW_MAJOR}")),
                );
                continue;
            }
            match (column.unique, have) {
                (false, Some(constraint)) if constraint.referred => self.problems.push(
                    Problem::new(
                        format!("{}.constraint", column.place),
                        format!("column `{}` must stay unique: a foreign key refers to it", column.name),
                    )
                    .remedy(format!("keep UNIQUE, have the foreign key dropped first, {NEW_MAJOR}")),
                ),
                (true, None) => self.alter(
                    step,
                    format!("column `{}` is unique", column.name),
                    format!("ADD UNIQUE ({})", ident(&column.name)),
                ),
                (false, Some(constraint)) => self.alter(
                    step,
                    format!("column `{}` need not be unique", column.name),
                    format!("DROP CONSTRAINT {} RESTRICT", ident(&constraint.name)),
                ),
                _ => {}
            }
        }
    }
}
