//! Documents as they were sent, and the published info of an enriched document.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::document::{Document, Node, Tree};
use super::index::{Index, child};
use super::{Component, Descriptor, Limits, Problem, Scope, on_a_large_stack};
use crate::Info;

/// A component and its data product as they were sent: every field, also those that Landfall does not read, and every
/// component, whichever adapter provisions it. Cloning shares the document.
#[derive(Clone, PartialEq)]
pub struct Sent {
    product: Arc<Value>,
    /// A JSON pointer from the data product.
    component: String,
}

impl Sent {
    /// The component, as JSON.
    pub fn component(&self) -> &Value {
        self.product.pointer(&self.component).unwrap_or(&Value::Null)
    }

    /// The data product with all its components, as JSON. For a COMPONENT_DESCRIPTOR, the value of `dataProduct`.
    pub fn product(&self) -> &Value {
        &self.product
    }
}

/// Without the document, which must not be logged.
impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").field("component", &self.component).finish_non_exhaustive()
    }
}

impl Descriptor {
    /// The data product as it was sent. The cost grows with the length of the document, so share it between components.
    pub fn sent_product(&self) -> Arc<Value> {
        let root = &self.document.root;
        Arc::new(product(root, &self.scope).map_or(Value::Null, Node::to_json))
    }

    /// A component of this descriptor within [`Descriptor::sent_product`].
    pub fn sent(&self, product: &Arc<Value>, component: &Component) -> Sent {
        let path = match self.scope {
            Scope::DataProduct => component.path.as_str(),
            Scope::Component(_) => component.path.strip_prefix("dataProduct.").unwrap_or(&component.path),
        };
        // `components[0].components[1]`: no key needs an escape.
        let pointer = path.replace(']', "").replace(['.', '['], "/");
        Sent { product: Arc::clone(product), component: format!("/{pointer}") }
    }
}

fn product<'a>(root: &'a Node, scope: &Scope) -> Option<&'a Node> {
    match scope {
        Scope::DataProduct => Some(root),
        Scope::Component(_) => child(root, "dataProduct"),
    }
}

/// The published info of the components in `wanted`, by id, from an enriched document. `text` is a data product, or has
/// one under `dataProduct`; the rest of it is not read.
pub fn published(
    text: impl AsRef<[u8]>,
    limits: &Limits,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, Info>, Problem> {
    on_a_large_stack(limits, || {
        let document = Document::read(text.as_ref(), limits)?;
        let product = child(&document.root, "dataProduct").unwrap_or(&document.root);
        let Some(Tree::List(components)) = child(product, "components").map(|node| &node.tree) else {
            return Ok(BTreeMap::new());
        };
        let index = Index::of(components, "components");
        let places = index.places.iter();
        // If several components have one id, the first one counts.
        let found = places.rev().filter_map(|place| {
            let id = place.id.filter(|id| wanted(id))?;
            Some((id.to_owned(), place.info()?))
        });
        Ok(found.collect())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{DescriptorKind, Strictness, of_component, parse};
    use super::*;

    const PRODUCT: &str = "{id: p, name: P, version: 0.1.0, environment: e, x: [1.50, true, null], components: [\
        {id: other, kind: 7}, \
        {id: a, name: A, kind: storage, mine: {deep: [1]}, components: [{id: b, name: B, kind: storage, own: 2}]}]}";

    #[test]
    fn component_and_product_are_as_sent() {
        let limits = Limits::default();
        let ours = |outline: &super::super::Outline| outline.id.as_deref() != Some("other");
        for kind in [DescriptorKind::DataProduct, DescriptorKind::Component] {
            let text = match kind {
                DescriptorKind::Component => of_component(PRODUCT, "b", &limits).unwrap(),
                _ => PRODUCT.to_owned(),
            };
            let read = parse(kind, text, Strictness::Full, &limits, &ours).unwrap();
            let product = read.sent_product();
            let sent = read.sent(&product, read.product.component(&"b".parse().unwrap()).unwrap());
            assert_eq!(*sent.component(), json!({"id": "b", "name": "B", "kind": "storage", "own": 2}));
            assert_eq!(sent.product()["x"], json!([1.50, true, null]));
            assert_eq!(sent.product()["components"][0], json!({"id": "other", "kind": 7}));
            assert!(!format!("{sent:?}").contains("own"), "{sent:?}");
        }
    }

    #[test]
    fn reads_published_info_from_both_shapes() {
        let limits = Limits::default();
        let product = "{components: [{id: a, info: {publicInfo: {x: 1}}}, {id: a, info: {publicInfo: {x: 2}}}, \
            {id: b, info: {privateInfo: {y: 1}, latestProvisioningOperation: {status: Failed}}}, {id: c, info: 7}, 5, \
            {id: d, info: {latestProvisioningOperation: {status: NotStarted}}}, {id: e, info: {publicInfo: {}}}]}";
        for text in [product.to_owned(), format!("dataProduct: {product}")] {
            let found = published(text, &limits, &|id| id != "e").unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(Value::Object(found["a"].public.clone()), json!({"x": 1}));
            assert_eq!(Value::Object(found["b"].private.clone()), json!({"y": 1}));
        }
        for empty in ["[]", "7", "{components: 5}", "{dataProduct: null}"] {
            assert_eq!(published(empty, &limits, &|_| true).unwrap(), BTreeMap::new(), "{empty}");
        }
        assert!(published("{", &limits, &|_| true).is_err());
        assert!(published("", &limits, &|_| true).is_err());
    }
}
