//! Reads the descriptor in an import: the entity that is imported into.
//!
//! It may be a component descriptor (`dataProduct` and `componentIdToProvision`), a data product, or a component, as
//! a mapping or as YAML or JSON in a text. It only provides defaults, so it never has problems: unreadable parts are
//! ignored.

use serde_json::Value;

use super::document::Document;
use super::{Limits, Object, Outline};

/// The component of the descriptor, as far as it is described.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subject {
    /// `id` of its data product.
    pub product: Option<String>,
    /// `id`
    pub component: Option<String>,
    /// `specific`
    pub specific: Object,
    /// `dataContract`
    pub data_contract: Option<Value>,
    /// The fields that routes use, if the component is known.
    pub outline: Option<Outline>,
}

impl Subject {
    /// Reads a descriptor. In a data product, the one component of the template `template` is used.
    pub fn of(descriptor: &Value, template: &str, limits: &Limits) -> Self {
        let parsed;
        let descriptor = match descriptor {
            Value::String(text) => match Document::read(text.as_bytes(), limits) {
                Ok(document) => {
                    parsed = document.root.to_json();
                    &parsed
                }
                Err(_) => return Self::default(),
            },
            other => other,
        };
        let Some(root) = descriptor.as_object() else { return Self::default() };
        let product = root.get("dataProduct").and_then(Value::as_object).unwrap_or(root);
        let list = product.get("components").and_then(Value::as_array);
        let is_product = list.is_some() || text(product, "kind").as_deref() == Some("dataproduct");
        let all = components(list.map_or(&[], Vec::as_slice));
        let component = match text(root, "componentIdToProvision") {
            Some(id) => all.iter().find(|component| text(component, "id").as_ref() == Some(&id)).copied(),
            None if is_product => {
                let mut of_template = all
                    .iter()
                    .filter(|component| text(component, "useCaseTemplateId").as_deref() == Some(template));
                of_template.next().copied().filter(|_| of_template.next().is_none())
            }
            None => Some(root)
                .filter(|root| ["specific", "dataContract"].iter().any(|key| root.contains_key(*key))),
        };
        let Some(component) = component else {
            return Self { product: text(product, "id"), ..Self::default() };
        };
        Self {
            product: text(product, "id").filter(|_| is_product),
            component: text(component, "id"),
            specific: component.get("specific").and_then(Value::as_object).cloned().unwrap_or_default(),
            data_contract: component.get("dataContract").filter(|contract| contract.is_object()).cloned(),
            outline: Some(Outline {
                id: text(component, "id"),
                name: text(component, "name"),
                path: String::new(),
                technology: text(component, "technology"),
                platform: text(component, "platform"),
                kind: text(component, "kind"),
                infrastructure_template_id: text(component, "infrastructureTemplateId"),
                use_case_template_id: text(component, "useCaseTemplateId"),
                misspelt: Vec::new(),
            }),
        }
    }
}

/// Components and nested components.
fn components(list: &[Value]) -> Vec<&Object> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> = list.iter().collect();
    while let Some(value) = open.pop() {
        let Some(component) = value.as_object() else { continue };
        open.extend(component.get("components").and_then(Value::as_array).into_iter().flatten());
        found.push(component);
    }
    found
}

fn text(object: &Object, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "urn:dmb:utm:port:1";

    fn of(descriptor: &Value) -> Subject {
        Subject::of(descriptor, TEMPLATE, &Limits::default())
    }

    #[test]
    fn the_component_is_found_in_every_form_of_a_descriptor() {
        let port = json!({ "id": "port", "name": "Port", "technology": "S3", "useCaseTemplateId": TEMPLATE,
            "specific": { "table": "t" }, "dataContract": { "schema": [] } });
        let product = json!({ "id": "product", "components": [
            { "id": "other", "useCaseTemplateId": "urn:x", "components": [port] }, "no component", null] });
        let wrapped = json!({ "dataProduct": product, "componentIdToProvision": "port" });
        let text = json!(wrapped.to_string());
        for descriptor in [&product, &wrapped, &text] {
            let subject = of(descriptor);
            assert_eq!(subject.product.as_deref(), Some("product"), "{descriptor}");
            assert_eq!(subject.component.as_deref(), Some("port"), "{descriptor}");
            assert_eq!(subject.specific["table"], "t", "{descriptor}");
            assert_eq!(subject.data_contract, Some(json!({ "schema": [] })), "{descriptor}");
            assert_eq!(subject.outline.unwrap().technology.as_deref(), Some("S3"), "{descriptor}");
        }
        let alone = of(&port);
        assert_eq!((alone.product, alone.component.as_deref()), (None, Some("port")));
    }

    #[test]
    fn other_values_name_no_component() {
        let two = json!({ "id": "p", "components": [
            { "id": "a", "useCaseTemplateId": TEMPLATE }, { "id": "b", "useCaseTemplateId": TEMPLATE }] });
        for (descriptor, product) in [
            (json!({ "id": "urn:dmb:dp:finance:cashflow:0" }), Some("urn:dmb:dp:finance:cashflow:0")),
            (two, Some("p")),
            (json!({ "dataProduct": { "id": "p" }, "componentIdToProvision": "a" }), Some("p")),
            (json!({ "dataProduct": [], "componentIdToProvision": 1 }), None),
            (json!({ "id": 1, "components": {} }), None),
            (json!("- not\n- a mapping"), None),
            (json!("{{ templated }}: ["), None),
            (json!([1]), None),
            (json!(null), None),
        ] {
            let expected = Subject { product: product.map(str::to_owned), ..Subject::default() };
            assert_eq!(of(&descriptor), expected, "{descriptor}");
        }
    }
}
