//! Comments: what people read, and below it a line that says whose the object is.
//!
//! ```text
//! Cash flows of the last ten years.
//!
//! landfall {"component":"urn:dmb:cmp:finance:cashflow:0:port","environment":"production"}
//! ```
//!
//! The last line is the mark of a role, schema, table or view; what has none, or another component's, is somebody
//! else's and stays untouched. A column has such a line only for what PostgreSQL cannot say of it: tags, and the
//! declared type. Comments are readable by whoever may connect, so nothing secret goes in.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use landfall_adapter::Owner;
use landfall_adapter::descriptor::{Identifier, Object, Tag};

const WORD: &str = "landfall ";

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// Whose it is. The schema that output ports share has the data product for a component.
    #[serde(flatten)]
    pub(super) owner: Owner,
    /// The data product of a component, where its id does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) product: Option<String>,
    /// Of a role, which every database of the cluster sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<String>,
    /// Unprovisioned, with its data kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) released: bool,
    /// Of a view: fingerprint of the query that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<String>,
    /// Of a view: fingerprint of what PostgreSQL made of that query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<String>,
    /// Tags of the component or table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Value>,
    /// Of the readers' role: `accessControlFields`, stored and shown, never interpreted.
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

    /// Whether it is one of a data product: its own, or of one of its components. A component whose identifier does not say
    /// which, or names another one, has it in its mark.
    pub(super) fn is_of(&self, product: &Identifier) -> bool {
        match &self.product {
            Some(own) => own == product.as_str(),
            None => {
                let component = self.owner.component.parse::<Identifier>();
                component.is_ok_and(|id| id == *product || id.belongs_to(product))
            }
        }
    }

    /// The mark in a comment, if there is one.
    pub(super) fn in_comment(comment: Option<&str>) -> Option<Self> {
        split(comment?).1
    }

    /// A comment with this mark.
    pub(super) fn comment(&self, text: &str) -> String {
        join(text, &serde_json::to_string(self).unwrap_or_default())
    }
}

/// What a column says beyond its type and its description.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct ColumnNote {
    /// The declared type and what belongs to it, where reading the column back would give something else.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) declared: Option<Object>,
    /// PostgreSQL's type that it was declared for: of another one it says nothing.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<String>,
    /// Tags of the column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Value>,
}

impl ColumnNote {
    /// The comment of a column; `None` when there is nothing to say.
    pub(super) fn comment(&self, text: &str) -> Option<String> {
        if *self != Self::default() {
            return Some(join(text, &serde_json::to_string(self).unwrap_or_default()));
        }
        // A description that ends like one of ours would be taken for one.
        match split::<Self>(text).1 {
            Some(_) => Some(join(text, "{}")),
            None => (!text.trim().is_empty()).then(|| text.trim().to_owned()),
        }
    }
}

/// Text and last line of a comment.
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

/// Tags as a descriptor writes them.
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
    fn a_mark_comes_back_and_cannot_be_forged_by_a_description() {
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
    fn a_column_says_only_what_it_has_to() {
        assert_eq!(ColumnNote::default().comment(" "), None);
        assert_eq!(ColumnNote::default().comment("amount"), Some("amount".to_owned()));
        let note = ColumnNote { tags: vec![Value::from("t")], ..Default::default() };
        for (note, text) in [(note.clone(), "amount"), (note, ""), (ColumnNote::default(), "landfall {}")] {
            let comment = note.comment(text).unwrap();
            assert_eq!(split::<ColumnNote>(&comment), (text, Some(note)), "{comment}");
        }
    }
}
