//! Text in, a tree with positions out: the only place that knows YAML.
//!
//! A descriptor comes from outside, so reading it has a budget: size, depth, nodes, aliases. What does not fit the
//! budget is refused before it costs anything. Positions are kept for every node, because a problem without a line
//! is of no use in a file of a thousand; the text of plain numbers is kept too, because `0.10` read as a float is
//! no longer what its author wrote.
//!
//! JSON is YAML here: `provisionInfo.request` arrives as either.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_yaml::Spanned;
use sha2::{Digest as _, Sha256};

use super::problems::Problems;
use super::{Limits, Object, Problem};

/// A parsed document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) root: Node,
}

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) tree: Tree,
    pub(super) at: Position,
    source: Range,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    /// The number and its text in the document.
    Number(Number, Box<str>),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) node: Node,
}

/// Line and column, from 1; 0 is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Bytes of the document that a scalar was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Range {
    start: u32,
    length: u32,
}

impl Document {
    /// Reads one document. `Err` is what makes the text unreadable; what is readable but ambiguous (a key that is
    /// there twice, a NUL inside a value) goes to `problems`.
    pub(super) fn read(bytes: &[u8], limits: &Limits, problems: &mut Problems) -> Result<Self, Problem> {
        let text = readable(bytes, limits)?;
        let mut root: Node = serde_yaml::from_str_with_options(text, options(limits))
            .map_err(|error| unreadable(&error, limits))?;
        if root.tree == Tree::Null {
            return Err(empty());
        }
        complete(&mut root, text, &mut String::new(), problems);
        Ok(Self { root })
    }

    /// Hash of the content, see [`super::Descriptor::digest`].
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.root.hash(&mut hash);
        hash.finalize().into()
    }

    /// Fills in line, column and value of a problem whose path is known. A path that is not in the document is
    /// located at its nearest ancestor that is.
    pub(super) fn locate(&self, mut problem: Problem) -> Problem {
        if problem.line.is_some() {
            return problem;
        }
        let mut node = &self.root;
        let mut at = node.at;
        let mut rest = problem.path.as_str();
        while !rest.is_empty() {
            let Some((entry_at, child, left)) = node.step(rest) else { break };
            at = if child.is_scalar() { child.at } else { entry_at };
            node = child;
            rest = left;
        }
        let value = if rest.is_empty() && problem.value.is_none() { node.source_text() } else { None };
        problem = problem.at(at);
        match value {
            Some(value) => problem.value(value),
            None => problem,
        }
    }
}

impl Node {
    /// Every part is preceded by what it is and how long: no two trees are hashed alike.
    fn hash(&self, hash: &mut Sha256) {
        let mut part = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match &self.tree {
            Tree::Null => part(b'0', &[]),
            Tree::Bool(value) => part(b'b', &[u8::from(*value)]),
            Tree::Number(_, text) => part(b'#', text.as_bytes()),
            Tree::Text(text) => part(b't', text.as_bytes()),
            Tree::List(items) => {
                part(b'[', &(items.len() as u64).to_le_bytes());
                for item in items {
                    item.hash(hash);
                }
            }
            Tree::Mapping(entries) => {
                let mut sorted: Vec<&Entry> = entries.iter().collect();
                sorted.sort_by_key(|entry| entry.key.as_str());
                part(b'{', &(entries.len() as u64).to_le_bytes());
                for entry in sorted {
                    hash.update((entry.key.len() as u64).to_le_bytes());
                    hash.update(entry.key.as_bytes());
                    entry.node.hash(hash);
                }
            }
        }
    }

    /// The child that a dot path names first, where its entry starts, and what is left of the path. A key may
    /// itself hold dots, so the longest key that fits wins.
    fn step<'a, 'p>(&'a self, path: &'p str) -> Option<(Position, &'a Node, &'p str)> {
        match &self.tree {
            Tree::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item.at, item, rest.strip_prefix('.').unwrap_or(rest)))
            }
            Tree::Mapping(entries) => entries
                .iter()
                .filter_map(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str())?;
                    let rest = match rest.as_bytes().first() {
                        None | Some(b'[') => rest,
                        Some(b'.') => rest.get(1..)?,
                        Some(_) => return None,
                    };
                    Some((entry.at, &entry.node, rest))
                })
                .min_by_key(|(_, _, rest)| rest.len()),
            _ => None,
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self.tree, Tree::List(_) | Tree::Mapping(_))
    }

    /// A scalar as it was written; `None` for null, lists and mappings.
    pub(super) fn source_text(&self) -> Option<Cow<'_, str>> {
        match &self.tree {
            Tree::Bool(true) => Some("true".into()),
            Tree::Bool(false) => Some("false".into()),
            Tree::Number(_, text) => Some(text.as_ref().into()),
            Tree::Text(text) => Some(text.as_str().into()),
            Tree::Null | Tree::List(_) | Tree::Mapping(_) => None,
        }
    }

    /// What the node is, for messages: "a number".
    pub(super) fn kind(&self) -> &'static str {
        match self.tree {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Number(..) => "a number",
            Tree::Text(_) => "a text",
            Tree::List(_) => "a list",
            Tree::Mapping(_) => "a mapping",
        }
    }

    /// The same as JSON.
    pub(super) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(*value),
            Tree::Number(number, _) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Tree::Mapping(entries) => Value::Object(object(entries)),
        }
    }
}

/// Entries of a mapping as JSON.
pub(super) fn object(entries: &[Entry]) -> Object {
    entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
}

/// A key that can be part of a path: short, and on one line.
pub(super) fn short(key: &str) -> Cow<'_, str> {
    let end = key.char_indices().nth(60).map(|(end, _)| end);
    if end.is_none() && !key.contains(char::is_control) {
        return key.into();
    }
    let mut short = key.get(..end.unwrap_or(key.len())).unwrap_or_default().replace(char::is_control, " ");
    if end.is_some() {
        short.push_str("...");
    }
    short.into()
}

/// The bytes as text, when they can be the text of a document at all.
fn readable<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Problem> {
    if bytes.len() > limits.max_bytes {
        return Err(Problem::new("", "the descriptor is too large")
            .value(format_args!("{} bytes", bytes.len()))
            .remedy(format!("keep it under {} bytes", limits.max_bytes)));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        Problem::new("", "the descriptor is not UTF-8 text")
            .at(end_of(&String::from_utf8_lossy(before)))
            .remedy("save it as UTF-8")
    })?;
    let text = text.trim_start_matches('\u{feff}');
    if let Some((index, control)) =
        text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))
    {
        return Err(Problem::new("", "the descriptor holds a control character")
            .at(end_of(text.get(..index).unwrap_or_default()))
            .value(format_args!("U+{:04X}", u32::from(control)))
            .remedy("remove it, or write it as an escape between double quotes"));
    }
    if text.trim().is_empty() {
        return Err(empty());
    }
    Ok(text)
}

fn empty() -> Problem {
    Problem::new("", "the descriptor is empty").remedy("send the data product as YAML")
}

/// The position just after `text`.
fn end_of(text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or_default();
    let lines = text.bytes().filter(|byte| *byte == b'\n').count();
    Position { line: saturate(lines + 1), column: saturate(last.chars().count() + 1) }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How YAML is read. Every choice here is the one without surprises: `no` is a text, `010` is a text, a tag is an
/// error, and a key that is there twice is reported (by [`complete`], with its path) instead of the last one winning.
fn options(limits: &Limits) -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: limits.max_depth.min(255),
            // More than the scanner looks ahead, so that it is the depth that is reported.
            flow_nesting_limit: 2_048,
            // A few hundred uses of one anchor are no bomb; what they expand to is limited below.
            enforce_alias_anchor_ratio: false,
            max_nodes: limits.max_nodes,
            max_events: limits.max_nodes.saturating_mul(3),
            max_aliases: limits.max_aliases,
            max_anchors: limits.max_aliases,
            max_recorded_anchor_events: limits.max_nodes,
            max_total_scalar_bytes: limits.max_scalar_bytes,
            max_documents: 1,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: limits.max_nodes,
        },
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_yaml::options::MergeKeyPolicy::Error,
        non_finite_float_policy: serde_yaml::options::NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// A parser error in the words of a problem.
fn unreadable(error: &serde_yaml::Error, limits: &Limits) -> Problem {
    use serde_yaml::Error;
    use serde_yaml::budget::BudgetBreach;

    let error = error.without_snippet();
    let problem = match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => Problem::new("", "the descriptor is nested too deeply")
                .remedy(format!("use at most {} levels", limits.max_depth)),
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::AliasAnchorRatio { .. } => {
                Problem::new("", "the descriptor has too many anchors and aliases")
                    .remedy("write the values out")
            }
            BudgetBreach::Documents { .. } => Problem::new("", "the text holds more than one YAML document")
                .remedy("remove the `---` separators and send one descriptor"),
            _ => Problem::new("", "the descriptor is too large")
                .remedy(format!("use at most {} values", limits.max_nodes)),
        },
        Error::MultipleDocuments { .. } => Problem::new("", "the text holds more than one YAML document")
            .remedy("remove the `---` separators and send one descriptor"),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            Problem::new("", "the aliases of the descriptor expand to too much")
                .remedy("write the values out")
        }
        Error::MergeKeyNotAllowed { .. } => {
            Problem::new("", "the merge key `<<` is not supported").remedy("write the merged values out")
        }
        Error::UnsupportedTag { .. } => {
            Problem::new("", "this YAML tag is not supported").remedy("remove the `!tag`")
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            Problem::new("", "an alias refers to the value it is part of").remedy("write the value out")
        }
        other => {
            let message = sentence(other);
            // The rest is told by what the message says: these errors arrive wrapped, or as text only.
            if message.contains("alias replay") || message.contains("budget breached") {
                Problem::new("", "the aliases of the descriptor expand to too much")
                    .remedy("write the values out")
            } else if message.contains(KEY) {
                Problem::new("", "the key of a mapping is not a text").remedy("write the key as a text")
            } else {
                let remedy = if message.contains("unexpected character") {
                    "put the value in quotes"
                } else if message.contains("mapping values are not allowed") {
                    "put a value with a colon in quotes, and check the indentation"
                } else if message.contains("tabs") {
                    "indent with spaces"
                } else if message.contains("<document start>") {
                    "send one document, and nothing after it"
                } else {
                    "check indentation, quotes, colons and brackets at that line"
                };
                Problem::new("", format!("the descriptor is not valid YAML: {message}")).remedy(remedy)
            }
        }
    };
    match error.location() {
        Some(location) => {
            let known = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            problem.at(Position { line: known(location.line()), column: known(location.column()) })
        }
        None => problem,
    }
}

/// The parser's message on one short line, without the position that the problem carries itself.
fn sentence(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.find(" at line ").and_then(|end| text.get(..end)).unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Second pass over a fresh tree: gives numbers their text back, and reports what YAML lets through.
fn complete(node: &mut Node, text: &str, path: &mut String, problems: &mut Problems) {
    let written = text.get(node.source.bytes());
    match &mut node.tree {
        Tree::Number(number, source) => {
            *source = written.map_or_else(|| number.to_string().into(), Into::into);
        }
        Tree::Text(value) => {
            if value.contains('\0') {
                problems.add(|| nul(path, node.at));
            }
        }
        Tree::List(items) => {
            let end = path.len();
            for (index, item) in items.iter_mut().enumerate() {
                use fmt::Write as _;
                // Writing to a String does not fail.
                let _ = write!(path, "[{index}]");
                complete(item, text, path, problems);
                path.truncate(end);
            }
        }
        Tree::Mapping(entries) => {
            report_duplicates(entries, path, problems);
            let end = path.len();
            for entry in entries {
                if end > 0 {
                    path.push('.');
                }
                path.push_str(&short(&entry.key));
                if entry.key.contains('\0') {
                    problems.add(|| nul(path, entry.at));
                }
                complete(&mut entry.node, text, path, problems);
                path.truncate(end);
            }
        }
        Tree::Null | Tree::Bool(_) => {}
    }
}

/// No database and no file name holds a NUL, so no descriptor does.
fn nul(path: &str, at: Position) -> Problem {
    Problem::new(path, "the text holds a NUL character").at(at).remedy("remove the `\\0` escape")
}

fn report_duplicates(entries: &[Entry], path: &str, problems: &mut Problems) {
    let mut seen: HashMap<&str, u32> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = seen.insert(&entry.key, entry.at.line) {
            seen.insert(&entry.key, first);
            problems.add(|| {
                Problem::new(short(&entry.key), "the key is there twice")
                    .under(path)
                    .at(entry.at)
                    .remedy(format!("remove one; the first is on line {first}"))
            });
        }
    }
}

impl Range {
    fn bytes(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start.saturating_add(self.length as usize)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Raw>::deserialize(deserializer)?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let at =
            Position { line: small(spanned.referenced.line()), column: small(spanned.referenced.column()) };
        let span = spanned.defined.span();
        let source = match (span.byte_offset(), span.byte_len()) {
            (Some(start), Some(length)) => Range { start: small(start), length: small(length) },
            _ => Range::default(),
        };
        Ok(Self { tree: spanned.value.0, at, source })
    }
}

/// A value without its position.
struct Raw(Tree);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl TreeVisitor {
    fn number(number: impl Into<Number>) -> Tree {
        Tree::Number(number.into(), Box::default())
    }
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Self::number(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Self::number(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Null, Self::number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<Key>>()? {
            let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let at = Position { line: small(key.referenced.line()), column: small(key.referenced.column()) };
            entries.push(Entry { key: key.value.0, at, node: access.next_value()? });
        }
        Ok(Tree::Mapping(entries))
    }
}

/// A key of a mapping: any scalar but null, as text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor).map(Self)
    }
}

/// What the parser's error says when a key is anything else.
const KEY: &str = "a text as the key of a mapping";

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KEY)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<String, E> {
        Ok(value)
    }
}
