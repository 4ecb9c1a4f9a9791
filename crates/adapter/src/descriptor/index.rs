//! Lists every component of a document before any is read: its id, its place, and the fields that routes use.
//!
//! Nothing here reports a problem. A component may have any shape, and unreadable parts are left out.

use std::collections::HashMap;

use super::document::{Node, Position, Tree, object};
use super::model::{Misspelt, Outline, ROUTING};
use super::problems::is_typo;
use super::read::Fields;
use crate::Info;

/// The maximum number of keys that are compared with a missing field.
const MAX_KEYS: usize = 100;

/// The components of a document in document order, nested ones after their parent.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) places: Vec<Place<'a>>,
    /// The first component of each id.
    first: HashMap<&'a str, usize>,
}

/// One component.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) path: String,
    pub(super) node: &'a Node,
    /// The parent component.
    pub(super) parent: Option<usize>,
    /// Its id, if it is a text or a number.
    pub(super) id: Option<&'a str>,
    /// Ids of its dependencies, as far as they can be read.
    depends_on: Vec<&'a str>,
}

impl<'a> Index<'a> {
    /// The components in a list at `path`.
    pub(super) fn of(list: &'a [Node], path: &str) -> Self {
        let mut index = Self::default();
        index.add(list, path, None);
        index
    }

    fn add(&mut self, list: &'a [Node], prefix: &str, parent: Option<usize>) {
        for (position, node) in list.iter().enumerate() {
            let path = format!("{prefix}[{position}]");
            let number = self.places.len();
            let id = text(node, "id");
            if let Some(id) = id {
                self.first.entry(id).or_insert(number);
            }
            let nested = match child(node, "components").map(|node| &node.tree) {
                Some(Tree::List(items)) => Some((items, format!("{path}.components"))),
                _ => None,
            };
            let depends_on = match child(node, "dependsOn").map(|node| &node.tree) {
                Some(Tree::List(items)) => items.iter().filter_map(Node::text).collect(),
                _ => Vec::new(),
            };
            self.places.push(Place { path, node, parent, id, depends_on });
            if let Some((items, path)) = nested {
                self.add(items, &path, Some(number));
            }
        }
    }

    /// The first component with that id.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.first.get(id).copied()
    }

    /// Every id, in document order.
    pub(super) fn ids(&self) -> impl Iterator<Item = &'a str> {
        self.places.iter().filter_map(|place| place.id)
    }

    /// For each component, the numbers of its dependencies.
    pub(super) fn edges(&self) -> Vec<Vec<usize>> {
        let known = |place: &Place<'_>| place.depends_on.iter().filter_map(|id| self.find(id)).collect();
        self.places.iter().map(known).collect()
    }
}

impl Place<'_> {
    pub(super) fn at(&self) -> Position {
        self.node.at
    }

    /// The info that it published earlier, if the control plane sent it.
    pub(super) fn info(&self) -> Option<Info> {
        let info = child(self.node, "info")?;
        let part = |name: &str| match &child(info, name)?.tree {
            Tree::Mapping(entries) => Some(object(entries)),
            _ => None,
        };
        let (public, private) = (part("publicInfo"), part("privateInfo"));
        (public.is_some() || private.is_some())
            .then(|| Info { public: public.unwrap_or_default(), private: private.unwrap_or_default() })
    }

    /// Its outline.
    pub(super) fn outline(&self) -> Outline {
        let written = |name: &str| child(self.node, name)?.source_text().map(|text| text.trim().to_owned());
        Outline {
            id: self.id.map(str::to_owned),
            name: written("name"),
            path: self.path.clone(),
            technology: written("technology"),
            platform: written("platform"),
            kind: written("kind"),
            infrastructure_template_id: written("infrastructureTemplateId"),
            use_case_template_id: written("useCaseTemplateId"),
            misspelt: misspelt(self.node, &ROUTING),
        }
    }
}

/// Keys that look like one of `fields`, if that field is absent.
fn misspelt(node: &Node, fields: &[&'static str]) -> Vec<Misspelt> {
    let Tree::Mapping(entries) = &node.tree else { return Vec::new() };
    let missing = fields.iter().copied().filter(|field| child(node, field).is_none());
    missing
        .filter_map(|field| {
            let close = |entry: &&super::document::Entry| {
                entry.key != field && is_typo(&entry.key, field) && !fields.contains(&entry.key.as_str())
            };
            let entry = entries.iter().take(MAX_KEYS).find(close)?;
            let value = entry.node.source_text()?.trim().to_owned();
            Some(Misspelt { key: entry.key.clone(), field, value })
        })
        .collect()
}

pub(super) fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let fields = Fields::of(node, "", node.at)?;
    fields.get(name).map(|entry| &entry.node)
}

fn text<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    child(node, name)?.text()
}
