//! The typed reading of a document: hand-written, because it has to go on after the first mistake.

use std::borrow::Cow;
use std::collections::HashMap;

use super::document::{Entry, Node, Position, Tree, object, short};
use super::problems::{Problems, Suggestions};
use super::{
    Component, ComponentKind, DataProduct, DescriptorKind, Identifier, InvalidIdentifier, Object, Problem,
    Scope, Strictness, Tag, contract, graph, rules,
};

/// Reads the root of a document.
pub(super) fn descriptor(
    kind: DescriptorKind,
    root: &Node,
    problems: &mut Problems,
) -> Option<(DataProduct, Scope)> {
    let Some(fields) = Fields::of(root, "", root.at) else {
        problems.add(|| {
            Problem::new("", format!("the descriptor is {} and not a mapping", root.kind()))
                .at(root.at)
                .remedy("start it with `name: value` lines")
        });
        return None;
    };
    let wrapped = fields.get("dataProduct").is_some() || fields.get("componentIdToProvision").is_some();
    let itself = fields.get("components").is_some() || fields.get("id").is_some();
    if kind != DescriptorKind::Component {
        if wrapped && !itself {
            problems.add(|| {
                Problem::new("", "this is the descriptor of a component, sent as one of a data product")
                    .at(root.at)
                    .remedy(
                        "send `descriptorKind: COMPONENT_DESCRIPTOR`, or only what is under `dataProduct`",
                    )
            });
            return None;
        }
        return product(&fields, None, problems).map(|(product, _)| (product, Scope::DataProduct));
    }
    if itself && !wrapped {
        problems.add(|| {
            Problem::new("", "this is the descriptor of a data product, sent as one of a component")
                .at(root.at)
                .remedy(
                    "send `descriptorKind: DATAPRODUCT_DESCRIPTOR`, or put it under `dataProduct` and add \
                     `componentIdToProvision`",
                )
        });
        return None;
    }
    let wanted = fields.identifier("componentIdToProvision", COMPONENT, problems);
    let read = match fields.get("dataProduct") {
        None => {
            problems.add(|| fields.missing("dataProduct"));
            None
        }
        Some(entry) => match Fields::of(&entry.node, "dataProduct", entry.at) {
            Some(fields) => product(&fields, wanted.as_ref(), problems),
            None => {
                problems.add(|| fields.wrong_kind(entry, "a mapping"));
                None
            }
        },
    };
    let (product, index) = read?;
    let (wanted, entry) = (wanted?, fields.get("componentIdToProvision")?);
    if !index.places.contains_key(&wanted) {
        let close = index.closest(wanted.as_str(), &product.id, problems);
        problems.add(|| {
            let problem = fields
                .problem("componentIdToProvision", "the data product has no such component")
                .at(entry.node.at);
            problem.value(&wanted).remedy(did_you_mean(close, "use the `id` of one of its components"))
        });
        return None;
    }
    Some((product, Scope::Component(wanted)))
}

/// Reads a data product. With a `target`, everything is asked of that component only: the others are the business
/// of whoever provisions them, and are read as in a short form.
fn product(
    fields: &Fields<'_>,
    target: Option<&Identifier>,
    problems: &mut Problems,
) -> Option<(DataProduct, Index)> {
    let id = fields.identifier("id", PRODUCT, problems);
    if let (Some(id), Some(entry)) = (&id, fields.get("id"))
        && id.major().is_none()
    {
        problems.ask(|| {
            fields
                .problem("id", "the identifier does not end with the major version of the data product")
                .at(entry.node.at)
                .value(id)
                .remedy(format!("write it as `{PRODUCT}`"))
        });
    }
    if let Some(entry) = fields.get("kind")
        && let Tree::Text(kind) = &entry.node.tree
        && ComponentKind::from_name(kind.trim()).is_some()
    {
        problems.ask(|| {
            fields
                .problem("kind", "this is a component where a data product is expected")
                .at(entry.node.at)
                .value(kind)
                .remedy("put components under `components`")
        });
    }
    let mut product = DataProduct {
        // A placeholder where there is none: the problem is on the list, and nothing is returned.
        id: id.clone().unwrap_or_else(Identifier::placeholder),
        name: fields.required_text("name", problems).unwrap_or_default(),
        description: fields.text("description", problems).unwrap_or_default(),
        version: fields.version(id.as_ref(), problems),
        environment: fields.required_text("environment", problems),
        domain: fields.text("domain", problems),
        owner: fields.first_text(&["dataProductOwner", "projectOwner"], problems),
        dev_group: fields.first_text(&["devGroup", "ownerGroup"], problems),
        tags: fields.tags(problems),
        specific: fields.object("specific", problems),
        components: Vec::new(),
    };
    let mut index =
        Index { target: target.map(|target| (target.clone(), problems.strictness())), ..Index::default() };
    if fields.get("components").is_none() {
        problems.ask(|| fields.missing("components"));
    }
    rules::check(&product, fields, problems);
    let asked = problems.strictness();
    if target.is_some() {
        problems.asking(Strictness::Short);
    }
    product.components = components(fields, id.as_ref(), &mut index, problems);
    problems.asking(asked);
    let id = id?;
    graph::resolve(&mut product, &index, problems);
    Some((DataProduct { id, ..product }, index))
}

/// Components of a data product or, nested, of a component.
fn components(
    parent: &Fields<'_>,
    product: Option<&Identifier>,
    index: &mut Index,
    problems: &mut Problems,
) -> Vec<Component> {
    let mut read = Vec::new();
    for (path, node) in parent.list("components", problems) {
        let Some(fields) = Fields::of(node, &path, node.at) else {
            problems.add(|| {
                Problem::new(path.as_str(), format!("a component is a mapping, not {}", node.kind()))
                    .at(node.at)
            });
            continue;
        };
        if let Some(component) = component(&fields, product, index, problems) {
            read.push(component);
        }
    }
    read
}

fn component(
    fields: &Fields<'_>,
    product: Option<&Identifier>,
    index: &mut Index,
    problems: &mut Problems,
) -> Option<Component> {
    let id = fields.identifier("id", COMPONENT, problems);
    let before = problems.strictness();
    if let (Some(id), Some((target, asked))) = (&id, &index.target)
        && id == target
    {
        problems.asking(*asked);
    }
    if let Some(id) = &id {
        let at = fields.get("id").map_or(fields.at, |entry| entry.node.at);
        match index.places.get(id) {
            Some(first) => problems.add(|| {
                fields
                    .problem("id", "two components have the same identifier")
                    .at(at)
                    .value(id)
                    .remedy(format!("change one; the first is `{}`", first.path))
            }),
            None => index.add(id.clone(), fields, product, problems),
        }
        if let Some(product) = product
            && !id.belongs_to(product)
        {
            problems.ask(|| {
                fields
                    .problem("id", format!("the component does not belong to the data product `{product}`"))
                    .at(at)
                    .value(id)
                    .remedy(format!(
                        "start it with `urn:{}:cmp:{}:`",
                        product.namespace(),
                        product.identity()
                    ))
            });
        }
    }
    let kind = kind(fields, problems);
    let data_contract = contract::data_contract(fields, problems);
    let component = Component {
        id: id.clone().unwrap_or_else(Identifier::placeholder),
        kind: kind.unwrap_or(ComponentKind::Storage),
        name: fields.required_text("name", problems).unwrap_or_default(),
        description: fields.text("description", problems).unwrap_or_default(),
        version: fields.version(product, problems),
        infrastructure_template_id: fields.text("infrastructureTemplateId", problems),
        use_case_template_id: fields.text("useCaseTemplateId", problems),
        platform: fields.text("platform", problems),
        technology: fields.text("technology", problems),
        depends_on: id
            .as_ref()
            .and_then(|id| index.places.get(id))
            .map(|place| place.depends_on.iter().map(|dependency| dependency.id.clone()).collect())
            .unwrap_or_default(),
        sample_data: contract::sample_data(fields, data_contract.as_ref(), problems),
        data_contract,
        tags: fields.tags(problems),
        specific: fields.object("specific", problems),
        components: components(fields, product, index, problems),
        info: fields.get("info").map(|entry| entry.node.to_json()),
        path: fields.path.to_owned(),
    };
    rules::check(&component, fields, problems);
    problems.asking(before);
    (id.is_some() && kind.is_some()).then_some(component)
}

fn kind(fields: &Fields<'_>, problems: &mut Problems) -> Option<ComponentKind> {
    let Some(entry) = fields.get("kind") else {
        problems.add(|| fields.missing("kind"));
        return None;
    };
    let Tree::Text(text) = &entry.node.tree else {
        problems.add(|| fields.wrong_kind(entry, "a text"));
        return None;
    };
    let kind = ComponentKind::from_name(text.trim());
    if kind.is_none() {
        let close = problems.closest(text, ComponentKind::ALL.map(ComponentKind::name));
        problems.add(|| {
            fields
                .problem("kind", "unknown kind of component")
                .at(entry.node.at)
                .value(text)
                .remedy(did_you_mean(close, "use `outputport`, `storage`, `workload` or `observability`"))
        });
    }
    kind
}

/// "did you mean", or what else can be said.
pub(super) fn did_you_mean(close: Option<&str>, otherwise: &str) -> String {
    close.map_or_else(|| otherwise.to_owned(), |close| format!("did you mean `{close}`?"))
}

/// Every component of the document, before the model is whole.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The component that the request is about, and what is asked of it.
    target: Option<(Identifier, Strictness)>,
    /// In document order.
    pub(super) order: Vec<Identifier>,
    pub(super) places: HashMap<Identifier, Place>,
}

/// Where a component is, and what it depends on.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: String,
    /// Whether everything is asked of it.
    pub(super) strict: bool,
    /// Ids of the same data product, whether or not they exist.
    pub(super) depends_on: Vec<Dependency>,
}

#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) id: Identifier,
    pub(super) path: String,
    pub(super) at: Position,
}

impl Index {
    fn add(
        &mut self,
        id: Identifier,
        fields: &Fields<'_>,
        product: Option<&Identifier>,
        problems: &mut Problems,
    ) {
        let depends_on = dependencies(fields, product, problems);
        self.order.push(id.clone());
        self.places
            .insert(id, Place { path: fields.path.to_owned(), strict: problems.is_strict(), depends_on });
    }

    /// The component that was probably meant.
    pub(super) fn closest<'a>(
        &'a self,
        wanted: &str,
        product: &Identifier,
        problems: &mut Problems,
    ) -> Option<&'a str> {
        // What all identifiers share would make each of them look close to any other.
        let prefix = format!("{}:", product.identity());
        let name = |id: &'a str| id.split_once(prefix.as_str()).map_or(id, |(_, name)| name);
        let close = match wanted.split_once(prefix.as_str()) {
            Some((_, wanted)) => problems.closest(wanted, self.order.iter().map(|id| name(id.as_str())))?,
            None => return problems.closest(wanted, self.order.iter().map(Identifier::as_str)),
        };
        self.order.iter().map(Identifier::as_str).find(|id| name(id) == close)
    }
}

/// `dependsOn`, without the ids of other data products: what is not ours to provision is not ours to order.
fn dependencies(
    fields: &Fields<'_>,
    product: Option<&Identifier>,
    problems: &mut Problems,
) -> Vec<Dependency> {
    let mut depends_on: Vec<Dependency> = Vec::new();
    for (path, node) in fields.list("dependsOn", problems) {
        let Tree::Text(text) = &node.tree else {
            if node.tree != Tree::Null {
                problems.ask(|| {
                    Problem::new(path, format!("an identifier is a text, not {}", node.kind())).at(node.at)
                });
            }
            continue;
        };
        match text.trim().parse::<Identifier>() {
            Err(why) => problems.ask(|| invalid_identifier(path, text, why, COMPONENT).at(node.at)),
            Ok(id) if Some(&id) == product => problems.ask(|| {
                Problem::new(path, "a component cannot depend on its own data product")
                    .at(node.at)
                    .value(&id)
                    .remedy("name the components it depends on")
            }),
            Ok(id) => {
                if product.is_some_and(|product| id.belongs_to(product)) {
                    depends_on.push(Dependency { id, path, at: node.at });
                }
            }
        }
    }
    depends_on
}

/// What identifiers look like, for remedies.
const PRODUCT: &str = "urn:dmb:dp:DOMAIN:DATA-PRODUCT:MAJOR";
const COMPONENT: &str = "urn:dmb:cmp:DOMAIN:DATA-PRODUCT:MAJOR:COMPONENT";

fn invalid_identifier(path: impl Into<String>, text: &str, why: InvalidIdentifier, shape: &str) -> Problem {
    Problem::new(path, why.to_string()).value(text).remedy(format!("write it as `{shape}`"))
}

/// Keys that are looked at for what a missing field may be called instead.
const MAX_OTHER_NAMES: usize = 100;

/// A mapping of the document that is being read.
pub(super) struct Fields<'a> {
    entries: &'a [Entry],
    pub(super) path: &'a str,
    pub(super) at: Position,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: &'a Node, path: &'a str, at: Position) -> Option<Self> {
        match &node.tree {
            Tree::Mapping(entries) => Some(Self { entries, path, at }),
            _ => None,
        }
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name).filter(|entry| entry.node.tree != Tree::Null)
    }

    pub(super) fn problem(&self, name: &str, message: impl Into<String>) -> Problem {
        Problem::new(name, message).under(self.path)
    }

    /// A field that is not there, unless by another name.
    pub(super) fn missing(&self, name: &str) -> Problem {
        let problem = self.problem(name, format!("`{name}` is missing"));
        let others = self.entries.iter().take(MAX_OTHER_NAMES).map(|entry| entry.key.as_str());
        let other = match Suggestions::default().closest(name, others) {
            // Two letters are close to everything.
            Some(close) if name.len() > 3 || close.eq_ignore_ascii_case(name) => self.get(close),
            _ => None,
        };
        match other {
            Some(entry) => problem.at(entry.at).remedy(format!("rename `{}` to `{name}`", short(&entry.key))),
            None => problem.at(self.at).remedy(format!("add `{name}`")),
        }
    }

    pub(super) fn wrong_kind(&self, entry: &Entry, wanted: &str) -> Problem {
        let problem = self
            .problem(&entry.key, format!("`{}` is {} and should be {wanted}", entry.key, entry.node.kind()))
            .at(entry.node.at);
        match entry.node.source_text() {
            Some(text) => problem.value(text),
            None => problem,
        }
    }

    /// Free text: any scalar, as it was written.
    pub(super) fn text(&self, name: &str, problems: &mut Problems) -> Option<String> {
        let entry = self.get(name)?;
        let text = entry.node.source_text().map(Cow::into_owned);
        if text.is_none() {
            problems.ask(|| self.wrong_kind(entry, "a text"));
        }
        text
    }

    pub(super) fn required_text(&self, name: &str, problems: &mut Problems) -> Option<String> {
        if self.get(name).is_none() {
            problems.ask(|| self.missing(name));
        }
        self.text(name, problems)
    }

    fn first_text(&self, names: &[&str], problems: &mut Problems) -> Option<String> {
        names.iter().find_map(|name| self.text(name, problems))
    }

    /// Elements of a list with their paths; nothing when it is absent.
    pub(super) fn list(
        &self,
        name: &str,
        problems: &mut Problems,
    ) -> impl Iterator<Item = (String, &'a Node)> + use<'a> {
        let items: &'a [Node] = match self.get(name) {
            None => &[],
            Some(entry) => match &entry.node.tree {
                Tree::List(items) => items,
                _ => {
                    // Without its components a data product cannot be used for anything.
                    let problem = || self.wrong_kind(entry, "a list");
                    if name == "components" {
                        problems.add(problem)
                    } else {
                        problems.ask(problem)
                    }
                    &[]
                }
            },
        };
        let separator = if self.path.is_empty() { "" } else { "." };
        let prefix = format!("{}{separator}{name}", self.path);
        items.iter().enumerate().map(move |(index, node)| (format!("{prefix}[{index}]"), node))
    }

    /// A mapping as JSON, empty when absent.
    pub(super) fn object(&self, name: &str, problems: &mut Problems) -> Object {
        match self.get(name).map(|entry| (entry, &entry.node.tree)) {
            None => Object::new(),
            Some((_, Tree::Mapping(entries))) => object(entries),
            Some((entry, _)) => {
                let problem = || self.wrong_kind(entry, "a mapping");
                if name == "specific" {
                    problems.add(problem)
                } else {
                    problems.ask(problem)
                }
                Object::new()
            }
        }
    }

    fn identifier(&self, name: &str, shape: &str, problems: &mut Problems) -> Option<Identifier> {
        let Some(entry) = self.get(name) else {
            problems.add(|| self.missing(name));
            return None;
        };
        let Tree::Text(text) = &entry.node.tree else {
            problems.add(|| self.wrong_kind(entry, "a text"));
            return None;
        };
        match text.trim().parse() {
            Ok(id) => Some(id),
            Err(why) => {
                problems
                    .add(|| invalid_identifier(name, text, why, shape).at(entry.node.at).under(self.path));
                None
            }
        }
    }

    /// `version`, whose major is the one of the data product's identifier.
    fn version(&self, product: Option<&Identifier>, problems: &mut Problems) -> Option<String> {
        let Some(entry) = self.get("version") else {
            problems.ask(|| self.missing("version"));
            return None;
        };
        let text = self.text("version", problems)?;
        if let Tree::Number(..) | Tree::Bool(_) = entry.node.tree {
            problems.ask(|| {
                self.wrong_kind(entry, "a text")
                    .remedy("write three numbers, such as `0.1.0`; put them in quotes when in doubt")
            });
            // One problem is enough: a version that is not there breaks no other rule.
            return (!problems.is_strict()).then_some(text);
        }
        if let Some(major) = product.and_then(Identifier::major)
            && let Some(written) = rules::major(&text)
            && written != major
        {
            problems.ask(|| {
                self.problem("version", format!("the major version is not that of the data product, {major}"))
                    .at(entry.node.at)
                    .value(&text)
                    .remedy(format!("use `{major}.x.y`, or another data product"))
            });
        }
        Some(text)
    }

    pub(super) fn tags(&self, problems: &mut Problems) -> Vec<Tag> {
        let mut tags = Vec::new();
        for (path, node) in self.list("tags", problems) {
            if let Some(fqn) = node.source_text() {
                tags.push(Tag { fqn: fqn.into_owned(), source: String::new(), label_type: String::new() });
            } else if let Some(fields) = Fields::of(node, &path, node.at) {
                if let Some(fqn) = fields.required_text("tagFQN", problems) {
                    tags.push(Tag {
                        fqn,
                        source: fields.text("source", problems).unwrap_or_default(),
                        label_type: fields.text("labelType", problems).unwrap_or_default(),
                    });
                }
            } else if node.tree != Tree::Null {
                problems.ask(|| {
                    Problem::new(path.as_str(), format!("a tag is a mapping or a text, not {}", node.kind()))
                        .at(node.at)
                });
            }
        }
        tags
    }
}
