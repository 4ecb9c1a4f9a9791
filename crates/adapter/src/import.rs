//! Imports (reverse provisioning): the request and its result. Pure.
//!
//! **Parameters.** `params` of a request has the user's input, and values that the control plane adds: the
//! environment-specific values of the entity under a configured key, and the entity's descriptor under `descriptor`.
//! A technology asks [`ImportParams`] for a parameter by name, and gets the first value of
//!
//! 1. the user's own: `params.KEY`,
//! 2. the environment-specific ones: `params.environmentSpecificConfig.KEY`, then `.specific.KEY`,
//! 3. the component's `specific.KEY` in `params.descriptor`.
//!
//! A blank text is not a value, because forms send it for empty fields. A wrong value is a problem with its path,
//! except in the descriptor, which the control plane adds. Parameters that nothing reads are not a problem;
//! [`Checked::ignored`] names them.
//!
//! **Updates.** A technology returns what it read as [`Imported`]. This module writes it as catalog updates, with the
//! columns in the shape of the entity's own data contract.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::descriptor::{
    Column, ContractShape, Limits, Object, Problem, Subject, Tag, is_typo, write_contract, write_sla,
    write_tags,
};

/// The prefix of every update.
pub const MESH: &str = "spec.mesh";

/// The fields of updates, after [`MESH`]. Below `specific` are the names of the target.
pub const FIELDS: [&str; 9] = [
    "description",
    "tags",
    "dataContract.schema",
    "dataContract.termsAndConditions",
    "dataContract.endpoint",
    "dataContract.SLA",
    "dataContract.slaProperties",
    "dataSharingAgreement",
    "specific",
];

/// The maximum number of ignored parameters that are named.
const MAX_NAMED: usize = 20;

/// A request for reverse provisioning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReverseRequest {
    /// The template of the component to import into.
    pub use_case_template_id: String,
    /// Witboost environment name.
    pub environment: String,
    /// `params` of the request.
    pub params: Object,
    /// `catalogInfo` of the request.
    pub catalog_info: Object,
}

/// An import, with the places of its parameters.
#[derive(Debug, Clone)]
pub struct Import {
    request: ReverseRequest,
    environment_key: String,
    subject: Subject,
}

/// The place of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The user's own parameters.
    Params,
    /// The environment-specific object.
    Environment,
    /// The descriptor.
    Descriptor,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its value.
    pub value: String,
    /// Its place.
    pub source: Source,
    /// Its path: `params.environmentSpecificConfig.specific.schema`.
    pub path: String,
}

impl Import {
    /// `environment_key` is the name of the environment-specific object; `limits` apply to a descriptor that is sent
    /// as text.
    pub fn new(request: ReverseRequest, environment_key: &str, limits: &Limits) -> Self {
        let descriptor = request.params.get(DESCRIPTOR).unwrap_or(&Value::Null);
        let subject = Subject::of(descriptor, &request.use_case_template_id, limits);
        Self { environment_key: environment_key.to_owned(), subject, request }
    }

    /// The request.
    pub fn request(&self) -> &ReverseRequest {
        &self.request
    }

    /// Returns the request.
    pub fn into_request(self) -> ReverseRequest {
        self.request
    }

    /// The component to import into, as far as the descriptor describes it.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// A reader of the parameters.
    pub fn params(&self) -> ImportParams<'_> {
        ImportParams {
            import: self,
            asked: BTreeSet::new(),
            wrong: BTreeSet::new(),
            problems: Vec::new(),
            defaults: Vec::new(),
            used: BTreeSet::new(),
            passed_on: false,
        }
    }

    /// The named target with its path: a text, or any other value of the user's own parameter.
    pub fn target(&self) -> Option<(String, Value)> {
        let own = self.request.params.get(TARGET).filter(|value| !is_blank(value));
        if let Some(value) = own {
            return Some((format!("params.{TARGET}"), value.clone()));
        }
        let named = self.in_environment(TARGET).into_iter().find(|(_, value)| value.is_string());
        named.map(|(path, value)| (path, value.clone()))
    }

    /// Values that are not blank in the environment-specific object, nearest first.
    fn in_environment(&self, key: &str) -> Vec<(String, &Value)> {
        let path = format!("params.{}", self.environment_key);
        let Some(object) = self.request.params.get(&self.environment_key).and_then(Value::as_object) else {
            return Vec::new();
        };
        let nested = object.get(SPECIFIC).and_then(Value::as_object);
        [(path.clone(), Some(object)), (format!("{path}.{SPECIFIC}"), nested)]
            .into_iter()
            .filter_map(|(path, object)| Some((format!("{path}.{key}"), object?.get(key)?)))
            .filter(|(_, value)| !is_blank(value))
            .collect()
    }

    /// The data contract of the entity: from its catalog entry, or else from its descriptor.
    fn contract(&self) -> Option<&Value> {
        self.contract_of_entry().or(self.subject.data_contract.as_ref())
    }

    fn is_contract_of_descriptor(&self) -> bool {
        self.contract_of_entry().is_none() && self.subject.data_contract.is_some()
    }

    fn contract_of_entry(&self) -> Option<&Value> {
        let entry =
            self.request.catalog_info.get("spec").and_then(|spec| spec.get("mesh")?.get("dataContract"));
        entry.filter(|contract| contract.is_object())
    }
}

const TARGET: &str = "target";
const DESCRIPTOR: &str = "descriptor";
const SPECIFIC: &str = "specific";

fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// Reads the parameters of an import, and records which ones were read.
#[derive(Debug)]
pub struct ImportParams<'a> {
    import: &'a Import,
    asked: BTreeSet<&'static str>,
    wrong: BTreeSet<&'static str>,
    problems: Vec<Problem>,
    defaults: Vec<String>,
    used: BTreeSet<Source>,
    /// Whether all parameters are passed on to another program.
    passed_on: bool,
}

/// The result of reading the parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checked {
    /// The problems.
    pub problems: Vec<Problem>,
    /// A sentence for each parameter that does not come from the user.
    pub defaults: Vec<String>,
    /// One sentence about the parameters that nothing read.
    pub ignored: Option<String>,
}

impl<'a> ImportParams<'a> {
    /// The import.
    pub fn import(&self) -> &'a Import {
        self.import
    }

    /// Records that all parameters are passed on to another program, so none is reported as ignored.
    pub fn pass_on(&mut self) {
        self.passed_on = true;
    }

    /// Reads a text.
    pub fn text(&mut self, key: &'static str) -> Option<Parameter> {
        self.text_or(key, key)
    }

    /// Reads a text that has another name in `specific` of the component.
    pub fn text_or(&mut self, key: &'static str, in_specific: &'static str) -> Option<Parameter> {
        let given = self.given_or(key, in_specific);
        if given.is_some() || self.wrong.contains(key) {
            return given;
        }
        let specific = &self.import.subject.specific;
        let known = [key, in_specific]
            .into_iter()
            .find_map(|key| specific.get(key)?.as_str().filter(|text| !text.trim().is_empty()));
        known.map(|text| {
            self.is_default(key, text, Source::Descriptor, "`specific` of the descriptor");
            Parameter {
                value: text.to_owned(),
                source: Source::Descriptor,
                path: format!("params.{DESCRIPTOR}"),
            }
        })
    }

    /// Reads a text, without the descriptor.
    pub fn given(&mut self, key: &'static str) -> Option<Parameter> {
        self.given_or(key, key)
    }

    fn given_or(&mut self, key: &'static str, in_specific: &'static str) -> Option<Parameter> {
        self.asked.insert(key);
        let import = self.import;
        if let Some(value) = import.request.params.get(key).filter(|value| !is_blank(value)) {
            return self.typed(key, value, Source::Params, format!("params.{key}"));
        }
        let mut given = import.in_environment(key);
        if in_specific != key {
            let specific = format!("params.{}.{SPECIFIC}.", import.environment_key);
            given.extend(
                import
                    .in_environment(in_specific)
                    .into_iter()
                    .filter(|(path, _)| path.starts_with(&specific)),
            );
        }
        let (path, value) = given.into_iter().next()?;
        self.typed(key, value, Source::Environment, path)
    }

    fn typed(&mut self, key: &'static str, value: &Value, source: Source, path: String) -> Option<Parameter> {
        let Some(text) = value.as_str() else {
            self.wrong.insert(key);
            let key = path.rsplit('.').next().unwrap_or_default();
            let kind = match value {
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::Array(_) => "a list",
                Value::Null | Value::String(_) | Value::Object(_) => "a mapping",
            };
            let problem = Problem::new(path.as_str(), format!("`{key}` is {kind}"))
                .remedy("use a text; put it in quotes");
            self.problems.push(match value {
                Value::Bool(_) | Value::Number(_) => problem.value(value),
                _ => problem,
            });
            return None;
        };
        if source != Source::Params {
            self.is_default(key, text, source, &format!("`{path}`"));
        }
        Some(Parameter { value: text.to_owned(), source, path })
    }

    /// Records where a parameter comes from, if it is not from the user.
    pub fn is_default(&mut self, key: &str, value: &str, source: Source, from: &str) {
        self.used.insert(source);
        let shown = Problem::new("", "").value(value).value.unwrap_or_default();
        self.defaults.push(format!("`{key}` is `{shown}`, from {from}"));
    }

    /// Adds a problem for a missing parameter, unless its value was wrong, which is already a problem.
    pub fn missing(&mut self, key: &'static str) {
        if self.wrong.contains(key) {
            return;
        }
        let params = &self.import.request.params;
        let path = format!("params.{key}");
        let problem = match params.get(key) {
            Some(Value::String(_)) => {
                Problem::new(path, format!("`{key}` is empty")).remedy(format!("fill in `{key}`"))
            }
            _ => {
                let meant = self.unasked().into_iter().find(|other| is_typo(other, key));
                let meant = meant.map(|other| format!("; did you mean it by `{}`?", shown(other)));
                Problem::new(path, format!("`{key}` is missing"))
                    .remedy(format!("add `{key}` to `params`{}", meant.unwrap_or_default()))
            }
        };
        self.problems.push(problem);
    }

    /// Adds a problem that only the technology can find.
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The user's parameters that nothing read.
    fn unasked(&self) -> Vec<&'a str> {
        let import = self.import;
        let is_used = |source: Source| self.used.contains(&source);
        let is_platform = |key: &str, value: &Value| match key {
            TARGET => true,
            DESCRIPTOR => {
                is_blank(value) || is_used(Source::Descriptor) || import.is_contract_of_descriptor()
            }
            key if key == import.environment_key => {
                let named = import.target().is_some_and(|(path, _)| path != format!("params.{TARGET}"));
                is_blank(value) || is_used(Source::Environment) || named
            }
            _ => false,
        };
        let params = import.request.params.iter();
        params
            .filter(|(key, value)| !self.asked.contains(key.as_str()) && !is_platform(key, value))
            .map(|(key, _)| key.as_str())
            .collect()
    }

    /// Ends reading, and returns the result.
    pub fn finish(self) -> Checked {
        let unasked = if self.passed_on { Vec::new() } else { self.unasked() };
        let named = |key: &&str| {
            let given = &self.import.request.params;
            let meant = self.asked.iter().find(|asked| is_typo(key, asked) && !given.contains_key(**asked));
            match meant {
                Some(meant) => format!("`{}` (did you mean `{meant}`?)", shown(key)),
                None => format!("`{}`", shown(key)),
            }
        };
        let mut names: Vec<String> = unasked.iter().take(MAX_NAMED).map(named).collect();
        let more = unasked.len().saturating_sub(MAX_NAMED);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let ignored = (!names.is_empty())
            .then(|| format!("parameters that nothing reads are ignored: {}", names.join(", ")));
        Checked { problems: self.problems, defaults: self.defaults, ignored }
    }
}

/// A name from the request, shortened to one line for a message.
fn shown(key: &str) -> String {
    Problem::new("", "").value(key).value.unwrap_or_default()
}

/// What an import read.
#[derive(Debug, Clone, PartialEq)]
pub enum Imported {
    /// A table.
    Table(Box<ImportedTable>),
    /// Updates that another program wrote, by the dotted paths of their fields.
    Updates(Object),
}

impl From<ImportedTable> for Imported {
    fn from(table: ImportedTable) -> Self {
        Self::Table(Box::new(table))
    }
}

/// The content of a table that an import read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportedTable {
    /// Its name.
    pub table: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its description, if any.
    pub description: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Terms of the data contract, if the target stores them.
    pub terms_and_conditions: Option<String>,
    /// The address promised to consumers.
    pub endpoint: Option<String>,
    /// The promises, in order.
    pub sla: Object,
    /// The data sharing agreement.
    pub data_sharing_agreement: Object,
    /// The values of `specific` that make a component refer to this table.
    pub specific: Object,
}

/// Catalog updates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Updates {
    /// By the dotted paths of their fields, all below [`MESH`] if Landfall wrote them.
    pub fields: Object,
    /// A sentence for each fact that the entity's data contract cannot express.
    pub lost: Vec<String>,
}

impl Imported {
    /// The updates of the entity of `import`.
    pub fn updates(self, import: &Import) -> Updates {
        match self {
            Self::Table(table) => table.updates(import),
            Self::Updates(fields) => Updates { fields, lost: Vec::new() },
        }
    }
}

impl ImportedTable {
    /// Writes updates of the entity of `import`.
    fn updates(self, import: &Import) -> Updates {
        let contract = import.contract();
        let written = write_contract(&self.columns, &self.table, contract);
        let mut fields = Object::new();
        let mut update = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(format!("{MESH}.{field}"), value);
            }
        };
        update("description", self.description.filter(|text| !text.is_empty()).map(Value::String));
        update("tags", (!self.tags.is_empty()).then(|| write_tags(&self.tags)));
        update("dataContract.schema", Some(written.schema));
        let is_odcs = written.shape == ContractShape::Odcs;
        if is_odcs {
            update(
                "dataContract.slaProperties",
                contract.and_then(|contract| write_sla(&self.sla, contract)),
            );
        } else {
            // An ODCS contract expresses these in other ways, or not at all.
            update("dataContract.termsAndConditions", self.terms_and_conditions.map(Value::String));
            update("dataContract.endpoint", self.endpoint.map(Value::String));
            update("dataContract.SLA", (!self.sla.is_empty()).then_some(Value::Object(self.sla)));
        }
        let agreement = self.data_sharing_agreement;
        update("dataSharingAgreement", (!agreement.is_empty()).then_some(Value::Object(agreement)));
        for (key, value) in self.specific {
            update(&format!("{SPECIFIC}.{key}"), Some(json!(value)));
        }
        Updates { fields, lost: written.lost }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn import(params: Value) -> Import {
        let request = ReverseRequest {
            use_case_template_id: "urn:t".to_owned(),
            environment: "qa".to_owned(),
            params: params.as_object().unwrap().clone(),
            catalog_info: Object::new(),
        };
        Import::new(request, "envConfig", &Limits::default())
    }

    fn lines(checked: &Checked) -> Vec<String> {
        checked.problems.iter().map(Problem::with_remedy).collect()
    }

    #[test]
    fn first_place_with_the_parameter_is_used() {
        let descriptor = json!({ "id": "c", "specific": { "name": "of the descriptor" } });
        let environment = json!({ "table": "direct", "name": "of the entity", "specific": { "name": "of the environment" } });
        let nested = json!({ "name": "of the entity", "specific": { "name": "of the environment" } });
        for (params, value, source) in [
            (
                json!({ "table": "own", "envConfig": environment, "descriptor": descriptor }),
                "own",
                Source::Params,
            ),
            (
                json!({ "table": " ", "envConfig": environment, "descriptor": descriptor }),
                "direct",
                Source::Environment,
            ),
            (
                json!({ "table": null, "envConfig": nested, "descriptor": descriptor }),
                "of the environment",
                Source::Environment,
            ),
            (json!({ "envConfig": {}, "descriptor": descriptor }), "of the descriptor", Source::Descriptor),
        ] {
            let import = import(params.clone());
            let mut read = import.params();
            let found = read.text_or("table", "name").unwrap();
            assert_eq!((found.value.as_str(), found.source), (value, source), "{params}");
            let checked = read.finish();
            let named = checked.ignored.clone().unwrap_or_default();
            assert_eq!(named.contains("`descriptor`"), source != Source::Descriptor, "{params}: {named}");
            assert_eq!(named.contains("`envConfig`"), source != Source::Environment, "{params}: {named}");
            assert_eq!(lines(&checked), Vec::<String>::new(), "{params}");
            assert_eq!(checked.defaults.len(), usize::from(source != Source::Params), "{params}");
        }
    }

    #[test]
    fn the_target_is_named_by_the_user_or_the_environment() {
        for (params, expected) in [
            (json!({ "target": "A", "envConfig": { "target": "B" } }), Some(("params.target", json!("A")))),
            (json!({ "target": 7 }), Some(("params.target", json!(7)))),
            (
                json!({ "target": "", "envConfig": { "specific": { "target": "B" } } }),
                Some(("params.envConfig.specific.target", json!("B"))),
            ),
            (json!({ "envConfig": { "target": { "x": 1 } } }), None),
            (json!({ "environmentSpecificConfig": { "target": "B" } }), None),
        ] {
            let expected = expected.map(|(path, value)| (path.to_owned(), value));
            assert_eq!(import(params.clone()).target(), expected, "{params}");
        }
    }

    #[test]
    fn reports_problems_with_position() {
        let wrong =
            import(json!({ "tabel": "x", "schema": 7, "envConfig": { "specific": { "database": ["a"] } } }));
        let mut read = wrong.params();
        assert_eq!(read.text("schema"), None);
        assert_eq!(read.text("database"), None);
        assert_eq!(read.text("table"), None);
        read.missing("table");
        read.missing("schema");
        let checked = read.finish();
        assert_eq!(
            lines(&checked),
            [
                "params.schema: `schema` is a number: `7`; use a text; put it in quotes",
                "params.envConfig.specific.database: `database` is a list; use a text; put it in quotes",
                "params.table: `table` is missing; add `table` to `params`; did you mean it by `tabel`?",
            ]
        );
        let blank = import(json!({ "table": "" }));
        let mut read = blank.params();
        read.text("table");
        read.missing("table");
        assert_eq!(lines(&read.finish()), ["params.table: `table` is empty; fill in `table`"]);
    }

    #[test]
    fn names_unread_parameters_once() {
        let mut params = json!({ "table": "t", "target": "X", "descriptor": {}, "envConfig": null, "shcema": "s",
            "odd\u{202E}": 1, "environmentSpecificConfig": {} });
        for number in 0..30 {
            params[format!("key{number}")] = json!(number);
        }
        let import = import(params);
        let mut read = import.params();
        read.text("table");
        read.text("schema");
        let ignored = read.finish().ignored.unwrap();
        assert!(
            ignored.starts_with(
                "parameters that nothing reads are ignored: `descriptor`, `shcema` (did you mean `schema`?), `odd<U+202E>`, \
                 `environmentSpecificConfig`, `key0`, "
            ),
            "{ignored}"
        );
        assert!(ignored.ends_with("`key15`, 14 more"), "{ignored}");
    }

    /// Any JSON made of words of a descriptor.
    fn anything() -> impl Strategy<Value = Value> {
        const KEYS: [&str; 12] = [
            "dataProduct",
            "componentIdToProvision",
            "components",
            "id",
            "kind",
            "specific",
            "table",
            "target",
            "dataContract",
            "useCaseTemplateId",
            "spec",
            "mesh",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z{}: ]{0,6}".prop_map(Value::from),
            Just(json!("urn:t")),
        ];
        leaf.prop_recursive(5, 60, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((proptest::sample::select(&KEYS[..]), inner), 0..4).prop_map(
                    |pairs| {
                        Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                    }
                ),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// The user's own parameters win over everything that the control plane adds.
        #[test]
        fn parameters_of_the_user_take_precedence(
            descriptor in anything(), environment in anything(), entry in anything(), other in anything(),
        ) {
            let params = json!({ "table": "own", "target": "T", "descriptor": descriptor, "envConfig": environment, "x": other });
            let mut import = import(params);
            import.request.catalog_info = entry.as_object().cloned().unwrap_or_default();
            prop_assert_eq!(import.target(), Some(("params.target".to_owned(), json!("T"))));
            let mut read = import.params();
            let table = read.text("table");
            prop_assert_eq!(table.map(|table| (table.value, table.source)), Some(("own".to_owned(), Source::Params)));
            let checked = read.finish();
            prop_assert_eq!(&checked.problems, &[]);
            prop_assert!(checked.ignored.unwrap_or_default().contains("`x`"));
            let table = ImportedTable { table: "own".to_owned(), ..ImportedTable::default() };
            let updates = Imported::from(table).updates(&import);
            prop_assert!(updates.fields.contains_key("spec.mesh.dataContract.schema"));
        }
    }

    #[test]
    fn every_update_is_of_a_known_field() {
        let text = || Some("x".to_owned());
        let object = || Object::from_iter([("a".to_owned(), json!("b"))]);
        let imported = ImportedTable {
            table: "t".to_owned(),
            columns: Vec::new(),
            description: text(),
            tags: vec![Tag { fqn: "a".to_owned(), source: String::new(), label_type: String::new() }],
            terms_and_conditions: text(),
            endpoint: text(),
            sla: object(),
            data_sharing_agreement: object(),
            specific: object(),
        };
        let mut seen = BTreeSet::new();
        for contract in [json!({}), json!({ "kind": "DataContract" })] {
            let mut import = import(json!({}));
            import.request.catalog_info =
                json!({ "spec": { "mesh": { "dataContract": contract } } }).as_object().unwrap().clone();
            for key in imported.clone().updates(&import).fields.keys() {
                let field = key.strip_prefix("spec.mesh.").unwrap();
                let known =
                    FIELDS.iter().find(|known| field == **known || field.starts_with(&format!("{known}.")));
                seen.insert(*known.unwrap_or_else(|| panic!("{key}")));
            }
        }
        assert_eq!(seen.len(), FIELDS.len());
    }
}
