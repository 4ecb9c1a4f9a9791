//! Comments of database objects: the description for people, and below it a line that records the ownership.
//!
//! ```text
//! Cash flows of the last ten years.
//!
//! landfall {"component":"urn:dmb:cmp:finance:cashflow:0:port","environment":"production"}
//! ```
//!
//! The last line is the mark of a role, schema, table or view. Landfall does not touch an object that has no mark, or
//! the mark of another component. A column has such a line only for facts that PostgreSQL cannot store: tags, and
//! the declared type. Every role that may connect can read comments, so they contain no secrets.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use landfall_adapter::Owner;
use landfall_adapter::descriptor::{Identifier, Object, Tag};

const WORD: &str = "landfall ";

/// The content of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// The component that owns the object. For the shared schema of output ports, this is the data product.
    #[serde(flatten)]
    pub(super) owner: Owner,
    /// The data product of a component, if the component id does not contain it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) product: Option<String>,
    /// Only for a role: the component's database. Every database of the cluster sees the same roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<String>,
    /// Whether the component was unprovisioned and its data kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) released: bool,
    /// Only for a view: fingerprint of the requested query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<String>,
    /// Only for a view: fingerprint of the query as PostgreSQL stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<String>,
    /// Tags of the component or table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Value>,
    /// Only for the readers' role: `accessControlFields`, stored and shown, never interpreted.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub(super) fields: Object,
}

impl Mark {
    pub(super) fn of(owner: &Owner) -> Self {
        Self {
            owner: owner.clone(),
            product: None,
            database: None,
            released: false,
            asked: None,
            made: None,
            tags: Vec::new(),
            fields: Object::new(),
        }
    }

    /// Whether the mark belongs to the data product itself or to one of its components. The mark names the data
    /// product only if the component id does not contain it.
    pub(super) fn is_of(&self, product: &Identifier) -> bool {
        match &self.product {
            Some(own) => own == product.as_str(),
            None => {
                let component = self.owner.component.parse::<Identifier>();
                component.is_ok_and(|id| id == *product || id.belongs_to(product))
            }
        }
    }

    /// Returns the mark in a comment, if there is one.
    pub(super) fn in_comment(comment: Option<&str>) -> Option<Self> {
        split(comment?).1
    }

    /// Returns a comment with this mark.
    pub(super) fn comment(&self, text: &str) -> String {
        join(text, &serde_json::to_string(self).unwrap_or_default())
    }
}

/// The facts about a column that neither its type nor its description contains.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct ColumnNote {
    /// The declared type with its parameters, if an import of the column would give another type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) declared: Option<Object>,
    /// The PostgreSQL type that `declared` was written for. If the column has another type now, `declared` is ignored.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<String>,
    /// Tags of the column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Value>,
}

impl ColumnNote {
    /// Returns the comment of a column with the description `text` and these facts, or `None` if both are
    /// empty.
    pub(super) fn comment(&self, text: &str) -> Option<String> {
        if *self != Self::default() {
            return Some(join(text, &serde_json::to_string(self).unwrap_or_default()));
        }
        // An empty last line of facts, because otherwise the end of this description would be read as facts.
        match split::<Self>(text).1 {
            Some(_) => Some(join(text, "{}")),
            None => (!text.trim().is_empty()).then(|| text.trim().to_owned()),
        }
    }
}

/// Splits a comment into its text and the facts in its last line. `None` if the last line is not a valid mark.
pub(super) fn split<T: DeserializeOwned>(comment: &str) -> (&str, Option<T>) {
    let (text, line) = comment.rsplit_once('\n').unwrap_or(("", comment));
    match line.strip_prefix(WORD).and_then(|json| serde_json::from_str(json).ok()) {
        Some(read) => (text.trim(), Some(read)),
        None => (comment.trim(), None),
    }
}

fn join(text: &str, json: &str) -> String {
    let text = text.trim();
    let gap = if text.is_empty() { "" } else { "\n\n" };
    format!("{text}{gap}{WORD}{json}")
}

/// Returns tags in the form of a descriptor.
pub(super) fn tags(tags: &[Tag]) -> Vec<Value> {
    let tag = |tag: &Tag| {
        let mut object = Object::new();
        object.insert("tagFQN".to_owned(), Value::from(tag.fqn.as_str()));
        for (key, value) in [("source", &tag.source), ("labelType", &tag.label_type)] {
            if !value.is_empty() {
                object.insert(key.to_owned(), Value::from(value.as_str()));
            }
        }
        Value::Object(object)
    };
    tags.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_last_mark_not_one_in_the_description() {
        let owner = Owner { component: "urn:dmb:cmp:a:b:0:c".to_owned(), environment: "it's".to_owned() };
        let other =
            Owner { component: "urn:dmb:cmp:x:y:0:z".to_owned(), environment: "production".to_owned() };
        for text in ["", "Two\nlines", " padded \n", &Mark::of(&other).comment("forged")] {
            let comment = Mark::of(&owner).comment(text);
            let (read, mark) = split::<Mark>(&comment);
            assert_eq!((read, mark), (text.trim(), Some(Mark::of(&owner))), "{comment}");
        }
        assert_eq!(Mark::in_comment(Some("nothing of ours")), None);
        assert_eq!(Mark::in_comment(Some("landfall {}")), None);
        assert_eq!(Mark::in_comment(None), None);
    }

    #[test]
    fn writes_column_notes_only_when_needed() {
        assert_eq!(ColumnNote::default().comment(" "), None);
        assert_eq!(ColumnNote::default().comment("amount"), Some("amount".to_owned()));
        let note = ColumnNote { tags: vec![Value::from("t")], ..Default::default() };
        for (note, text) in [(note.clone(), "amount"), (note, ""), (ColumnNote::default(), "landfall {}")] {
            let comment = note.comment(text).unwrap();
            assert_eq!(split::<ColumnNote>(&comment), (text, Some(note)), "{comment}");
        }
    }
}
