//! Recognises the kind of a file by its shape, for users who have files and not requests.

use super::document::{Document, Tree};
use super::read::Fields;
use super::{DescriptorKind, Limits, Problem};

/// The kind of a descriptor. An unclear text counts as a data product; parsing it reports the problem.
pub fn kind_of(text: &str, limits: &Limits) -> DescriptorKind {
    let Ok(document) = Document::read(text.as_bytes(), limits) else { return DescriptorKind::DataProduct };
    let root = &document.root;
    let fields = Fields::of(root, "", root.at);
    fields.and_then(|fields| fields.shape()).unwrap_or(DescriptorKind::DataProduct)
}

/// Makes the descriptor of one component from a data product or another component descriptor. Every value stays on
/// its line, or at the same distance from the others.
pub fn of_component(text: &str, component: &str, limits: &Limits) -> Result<String, Problem> {
    let body = text.trim_start_matches('\u{feff}');
    // JSON strings are valid YAML strings.
    let id = serde_json::Value::from(component);
    if kind_of(text, limits) == DescriptorKind::DataProduct {
        return Ok(wrapped(body, &id.to_string()));
    }
    let document = Document::read(text.as_bytes(), limits)?;
    let root = &document.root;
    let named = Fields::of(root, "", root.at).and_then(|fields| fields.get("componentIdToProvision"));
    let Some(entry) = named else {
        let flow = body.trim_start().starts_with('{');
        return Ok(if flow {
            body.replacen('{', &format!("{{\"componentIdToProvision\": {id}, "), 1)
        } else {
            format!("{}\ncomponentIdToProvision: {id}\n", body.trim_end_matches(['\n', '\r']))
        });
    };
    let range = entry.node.source_range();
    match (
        matches!(entry.node.tree, Tree::Text(_) | Tree::Number(..)),
        body.get(..range.start),
        body.get(range.end..),
    ) {
        (true, Some(before), Some(after)) if !range.is_empty() => Ok(format!("{before}{id}{after}")),
        _ => Err(Problem::new("componentIdToProvision", "it is not a text that can be replaced")
            .at(entry.node.at)
            .remedy("write the id of a component there")),
    }
}

/// The same text, indented by one level.
fn wrapped(product: &str, id: &str) -> String {
    let mut text = String::from("dataProduct:\n");
    for line in product.lines().skip_while(|line| line.trim_end() == "---") {
        if !line.is_empty() {
            text.push_str("  ");
        }
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("componentIdToProvision: {id}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, Strictness, parse};
    use super::*;

    const PRODUCT: &str = "id: p\nname: P\nversion: 0.1.0\nenvironment: e\ncomponents:\n\
                           - {id: a, name: A}\n- {id: 'it''s b', name: B}\n";

    fn scope(text: &str) -> Scope {
        let read = parse(DescriptorKind::Component, text, Strictness::Full, &Limits::default(), &|_| true);
        read.unwrap_or_else(|rejected| panic!("{text}\n{:?}", rejected.problems)).scope
    }

    #[test]
    fn one_component_can_be_requested_in_either_form() {
        let limits = Limits::default();
        let expected = Scope::Component("it's b".parse().unwrap());
        let component = wrapped(PRODUCT, "a");
        let json = {
            let read = Document::read(component.as_bytes(), &limits).unwrap();
            read.root.to_json()
        };
        let without = component.replace("componentIdToProvision: a\n", "");
        let mut headless = json.clone();
        headless.as_object_mut().unwrap().remove("componentIdToProvision");
        for text in [
            PRODUCT.to_owned(),
            format!("\u{feff}---\n{PRODUCT}"),
            component.clone(),
            component.replace("Provision: a", "Provision: \"a\" # the first"),
            format!("componentIdToProvision: &x a\n{without}"),
            without,
            json.to_string(),
            format!("{json:#}"),
            headless.to_string(),
        ] {
            assert_eq!(scope(&of_component(&text, "it's b", &limits).unwrap()), expected, "{text}");
        }
        let wrong = component.replace("Provision: a", "Provision: [a]");
        assert!(of_component(&wrong, "a", &limits).is_err());
    }

    #[test]
    fn shape_decides_the_kind() {
        let limits = Limits::default();
        for (text, kind) in [
            (PRODUCT.to_owned(), DescriptorKind::DataProduct),
            (wrapped(PRODUCT, "a"), DescriptorKind::Component),
            ("dataProduct: {}".to_owned(), DescriptorKind::Component),
            ("{".to_owned(), DescriptorKind::DataProduct),
            ("[]".to_owned(), DescriptorKind::DataProduct),
        ] {
            assert_eq!(kind_of(&text, &limits), kind, "{text}");
        }
    }
}
