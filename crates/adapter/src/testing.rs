//! Components for tests of technologies. The functions panic on errors.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "this is for tests")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::any::AnyTechnology;
use crate::descriptor::{DescriptorKind, Limits, Object, Problem, Strictness, parse};
use crate::import::{Import, ReverseRequest};
use crate::{
    Change, Context, Driver, Error, Info, Intent, Mistakes, Neighbours, Plan, Result, Running, Services, Work,
};

mod identifiers;
pub use identifiers::identifiers;

pub const CASHFLOW: &str = include_str!("../../../examples/cashflow.yaml");
pub const PORT: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port";
pub const STORAGE: &str = "urn:dmb:cmp:finance:cashflow:0:storage-component";
pub const WORKLOAD: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-calculation";

/// A component of a data product in YAML, without an access list.
pub fn work(text: &str, component: &str) -> Work {
    let descriptor =
        parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default(), &|_| true).unwrap();
    let component = descriptor.product.component(&component.parse().unwrap()).unwrap().clone();
    let sent = descriptor.sent(&descriptor.sent_product(), &component);
    let product = Arc::new(descriptor.product);
    Work {
        environment: product.environment.clone().unwrap(),
        product,
        component: Arc::new(component),
        access: None,
        neighbours: Neighbours::default(),
        dependencies: Vec::new(),
        sent: Some(sent),
    }
}

/// The same component with its neighbours, all on one target.
pub fn work_beside_others(text: &str, component: &str) -> Work {
    let work = work(text, component);
    let numbers = (0..work.product.components.len()).collect();
    Work { neighbours: Neighbours::new(numbers, true), ..work }
}

/// The `schema` of one contract in both shapes, OpenMetadata and ODCS.
pub const SCHEMAS: [&str; 2] = [
    "[{name: order_id, dataType: BIGINT, constraint: PRIMARY_KEY, description: Number of the order},
      {name: placed_at, dataType: TIMESTAMP, constraint: NOT_NULL},
      {name: total, dataType: DECIMAL, precision: 12, scale: 2, tags: [{tagFQN: money}]},
      {name: lines, dataType: ARRAY, arrayDataType: STRUCT, children: [
         {name: sku, dataType: VARCHAR, dataLength: 20}, {name: quantity, dataType: BIGINT}]},
      {name: code, dataType: TEXT, constraint: UNIQUE}, {name: express, dataType: BOOLEAN}]",
    "[{name: orders, logicalType: object, physicalType: table, properties: [
      {name: order_id, logicalType: integer, physicalType: int8, primaryKey: true, primaryKeyPosition: 1, required: true,
       description: Number of the order},
      {name: placed_at, logicalType: date, physicalType: timestamp_ntz, required: true},
      {name: total, logicalType: number, physicalType: 'decimal(12,2)', tags: [money]},
      {name: lines, logicalType: array, items: {logicalType: object, properties: [
         {name: sku, logicalType: string, logicalTypeOptions: {maxLength: 20}}, {name: quantity, logicalType: integer}]}},
      {name: code, logicalType: string, physicalType: clob, unique: true}, {name: express, logicalType: boolean}]}]",
];

/// An output port with this `schema`.
pub fn port_of(schema: &str) -> Work {
    work(&port_text(schema), "urn:dmb:cmp:sales:shapes:1:port")
}

/// A data product that has an output port with this `schema`.
pub fn port_text(schema: &str) -> String {
    format!(
        "{{id: 'urn:dmb:dp:sales:shapes:1', name: Shapes, version: 1.0.0, environment: production, domain: sales,
          components: [{{id: 'urn:dmb:cmp:sales:shapes:1:port', name: Port, version: 1.0.0, kind: outputport,
          dataContract: {{schema: {schema}}}, specific: {{}}}}]}}"
    )
}

/// An import with these parameters, for an entity with `mesh` in `spec.mesh` of its catalog entry.
pub fn import(environment: &str, params: &Value, mesh: &Value) -> Import {
    let request = ReverseRequest {
        use_case_template_id: "urn:dmb:utm:x:1".to_owned(),
        environment: environment.to_owned(),
        params: params.as_object().unwrap().clone(),
        catalog_info: json!({ "spec": { "mesh": mesh } }).as_object().unwrap().clone(),
    };
    Import::new(request, "environmentSpecificConfig", &Limits::default())
}

/// The only component of a data product, as in `spec.mesh` of its catalog entry.
pub fn mesh(product: &str) -> Value {
    let product: Value = serde_yaml::from_str(product).unwrap();
    product["components"][0].clone()
}

/// The data product after updates of its only component. Like a control plane, it replaces the fields that the
/// keys name.
pub fn updated(product: &str, updates: &Object) -> String {
    let mut product: Value = serde_yaml::from_str(product).unwrap();
    for (key, value) in updates {
        let mut place = &mut product["components"][0];
        for part in key.strip_prefix("spec.mesh.").unwrap().split('.') {
            place = &mut place[part];
        }
        *place = value.clone();
    }
    product.to_string()
}

/// Asserts that the names in these pairs (name, owner of the name) are distinct.
pub fn assert_distinct(names: impl Iterator<Item = (String, String)>) {
    let mut known = HashMap::new();
    for (name, of) in names {
        let before = known.insert(name.clone(), of.clone());
        assert_eq!(before, None, "`{name}` is also the name of `{of}`");
    }
}

/// The technology that a driver makes of these settings, with these variables of the process.
pub fn open<D: Driver>(
    driver: &D,
    settings: Value,
    variables: &[(&str, &str)],
) -> std::result::Result<D::Technology, Mistakes> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = serde_json::from_value(settings).unwrap();
    driver.open(settings, &Services::new("TARGET", false, &variables, &BTreeMap::new()))
}

/// Direct calls of a technology, without binding first.
#[async_trait]
pub trait Directly {
    /// The problems of a component.
    fn check(&self, work: &Work, intent: &Intent) -> Vec<Problem>;

    /// The plan of a component, or all its problems.
    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan>;

    /// Applies a change to a component, which may differ from the planned one.
    async fn apply(&self, work: &Work, change: &Change, context: &Context) -> Result<()>;

    /// The info of a component.
    async fn describe(&self, work: &Work, context: &Context) -> Result<Info>;
}

#[async_trait]
impl<T: AnyTechnology + ?Sized> Directly for T {
    fn check(&self, work: &Work, intent: &Intent) -> Vec<Problem> {
        self.bind(work.clone(), *intent).err().unwrap_or_default()
    }

    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan> {
        self.bind(work.clone(), *intent).map_err(Error::invalid)?.plan(context).await
    }

    async fn apply(&self, work: &Work, change: &Change, context: &Context) -> Result<()> {
        let bound = self.bind(work.clone(), change.step.intent()).map_err(Error::invalid)?;
        bound.apply(&change.step, &Running::new(context.clone())).await
    }

    async fn describe(&self, work: &Work, context: &Context) -> Result<Info> {
        self.bind(work.clone(), Intent::UpdateAccess).map_err(Error::invalid)?.describe(context).await
    }
}
