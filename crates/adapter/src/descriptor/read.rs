//! Reads a document into the model. Written by hand, because reading must continue after the first mistake.
//!
//! First every component is listed without problems ([`Index`]). Then our components are read: all their problems are
//! reported, and no problems of others.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::document::{Entry, Node, Position, Tree, object, short};
use super::index::{Index, Place};
use super::model::ROUTING;
use super::problems::{Problems, is_typo};
use super::{
    Component, ComponentKind, DataProduct, DescriptorKind, Faults, Identifier, InvalidIdentifier, Object,
    Outline, Problem, Scope, Strictness, Tag, Unread, contract, graph, rules,
};

/// The result of reading a document.
pub(super) struct Read {
    pub(super) product: DataProduct,
    pub(super) scope: Scope,
    /// The order of all components.
    pub(super) sequence: graph::Sequence,
    /// The components of a data product that are not ours.
    pub(super) others: Vec<Outline>,
}

/// The components to read.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// All that are ours.
    Ours,
    /// The component with this id, and our components in it; none if the id could not be read.
    One(Option<&'a Identifier>),
}

/// Reads the root of a document. `ours` decides whose a component is.
pub(super) fn descriptor(
    kind: DescriptorKind,
    root: &Node,
    ours: &dyn Fn(&Outline) -> bool,
    problems: &mut Problems,
) -> Option<Read> {
    let Some(fields) = Fields::of(root, "", root.at) else {
        problems.add(|| {
            Problem::new("", format!("the descriptor is {} and not a mapping", root.kind()))
                .at(root.at)
                .remedy("start it with `name: value` lines")
        });
        return None;
    };
    let shape = fields.shape();
    if kind != DescriptorKind::Component {
        if shape == Some(DescriptorKind::Component) {
            problems.add(|| {
                Problem::new("", "this is the descriptor of a component, sent as one of a data product")
                    .at(root.at)
                    .remedy(
                        "send `descriptorKind: COMPONENT_DESCRIPTOR`, or only what is under `dataProduct`",
                    )
            });
            return None;
        }
        let read = product(&fields, Wanted::Ours, ours, problems)?;
        return Some(Read {
            product: read.product,
            scope: Scope::DataProduct,
            sequence: read.sequence,
            others: read.others,
        });
    }
    if shape == Some(DescriptorKind::DataProduct) {
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
    // In a short form, check only what is read.
    let short: &[&str] = &["dataProduct", "componentIdToProvision"];
    let keys = (!problems.is_strict()).then_some(short);
    root.report_flaws("", keys, "dataProduct", problems);
    let wanted = fields.identifier("componentIdToProvision", COMPONENT, problems);
    let read = match fields.get("dataProduct") {
        None => {
            problems.add(|| fields.missing("dataProduct"));
            None
        }
        Some(entry) => match Fields::of(&entry.node, "dataProduct", entry.at) {
            Some(fields) => product(&fields, Wanted::One(wanted.as_ref()), ours, problems),
            None => {
                problems.add(|| fields.wrong_kind(entry, "a mapping"));
                None
            }
        },
    };
    let read = read?;
    let (wanted, entry) = (wanted?, fields.get("componentIdToProvision")?);
    if read.index.find(wanted.as_str()).is_none() {
        // Its components are unknown, which has its own problem.
        if !read.is_listed && !problems.is_empty() {
            return None;
        }
        let close = closest(&read.index, wanted.as_str(), &read.product.id, problems);
        problems.add(|| {
            let problem = fields
                .problem("componentIdToProvision", "the data product has no such component")
                .at(entry.node.at);
            problem.value(&wanted).remedy(did_you_mean(close, "use the `id` of one of its components"))
        });
        return None;
    }
    let scope = Scope::Component(wanted);
    Some(Read { product: read.product, scope, sequence: read.sequence, others: Vec::new() })
}

/// The result of reading a data product.
struct ReadProduct<'a> {
    product: DataProduct,
    sequence: graph::Sequence,
    others: Vec<Outline>,
    index: Index<'a>,
    /// Whether its components are one valid list.
    is_listed: bool,
}

fn product<'a>(
    fields: &Fields<'a>,
    wanted: Wanted<'_>,
    ours: &dyn Fn(&Outline) -> bool,
    problems: &mut Problems,
) -> Option<ReadProduct<'a>> {
    let short: &[&str] = &["id", "environment", "components"];
    let keys = (!problems.is_strict()).then_some(short);
    fields.node.report_flaws(fields.path, keys, "components", problems);
    let id = fields.identifier("id", PRODUCT, problems);
    if let (Some(id), Some(entry)) = (&id, fields.get("id"))
        && id.urn().is_some()
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
        && ComponentKind::of(kind).is_standard()
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
        // A placeholder: the problem is recorded, and nothing is returned.
        id: id.clone().unwrap_or_else(Identifier::placeholder),
        name: fields.required_text("name", problems).unwrap_or_default(),
        description: fields.text("description", problems).unwrap_or_default(),
        version: fields.required_version(id.as_ref(), problems),
        environment: fields.required_text("environment", problems),
        domain: fields.text("domain", problems),
        owner: fields.first_text(&["dataProductOwner", "projectOwner"], problems),
        dev_group: fields.first_text(&["devGroup", "ownerGroup"], problems),
        tags: fields.tags(problems),
        specific: fields.object("specific", problems),
        components: Vec::new(),
        published: BTreeMap::new(),
    };
    rules::check(&product, fields, problems);
    let index = fields.components(problems);
    let (selection, others) = Selection::of(&index, wanted, ours, problems.strictness());
    selection.report_repetition(&index, problems);
    let mut reader = Reader {
        index: &index,
        product: id.as_ref(),
        version: product.version.as_deref(),
        is_ordered: matches!(wanted, Wanted::Ours),
    };
    let mut numbers = Vec::new();
    // The dependencies of the components that are read.
    let mut named = BTreeSet::new();
    let mut edges = vec![Vec::new(); index.places.len()];
    for (number, place) in index.places.iter().enumerate() {
        let Some(whose) = selection.whose(number) else { continue };
        let read = match whose {
            Whose::Ours => reader.component(place, problems),
            // Its problems are not reported.
            Whose::Others => reader.component(place, &mut Problems::new(Strictness::Short)),
        };
        if let Some((component, dependencies)) = read {
            product.components.push(component);
            numbers.push(number);
            if whose == Whose::Ours
                && let Some(edges) = edges.get_mut(number)
            {
                named.extend(dependencies.iter().map(|dependency| dependency.on));
                let known = |it: &graph::Dependency| selection.whose(it.on) == Some(Whose::Ours);
                *edges = dependencies.into_iter().filter(known).collect();
            }
        }
    }
    if matches!(wanted, Wanted::One(_)) && problems.strictness() == Strictness::Full {
        let named = named.into_iter().filter(|number| selection.whose(*number).is_none());
        product.components.extend(reader.beside(named, ours));
    }
    let depended = product.components.iter().flat_map(|component| &component.depends_on);
    let depended: BTreeSet<String> = depended.map(Identifier::to_string).collect();
    let published = depended.into_iter().filter_map(|id| {
        let info = index.places.get(index.find(&id)?)?.info()?;
        Some((id, info))
    });
    product.published = published.collect();
    // A data product without a valid id is read only to find other problems.
    if id.is_none() && !problems.is_strict() {
        return None;
    }
    if problems.is_strict() {
        let name = |number: usize| index.places.get(number).and_then(|place| place.id).unwrap_or_default();
        graph::report_cycles(&edges, name, problems);
    }
    let read: HashMap<usize, usize> = numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect();
    let parents: Vec<Option<usize>> = index.places.iter().map(|place| place.parent).collect();
    let sequence = match wanted {
        Wanted::One(_) => graph::Sequence::one_by_one(numbers.len()),
        Wanted::Ours => graph::Sequence::of(&index.edges(), &parents, |place| read.get(&place).copied()),
    };
    let mut lists = fields.entries.iter().filter(|entry| entry.key == "components");
    let is_listed =
        lists.next().is_some_and(|it| matches!(it.node.tree, Tree::List(_))) && lists.next().is_none();
    Some(ReadProduct { product, sequence, others, index, is_listed })
}

/// The owner of a component that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Another adapter's, or formerly ours: read in case it has a stored deployment.
    Others,
}

/// The components to read.
struct Selection(Vec<Option<Whose>>);

impl Selection {
    /// Also returns the outlines of a data product's components that are not ours.
    fn of(
        index: &Index<'_>,
        wanted: Wanted<'_>,
        ours: &dyn Fn(&Outline) -> bool,
        strictness: Strictness,
    ) -> (Self, Vec<Outline>) {
        let mut selected = vec![None; index.places.len()];
        let mut others = Vec::new();
        match wanted {
            Wanted::Ours => {
                for (place, selected) in index.places.iter().zip(&mut selected) {
                    let outline = place.outline();
                    if ours(&outline) {
                        *selected = Some(Whose::Ours);
                    } else {
                        others.push(outline);
                        let short = strictness == Strictness::Short;
                        *selected = (short && place.id.is_some()).then_some(Whose::Others);
                    }
                }
            }
            Wanted::One(id) => {
                let is_wanted =
                    |place: &Place<'_>| place.id.is_some() && place.id == id.map(Identifier::as_str);
                let mut several = index.places.iter().enumerate().filter(|(_, place)| is_wanted(place));
                let first = several.next();
                // A neighbour with the same id by mistake is another component.
                let routed = first.into_iter().chain(several).find(|(_, place)| ours(&place.outline()));
                if let Some((number, _)) = routed.or(first) {
                    let inside = |place: &Place<'_>, selected: &[Option<Whose>]| {
                        place.parent.and_then(|parent| *selected.get(parent)?).is_some()
                    };
                    let mut within = vec![None; index.places.len()];
                    for (at, place) in index.places.iter().enumerate() {
                        let (here, inside) = (at == number, inside(place, &within));
                        if let Some(within) = within.get_mut(at) {
                            *within = (here || inside).then_some(Whose::Ours);
                        }
                        let concerned =
                            here || (inside && strictness == Strictness::Full && ours(&place.outline()));
                        if let Some(selected) = selected.get_mut(at) {
                            *selected = concerned.then_some(Whose::Ours);
                        }
                    }
                }
            }
        }
        let mut selection = Self(selected);
        if strictness == Strictness::Short {
            selection.keep_one_of_each(index);
        }
        (selection, others)
    }

    fn whose(&self, number: usize) -> Option<Whose> {
        self.0.get(number).copied().flatten()
    }

    /// Keeps one component of each id: the first that is ours, or else the first in the document.
    fn keep_one_of_each(&mut self, index: &Index<'_>) {
        let mut seen: HashSet<&str> = HashSet::new();
        for whose in [Whose::Ours, Whose::Others] {
            for (place, selected) in index.places.iter().zip(&mut self.0) {
                if *selected == Some(whose)
                    && let Some(id) = place.id
                    && !seen.insert(id)
                {
                    *selected = None;
                }
            }
        }
    }

    /// Reports our ids that another component also has.
    fn report_repetition(&self, index: &Index<'_>, problems: &mut Problems) {
        if !problems.is_strict() {
            return;
        }
        let of_ours = index.places.iter().enumerate().filter(|(number, _)| self.whose(*number).is_some());
        let of_ours: HashSet<&str> = of_ours.filter_map(|(_, place)| place.id).collect();
        for (number, place) in index.places.iter().enumerate() {
            let Some(id) = place.id.filter(|id| of_ours.contains(id)) else { continue };
            let Some(first) = index.find(id).filter(|first| *first != number) else { continue };
            let first = index.places.get(first).map_or("", |first| first.path.as_str());
            problems.add(|| {
                let at = Fields::of(place.node, &place.path, place.at())
                    .and_then(|fields| fields.get("id").map(|entry| entry.node.at));
                Problem::new("id", "two components have the same identifier")
                    .under(&place.path)
                    .at(at.unwrap_or(place.at()))
                    .value(id)
                    .remedy(format!("change one; the first is `{first}`"))
            });
        }
    }
}

/// Reads components.
struct Reader<'a> {
    index: &'a Index<'a>,
    /// The id of the data product, if it could be read.
    product: Option<&'a Identifier>,
    /// Version of the data product.
    version: Option<&'a str>,
    /// Whether components are processed in the order of `dependsOn`; for a single component, the caller handles that.
    is_ordered: bool,
}

impl Reader<'_> {
    /// Reads a component, unless it has no identifier, with its dependencies.
    fn component(
        &mut self,
        place: &Place<'_>,
        problems: &mut Problems,
    ) -> Option<(Component, Vec<graph::Dependency>)> {
        let Some(fields) = Fields::of(place.node, &place.path, place.at()) else {
            problems.add(|| {
                let what = place.node.kind();
                Problem::new(place.path.as_str(), format!("a component is a mapping, not {what}"))
                    .at(place.at())
                    .remedy("write `id`, `name` and `kind` of the component, each on a line of its own")
            });
            return None;
        };
        let fields = &fields;
        let short: &[&str] = &["id"];
        let keys = (!problems.is_strict()).then_some(short);
        place.node.report_flaws(&place.path, keys, "components", problems);
        let id = fields.identifier("id", COMPONENT, problems);
        if let (Some(id), Some(product)) = (&id, self.product)
            && id == product
        {
            problems.ask(|| {
                fields
                    .problem("id", "the component has the identifier of its data product")
                    .at(fields.get("id").map_or(fields.at, |entry| entry.node.at))
                    .value(id)
                    .remedy("give the component an identifier of its own")
            });
        }
        if let Some(entry) = fields.get("components")
            && !matches!(entry.node.tree, Tree::List(_))
        {
            problems.ask(|| fields.wrong_kind(entry, "a list"));
        }
        let dependencies = self.dependencies(fields, problems);
        let mut apart = problems.apart();
        let data_contract = contract::data_contract(fields, &mut apart);
        let of_contract = problems.close(apart, fields.path);
        let mut apart = problems.apart();
        let sample_data = contract::sample_data(fields, data_contract.as_ref(), &mut apart);
        let faults = Faults { contract: of_contract, sample: problems.close(apart, fields.path) };
        let mut component = Component {
            id: id.clone().unwrap_or_else(Identifier::placeholder),
            kind: kind(fields, problems),
            name: fields.required_text("name", problems).unwrap_or_default(),
            description: fields.text("description", problems).unwrap_or_default(),
            version: fields.version(self.product, problems),
            infrastructure_template_id: fields.text("infrastructureTemplateId", problems),
            use_case_template_id: fields.text("useCaseTemplateId", problems),
            platform: fields.text("platform", problems),
            technology: fields.text("technology", problems),
            depends_on: dependencies.iter().map(|dependency| dependency.id.clone()).collect(),
            sample_data,
            data_contract,
            faults,
            tags: fields.tags(problems),
            specific: fields.object("specific", problems),
            misspelt: place.outline().misspelt,
            unread: if problems.is_strict() { Vec::new() } else { unread(fields) },
            path: fields.path.to_owned(),
        };
        rules::check(&component, fields, problems);
        if fields.get("version").is_none() {
            component.version = self.version.map(str::to_owned);
        }
        // A component without a valid id is read only to find other problems.
        (id.is_some() || problems.is_strict()).then_some((component, dependencies))
    }

    /// Those of the components with these numbers that are ours and valid. They are compared with the requested
    /// component; their own problems belong to other requests.
    fn beside(
        &mut self,
        numbers: impl Iterator<Item = usize>,
        ours: &dyn Fn(&Outline) -> bool,
    ) -> Vec<Component> {
        let index = self.index;
        let mut places = numbers.filter_map(|number| index.places.get(number)).peekable();
        if places.peek().is_none() {
            return Vec::new();
        }
        let mut known: HashMap<&str, usize> = HashMap::new();
        for id in index.ids() {
            *known.entry(id).or_default() += 1;
        }
        let is_only = |place: &&Place<'_>| place.id.is_some_and(|id| known.get(id) == Some(&1));
        places
            .filter(is_only)
            .filter(|place| ours(&place.outline()))
            .filter_map(|place| {
                let mut unsaid = Problems::new(Strictness::Full);
                let (component, _) = self.component(place, &mut unsaid)?;
                unsaid.is_empty().then_some(component)
            })
            .collect()
    }

    /// `dependsOn`, as far as the ids are in the document. Other ids may belong to another data product, unless their
    /// URN names this one.
    fn dependencies(&self, fields: &Fields<'_>, problems: &mut Problems) -> Vec<graph::Dependency> {
        let mut depends_on = Vec::new();
        for (path, node) in fields.list("dependsOn", problems) {
            if node.is_empty() {
                continue;
            }
            let Some(text) = node.text() else {
                problems.ask(|| {
                    Problem::new(path, format!("an identifier is a text, not {}", node.kind()))
                        .at(node.at)
                        .remedy("write the `id` of a component")
                });
                continue;
            };
            let id = match text.parse::<Identifier>() {
                Ok(id) => id,
                Err(why) => {
                    problems.ask(|| invalid_identifier(path, text, why, COMPONENT).at(node.at));
                    continue;
                }
            };
            if Some(&id) == self.product {
                problems.ask(|| {
                    Problem::new(path, "a component cannot depend on its own data product")
                        .at(node.at)
                        .value(&id)
                        .remedy("name the components it depends on")
                });
            } else if let Some(on) = self.index.find(id.as_str()) {
                depends_on.push(graph::Dependency { id, on, path, at: node.at });
            } else if let Some(product) = self.product.filter(|product| id.belongs_to(product))
                && problems.is_strict()
            {
                let close = closest(self.index, id.as_str(), product, problems);
                if self.is_ordered || close.is_some() {
                    problems.ask(|| {
                        Problem::new(path, "the data product has no such component")
                            .at(node.at)
                            .value(&id)
                            .remedy(did_you_mean(close, "use the `id` of one of its components"))
                    });
                }
            }
        }
        depends_on
    }
}

/// The kind, which may be any text. The target decides whether it is required.
fn kind(fields: &Fields<'_>, problems: &mut Problems) -> ComponentKind {
    let Some(entry) = fields.get("kind") else { return ComponentKind::Unspecified };
    let Some(text) = entry.node.text() else {
        problems.ask(|| fields.wrong_kind(entry, "a text"));
        return ComponentKind::Unspecified;
    };
    if text.chars().count() > 255 || rules::one_line(text).is_err() {
        problems.ask(|| {
            fields
                .problem("kind", "the kind is not a name")
                .at(entry.node.at)
                .value(text)
                .remedy("use at most 255 characters on one line, such as `outputport`")
        });
        return ComponentKind::Unspecified;
    }
    // A NUL is reported everywhere, and no store accepts it.
    if text.contains('\0') {
        return ComponentKind::Unspecified;
    }
    ComponentKind::of(text)
}

/// Problems of the fields that decide where a component is and what it consists of.
fn unread(fields: &Fields<'_>) -> Vec<Unread> {
    let mut unread = Vec::new();
    for field in ["kind", "specific"].into_iter().chain(ROUTING) {
        let mut found = Problems::new(Strictness::Short);
        fields.node.report_flaws(fields.path, Some(&[field]), "", &mut found);
        if let Some(entry) = fields.get(field) {
            let wanted = match (field, &entry.node.tree) {
                ("specific", Tree::Mapping(_)) => None,
                ("specific", _) => Some("a mapping"),
                (_, Tree::Mapping(_) | Tree::List(_)) | ("kind", Tree::Bool(_)) => Some("a text"),
                _ => None,
            };
            if let Some(wanted) = wanted {
                found.add(|| fields.wrong_kind(entry, wanted));
            }
        }
        unread.extend(found.into_list().into_iter().map(|problem| Unread { field, problem }));
    }
    unread
}

/// The id of the component that was probably meant instead of `wanted`, if any.
fn closest<'a>(
    index: &Index<'a>,
    wanted: &str,
    product: &Identifier,
    problems: &mut Problems,
) -> Option<&'a str> {
    // The common prefix of all identifiers would make them look similar.
    let prefix = product.urn().map(|urn| format!("{}:", urn.identity));
    let own = |id: &'a str| match &prefix {
        Some(prefix) => id.split_once(prefix.as_str()).map_or(id, |(_, name)| name),
        None => id,
    };
    let wanted = match &prefix {
        Some(prefix) => wanted.split_once(prefix.as_str()).map_or(wanted, |(_, name)| name),
        None => wanted,
    };
    let close = problems.closest(wanted, index.ids().map(own))?;
    index.ids().find(|id| own(id) == close)
}

/// A suggestion, or another remedy.
pub(super) fn did_you_mean(close: Option<&str>, otherwise: &str) -> String {
    close.map_or_else(|| otherwise.to_owned(), |close| format!("did you mean `{close}`?"))
}

/// The form of identifiers, for remedies.
const PRODUCT: &str = "urn:dmb:dp:DOMAIN:DATA-PRODUCT:MAJOR";
const COMPONENT: &str = "urn:dmb:cmp:DOMAIN:DATA-PRODUCT:MAJOR:COMPONENT";

fn invalid_identifier(path: impl Into<String>, text: &str, why: InvalidIdentifier, shape: &str) -> Problem {
    Problem::new(path, why.to_string())
        .value(text)
        .remedy(format!("use at most {} bytes on one line, such as `{shape}`", Identifier::MAX_LENGTH))
}

/// Fields with a meaning of their own, even if they look like another one.
const STANDARD: [&str; 8] =
    ["apiVersion", "domain", "domainId", "fullyQualifiedName", "id", "kind", "name", "tags"];

/// The maximum number of keys that are compared with a missing field.
const MAX_OTHER_NAMES: usize = 100;

/// A mapping of the document.
pub(super) struct Fields<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    pub(super) path: &'a str,
    pub(super) at: Position,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: &'a Node, path: &'a str, at: Position) -> Option<Self> {
        match &node.tree {
            Tree::Mapping(entries) => Some(Self { node, entries, path, at }),
            _ => None,
        }
    }

    /// The kind of a document's root, if it is clear.
    pub(super) fn shape(&self) -> Option<DescriptorKind> {
        let has = |name: &str| self.written(name).is_some();
        let wrapped = has("dataProduct") || has("componentIdToProvision");
        let itself = has("components") || has("id");
        match (wrapped, itself) {
            (true, false) => Some(DescriptorKind::Component),
            (false, true) => Some(DescriptorKind::DataProduct),
            _ => None,
        }
    }

    /// The components of a data product. Without a list of them it cannot be used.
    fn components(&self, problems: &mut Problems) -> Index<'a> {
        match self.written("components").map(|entry| (entry, &entry.node.tree)) {
            Some((_, Tree::List(items))) => {
                let separator = if self.path.is_empty() { "" } else { "." };
                Index::of(items, &format!("{}{separator}components", self.path))
            }
            Some((entry, _)) => {
                problems.add(|| self.wrong_kind(entry, "a list"));
                Index::default()
            }
            None => {
                problems.ask(|| self.missing("components"));
                Index::default()
            }
        }
    }

    /// A field with a value; empty values count as absent, see [`Node::is_empty`].
    pub(super) fn get(&self, name: &str) -> Option<&'a Entry> {
        self.written(name).filter(|entry| !entry.node.is_empty())
    }

    /// A field that is not null, also an empty one.
    pub(super) fn written(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name).filter(|entry| entry.node.tree != Tree::Null)
    }

    /// The first fields, for finding typos.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.entries.iter().take(MAX_OTHER_NAMES)
    }

    pub(super) fn problem(&self, name: &str, message: impl Into<String>) -> Problem {
        Problem::new(name, message).under(self.path)
    }

    /// The problem of a field that is absent or empty, with the key that looks like it.
    pub(super) fn missing(&self, name: &'static str) -> Problem {
        if let Some(entry) = self.written(name) {
            return self
                .problem(name, format!("`{name}` is empty"))
                .at(entry.node.at)
                .remedy(format!("fill in `{name}`"));
        }
        let problem = self.problem(name, format!("`{name}` is missing"));
        let same = |key: &str| key.eq_ignore_ascii_case(name);
        // Two letters are similar to everything.
        let close = |entry: &&Entry| {
            let key = entry.key.as_str();
            same(key) || (name.len() > 3 && is_typo(key, name) && !STANDARD.contains(&key))
        };
        match self
            .entries
            .iter()
            .take(MAX_OTHER_NAMES)
            .filter(|entry| entry.node.tree != Tree::Null)
            .find(close)
        {
            Some(entry) => problem.at(entry.at).remedy(format!("rename `{}` to `{name}`", short(&entry.key))),
            None => problem.at(self.at).remedy(format!("add `{name}`")),
        }
    }

    pub(super) fn wrong_kind(&self, entry: &Entry, wanted: &str) -> Problem {
        let problem = self
            .problem(&entry.key, format!("`{}` is {} and should be {wanted}", entry.key, entry.node.kind()))
            .at(entry.node.at)
            .remedy(format!("write `{}` as {wanted}", entry.key));
        match entry.node.source_text() {
            Some(text) => problem.value(text),
            None => problem,
        }
    }

    /// Free text: any scalar, as written.
    pub(super) fn text(&self, name: &str, problems: &mut Problems) -> Option<String> {
        let entry = self.get(name)?;
        let text = entry.node.source_text().map(Cow::into_owned);
        if text.is_none() {
            problems.ask(|| self.wrong_kind(entry, "a text"));
        }
        text
    }

    pub(super) fn required_text(&self, name: &'static str, problems: &mut Problems) -> Option<String> {
        if self.get(name).is_none() {
            problems.ask(|| self.missing(name));
        }
        self.text(name, problems)
    }

    fn first_text(&self, names: &[&str], problems: &mut Problems) -> Option<String> {
        names.iter().find_map(|name| self.text(name, problems))
    }

    /// Elements of a list with their paths; empty if it is absent.
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
                    problems.ask(|| self.wrong_kind(entry, "a list"));
                    &[]
                }
            },
        };
        let separator = if self.path.is_empty() { "" } else { "." };
        let prefix = format!("{}{separator}{name}", self.path);
        items.iter().enumerate().map(move |(index, node)| (format!("{prefix}[{index}]"), node))
    }

    /// A mapping as JSON, empty if absent.
    pub(super) fn object(&self, name: &str, problems: &mut Problems) -> Object {
        match self.get(name).map(|entry| (entry, &entry.node.tree)) {
            None => Object::new(),
            Some((_, Tree::Mapping(entries))) => object(entries),
            Some((entry, _)) => {
                problems.ask(|| self.wrong_kind(entry, "a mapping"));
                Object::new()
            }
        }
    }

    fn identifier(&self, name: &'static str, shape: &str, problems: &mut Problems) -> Option<Identifier> {
        let Some(entry) = self.written(name) else {
            problems.add(|| self.missing(name));
            return None;
        };
        let Some(text) = entry.node.text() else {
            problems.add(|| self.wrong_kind(entry, "a text"));
            return None;
        };
        match text.parse() {
            Ok(id) => Some(id),
            Err(why) => {
                problems
                    .add(|| invalid_identifier(name, text, why, shape).at(entry.node.at).under(self.path));
                None
            }
        }
    }

    fn required_version(&self, product: Option<&Identifier>, problems: &mut Problems) -> Option<String> {
        if self.get("version").is_none() {
            problems.ask(|| self.missing("version"));
        }
        self.version(product, problems)
    }

    /// `version`; its major version must equal the one in the data product's identifier, if that has one.
    fn version(&self, product: Option<&Identifier>, problems: &mut Problems) -> Option<String> {
        let entry = self.get("version")?;
        let text = self.text("version", problems)?;
        if let Tree::Number(..) | Tree::Bool(_) = entry.node.tree {
            problems.ask(|| {
                self.wrong_kind(entry, "a text")
                    .remedy("write three numbers, such as `0.1.0`; put them in quotes when in doubt")
            });
            // One problem is enough: a missing version breaks no other rule.
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
            if let Some(fqn) = node.source_text().filter(|_| !node.is_empty()) {
                tags.push(Tag { fqn: fqn.into_owned(), source: String::new(), label_type: String::new() });
            } else if let Some(fields) = Fields::of(node, &path, node.at) {
                // Templates leave a label empty, and OpenMetadata has a `name` beside it.
                let named = if fields.get("tagFQN").is_some() { "tagFQN" } else { "name" };
                let fqn = match fields.text(named, problems) {
                    None if fields.entries.iter().all(|entry| entry.key != "tagFQN") => {
                        fields.required_text("tagFQN", problems)
                    }
                    fqn => fqn,
                };
                if let Some(fqn) = fqn {
                    tags.push(Tag {
                        fqn,
                        source: fields.text("source", problems).unwrap_or_default(),
                        label_type: fields.text("labelType", problems).unwrap_or_default(),
                    });
                }
            } else if !node.is_empty() {
                problems.ask(|| {
                    Problem::new(path.as_str(), format!("a tag is a mapping or a text, not {}", node.kind()))
                        .at(node.at)
                        .remedy("write the label as a text, or as `tagFQN` of a mapping")
                });
            }
        }
        tags
    }
}
