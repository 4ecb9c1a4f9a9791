//! The expected content of the lakehouse at the end of a campaign, and the check of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::Resources;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Bucket,
}

/// How much of a component exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    /// Unprovisioned without removing the data.
    Data,
    Everything,
}

/// One component of the lakehouse, as the last request described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LakeComponent {
    pub(super) kind: Kind,
    /// The name of its data product.
    pub(super) name: String,
    pub(super) component: String,
    pub(super) kept: Kept,
    /// The number of columns beyond those of the example. This number only grows.
    pub(super) extra_columns: usize,
    /// The number of extra columns in the last provision request.
    pub(super) provisioned_columns: usize,
    /// The principals that may read the component.
    pub(super) refs: BTreeSet<String>,
    /// The number of requests for this component. Each request uses its number as the version of the data
    /// product, so that no two requests are equal.
    pub(super) requests: usize,
    /// The version in the last provision request.
    pub(super) provisioned_version: String,
}

impl LakeComponent {
    pub(super) fn new(kind: Kind, name: &str) -> Self {
        let component = match kind {
            Kind::Table => "cashflow-output-port",
            Kind::Bucket => "storage-component",
        };
        Self {
            kind,
            name: name.to_owned(),
            component: format!("urn:dmb:cmp:finance:{name}:0:{component}"),
            kept: Kept::Nothing,
            extra_columns: 0,
            provisioned_columns: 0,
            refs: BTreeSet::new(),
            requests: 0,
            provisioned_version: String::new(),
        }
    }

    /// The version of the data product in the current request.
    pub(super) fn version(&self) -> String {
        format!("0.1.{}", self.requests)
    }

    pub(super) fn table_exists(&self) -> bool {
        self.kind == Kind::Table && self.kept == Kept::Everything
    }

    /// The differences between the actual and the expected state.
    pub(super) fn violations(&self, warehouse: &std::path::Path, resources: &Resources) -> Vec<String> {
        let found = match self.kind {
            Kind::Table => self.table(resources),
            Kind::Bucket => self.bucket(warehouse),
        };
        let mut violations = found.err().into_iter().collect::<Vec<_>>();
        let folder = self.folder();
        let files = resources.files.iter().filter(|(path, _)| path.starts_with(&folder)).count();
        if self.kept == Kept::Nothing && files > 0 {
            violations.push(format!("its data was removed, and {files} files are left"));
        }
        let data = resources
            .files
            .iter()
            .filter(|(path, _)| path.starts_with(&folder) && path.extension().is_some_and(|e| e == "parquet"))
            .count();
        // There may be more than one data file: a run that is interrupted between write and commit leaves one.
        if self.kind == Kind::Table && self.kept != Kept::Nothing && data == 0 {
            violations.push("the rows are gone".to_owned());
        }
        violations.iter().map(|what| format!("{}: {what} ({self:?})", self.component)).collect()
    }

    fn folder(&self) -> String {
        match self.kind {
            Kind::Table => format!("tables/finance__{}__0__production/cashflow_output_port", self.name),
            Kind::Bucket => format!("buckets/finance-{}", self.name),
        }
    }

    fn table(&self, resources: &Resources) -> Result<(), String> {
        let name = format!("finance__{}__0__production.cashflow_output_port", self.name);
        let mut found = resources.tables.iter().filter(|(table, _)| *table == name);
        let Some((_, metadata)) = found.next() else {
            return if self.kept == Kept::Everything {
                Err("it is not in the catalog".to_owned())
            } else {
                Ok(())
            };
        };
        if self.kept != Kept::Everything {
            return Err("it is still in the catalog".to_owned());
        }
        let text = std::fs::read_to_string(metadata).map_err(|error| format!("its metadata: {error}"))?;
        let table: Value = serde_json::from_str(&text).map_err(|error| format!("its metadata: {error}"))?;
        let schema = table["schemas"]
            .as_array()
            .and_then(|all| all.iter().find(|schema| schema["schema-id"] == table["current-schema-id"]))
            .ok_or("no current schema")?;
        let columns: Vec<&str> = schema["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|field| field["name"].as_str())
            .collect();
        let extra = (1..=self.provisioned_columns).map(|n| format!("extra{n}"));
        let wanted: Vec<String> = ["id", "direction", "amount", "counterpartyId"]
            .map(str::to_owned)
            .into_iter()
            .chain(extra)
            .collect();
        if columns != wanted {
            return Err(format!("its columns are {columns:?}, and should be {wanted:?}"));
        }
        let version = &table["properties"]["landfall.data-product.version"];
        if *version != self.provisioned_version.as_str() {
            return Err(format!(
                "its last provisioning was of version {}, and it has {version}",
                self.provisioned_version
            ));
        }
        let last = table["snapshots"].as_array().and_then(|all| all.last()).ok_or("no snapshot")?;
        if last["summary"]["total-records"] != "2" {
            return Err(format!("it should have 2 rows: {}", last["summary"]));
        }
        let text = table["properties"]["landfall.access.refs"].as_str().unwrap_or("[]");
        self.readers(&serde_json::from_str(text).unwrap_or(Value::Null))
    }

    fn bucket(&self, warehouse: &std::path::Path) -> Result<(), String> {
        let mark = std::fs::read_to_string(warehouse.join(self.folder()).join(".landfall.json"));
        let mark: Value = match (mark, self.kept) {
            (Err(_), Kept::Nothing) => return Ok(()),
            (Err(error), _) => return Err(format!("its mark: {error}")),
            (Ok(_), Kept::Nothing) => return Err("it is still there".to_owned()),
            (Ok(text), _) => serde_json::from_str(&text).map_err(|error| format!("its mark: {error}"))?,
        };
        let state = if self.kept == Kept::Everything { "active" } else { "released" };
        if mark["state"] != state || mark["component"] != self.component.as_str() {
            return Err(format!("its mark is {mark}"));
        }
        if self.kept == Kept::Everything { self.readers(&mark["access"]["refs"]) } else { Ok(()) }
    }

    fn readers(&self, refs: &Value) -> Result<(), String> {
        let refs: BTreeSet<String> =
            refs.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if refs == self.refs { Ok(()) } else { Err(format!("its readers are {refs:?}")) }
    }
}
