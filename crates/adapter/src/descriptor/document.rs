//! From text to a tree with positions. Only this module knows YAML.
//!
//! Descriptors come from outside, so reading has limits: size, depth, nodes, aliases. A text that exceeds a limit is
//! refused before it costs much. Every node has its position, because a problem without a line does not help in a
//! file of a thousand lines. Plain numbers keep their text, because `0.10` as a float is no longer what the author
//! wrote.
//!
//! Ambiguous input (a duplicate key, a merge key, a tag) is stored as a flaw of its place. [`Node::report_flaws`]
//! reports flaws for the parts that are read, because most of a document often belongs to other adapters.
//!
//! JSON is read as YAML: `provisionInfo.request` can be either.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_yaml::{Spanned, Tagged};
use sha2::{Digest as _, Sha256};

use super::problems::Problems;
use super::{Limits, Object, Problem};

/// A parsed document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) root: Node,
}

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) tree: Tree,
    pub(super) at: Position,
    source: Range,
    /// The tag of the value, if any. After the second pass, only tags that are flaws are left.
    tag: Option<Tag>,
}

/// The meaning of a tag for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Null,
    Bool,
    Whole,
    Float,
    Text,
    Binary,
    List,
    Mapping,
    /// An unknown tag.
    Other,
    /// The value does not fit its tag.
    Wrong,
}

/// The content of a node.
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
    source: Range,
    flaw: Option<Flaw>,
}

impl Entry {
    fn of_json((key, value): (&String, &Value)) -> Self {
        Self {
            key: key.clone(),
            at: Position::default(),
            node: Node::of_json(value),
            source: Range::default(),
            flaw: None,
        }
    }
}

/// A flaw of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It is null, a list or a mapping.
    NotAText,
    /// It is the merge key, without quotes.
    Merge,
    /// It has an unknown tag.
    Tagged,
}

/// Line and column, from 1; 0 means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The byte range of a scalar in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Range {
    start: u32,
    length: u32,
}

impl Document {
    /// Reads one document. `Err` is the reason why the text is unreadable; ambiguous input is left to
    /// [`Node::report_flaws`].
    pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Problem> {
        let text = readable(bytes, limits)?;
        let (parsed, added) = with_own_tags(text);
        let mut root: Node = serde_yaml::from_str_with_options(&parsed, options(limits))
            .map_err(|error| unreadable(&error, text, added, limits))?;
        if root.tree == Tree::Null {
            return Err(empty());
        }
        complete(&mut root, &parsed, added);
        Ok(Self { root })
    }

    /// Hash of the content, see [`super::Descriptor::digest`].
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.root.hash(&mut hash);
        hash.finalize().into()
    }

    /// Sets line, column and value of a problem with a known path. A path that is not in the document gets the
    /// position of its nearest parent.
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
    /// A tree of JSON, without positions.
    pub(super) fn of_json(value: &Value) -> Self {
        let tree = match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Number(number) => Tree::Number(number.clone(), number.to_string().into()),
            Value::String(text) => Tree::Text(text.clone()),
            Value::Array(items) => Tree::List(items.iter().map(Self::of_json).collect()),
            Value::Object(object) => Tree::Mapping(object.iter().map(Entry::of_json).collect()),
        };
        Self { tree, at: Position::default(), source: Range::default(), tag: None }
    }

    /// Whether both have the same content, at any position.
    fn has_same_content(&self, other: &Self) -> bool {
        let same_entry =
            |(a, b): (&Entry, &Entry)| a.key == b.key && a.flaw == b.flaw && a.node.has_same_content(&b.node);
        self.tag == other.tag
            && match (&self.tree, &other.tree) {
                (Tree::List(a), Tree::List(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.has_same_content(b))
                }
                (Tree::Mapping(a), Tree::Mapping(b)) => a.len() == b.len() && a.iter().zip(b).all(same_entry),
                (a, b) => a == b,
            }
    }

    /// Every part is preceded by its kind and length, so different trees have different hashes.
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

    /// The child that a dot path names first, its position, and the rest of the path. A key may contain dots, so the
    /// longest matching key wins.
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

    /// Reports everything in here that is ambiguous. In the mapping itself, the value of the key `except` is left
    /// out; with `keys`, only those keys of the mapping are checked.
    pub(super) fn report_flaws(
        &self,
        path: &str,
        keys: Option<&[&str]>,
        except: &str,
        problems: &mut Problems,
    ) {
        let path = &mut path.to_owned();
        match (&self.tree, keys) {
            (Tree::Mapping(entries), Some(keys)) => {
                let of_keys = |entry: &&Entry| keys.contains(&entry.key.as_str());
                flaws_of_entries(entries.iter().filter(of_keys), path, except, problems);
            }
            (_, Some(_)) => {}
            (_, None) => flaws(self, path, except, problems),
        }
    }

    /// Whether it is empty: null, a blank text, or an empty list. Templates write these for empty inputs.
    pub(super) fn is_empty(&self) -> bool {
        match &self.tree {
            Tree::Null => true,
            Tree::Text(text) => text.trim().is_empty(),
            Tree::List(items) => items.is_empty(),
            Tree::Bool(_) | Tree::Number(..) | Tree::Mapping(_) => false,
        }
    }

    /// A text, or a number as written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Number(_, text) => Some(text.trim()),
            Tree::Text(text) => Some(text.trim()),
            Tree::Null | Tree::Bool(_) | Tree::List(_) | Tree::Mapping(_) => None,
        }
    }

    /// The byte range of a scalar in the text.
    pub(super) fn source_range(&self) -> std::ops::Range<usize> {
        self.source.bytes()
    }

    /// A scalar as written; `None` for null, lists and mappings.
    pub(super) fn source_text(&self) -> Option<Cow<'_, str>> {
        match &self.tree {
            Tree::Bool(true) => Some("true".into()),
            Tree::Bool(false) => Some("false".into()),
            Tree::Number(_, text) => Some(text.as_ref().into()),
            Tree::Text(text) => Some(text.as_str().into()),
            Tree::Null | Tree::List(_) | Tree::Mapping(_) => None,
        }
    }

    /// The kind of node, for messages: "a number".
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

    /// The node as JSON.
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

/// The bytes as text, if they can be a document.
fn readable<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Problem> {
    if bytes.len() > limits.max_bytes {
        return Err(Problem::new("", "the descriptor is too large")
            .value(format_args!("{} bytes", bytes.len()))
            .remedy(format!("keep it under {} bytes, or raise `descriptor.max_bytes`", limits.max_bytes)));
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

/// Text that was put before the document.
#[derive(Debug, Clone, Copy, Default)]
struct Added {
    lines: u32,
    bytes: u32,
}

/// The namespace of `!!int` and others in this module. With the original one, the parser would refuse a whole
/// document because of one value that does not fit its tag, even if the value is not read.
const OWN_TAGS: &str = "tag:landfall:";

/// The text with YAML's tags in our namespace, if it has any.
fn with_own_tags(text: &str) -> (Cow<'_, str>, Added) {
    let content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.lines().find(content).unwrap_or_default();
    // Directives of the document define its tags.
    if !text.contains("!!") || first.starts_with('%') {
        return (text.into(), Added::default());
    }
    let begins =
        first.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
    let begin = if begins { "" } else { "---\n" };
    let directive = format!("%TAG !! {OWN_TAGS}\n{begin}");
    let lines = saturate(directive.lines().count());
    let added = Added { lines, bytes: saturate(directive.len()) };
    (format!("{directive}{text}").into(), added)
}

/// The options of the parser, without surprises: `no` is a text, and `010` is a text. Tags, merge keys and duplicate
/// keys are accepted, and [`Node::report_flaws`] reports them where they matter.
fn options(limits: &Limits) -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: limits.max_depth.min(255),
            // More than the scanner reads ahead, so that the depth is reported.
            flow_nesting_limit: 2_048,
            // A few hundred uses of one anchor are allowed; their expansion is limited below.
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
        merge_keys: serde_yaml::options::MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: serde_yaml::options::NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

/// A parser error as a problem.
fn unreadable(error: &serde_yaml::Error, text: &str, added: Added, limits: &Limits) -> Problem {
    use serde_yaml::Error;
    use serde_yaml::budget::BudgetBreach;

    let error = error.without_snippet();
    let documents = || {
        Problem::new("", "the text holds more than one YAML document")
            .remedy("remove the `---` separators and send one descriptor")
    };
    let expansion = || {
        let most = limits.max_nodes;
        Problem::new("", "the aliases of the descriptor expand to too much").remedy(format!(
            "write the values out; they expand to at most {most} values (`descriptor.max_nodes`)"
        ))
    };
    let too_large = |most: String| Problem::new("", "the descriptor is too large").remedy(most);
    let mut tabs = false;
    let problem = match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => {
                Problem::new("", "the descriptor is nested too deeply").remedy(match limits.max_depth {
                    most @ ..255 => format!("use at most {most} levels, or raise `descriptor.max_depth`"),
                    _ => "use at most 255 levels".to_owned(),
                })
            }
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::AliasAnchorRatio { .. } => {
                let most = limits.max_aliases;
                Problem::new("", "the descriptor has too many anchors and aliases").remedy(format!(
                    "write the values out: at most {most} are read, or raise `descriptor.max_aliases`"
                ))
            }
            BudgetBreach::Documents { .. } => documents(),
            BudgetBreach::ScalarBytes { .. } => too_large(format!(
                "use at most {} bytes of text in values, or raise `descriptor.max_scalar_bytes`",
                limits.max_scalar_bytes
            )),
            _ => {
                too_large(format!("use at most {} values, or raise `descriptor.max_nodes`", limits.max_nodes))
            }
        },
        Error::MultipleDocuments { .. } => documents(),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => expansion(),
        Error::UnsupportedTag { .. } => unsupported_tag(""),
        Error::TaggedScalarCannotDeserializeIntoString { .. } => wrong_tag(""),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            Problem::new("", "an alias refers to the value it is part of").remedy("write the value out")
        }
        other => {
            let message = sentence(other);
            // These errors are wrapped, or only a text, so the message decides.
            if message.contains("alias replay") || message.contains("budget breached") {
                expansion()
            } else {
                tabs = ["tabs", "a tab"].iter().any(|word| message.contains(word));
                let remedy = if message.contains("unexpected character") {
                    "put the value in quotes"
                } else if message.contains("mapping values are not allowed") {
                    "put a value with a colon in quotes, and check the indentation"
                } else if tabs {
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
    let Some(location) = error.location() else { return problem };
    let known = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let line = known(location.line()).saturating_sub(added.lines);
    let at = Position { line, column: known(location.column()) };
    problem.at(if tabs { tab_after(text, at.line).unwrap_or(at) } else { at })
}

/// The position of a tab in indentation: the first tab at the beginning of a line from `line` on. The parser
/// reports only the beginning of the value before the tab.
fn tab_after(text: &str, line: u32) -> Option<Position> {
    let from = (line as usize).saturating_sub(1);
    text.split('\n').enumerate().skip(from).find_map(|(index, content)| {
        let indent = content.len() - content.trim_start_matches([' ', '\t']).len();
        let column = content.get(..indent)?.find('\t')?;
        Some(Position { line: saturate(index + 1), column: saturate(column + 1) })
    })
}

fn unsupported_tag(path: &str) -> Problem {
    Problem::new(path, "this YAML tag is not supported").remedy("remove the `!tag`")
}

fn wrong_tag(path: &str) -> Problem {
    Problem::new(path, "the value is not what its YAML tag says")
        .remedy("remove the tag, or correct the value")
}

/// The parser's message on one short line, without the position.
fn sentence(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.find(" at line ").and_then(|end| text.get(..end)).unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Second pass over a new tree: restores the text of numbers, applies tags, distinguishes the merge key from the text
/// `<<`, and subtracts the text before the document from all positions.
fn complete(node: &mut Node, text: &str, added: Added) {
    if let Some(tag) = node.tag {
        let written = text.get(node.source.bytes()).unwrap_or_default();
        node.tag = match tag.applied(&node.tree, written.trim()) {
            Ok(tree) => {
                node.tree = tree.unwrap_or_else(|| std::mem::replace(&mut node.tree, Tree::Null));
                None
            }
            Err(flaw) => Some(flaw),
        };
    }
    match &mut node.tree {
        Tree::Number(number, source) => {
            let written = text.get(node.source.bytes());
            *source = written.map_or_else(|| number.to_string().into(), Into::into);
        }
        Tree::List(items) => items.iter_mut().for_each(|item| complete(item, text, added)),
        Tree::Mapping(entries) => {
            for entry in entries {
                if entry.key == "<<" && entry.flaw.is_none() {
                    let written = text.get(entry.source.bytes()).unwrap_or_default();
                    entry.flaw = (!written.starts_with(['"', '\''])).then_some(Flaw::Merge);
                }
                entry.at = entry.at.without(added);
                complete(&mut entry.node, text, added);
            }
        }
        Tree::Text(_) | Tree::Null | Tree::Bool(_) => {}
    }
    node.at = node.at.without(added);
    node.source.start = node.source.start.saturating_sub(added.bytes);
}

impl Position {
    /// The position without the text before the document.
    fn without(self, added: Added) -> Self {
        Self { line: self.line.saturating_sub(added.lines), ..self }
    }
}

impl Tag {
    fn of(tag: &str) -> Option<Self> {
        if tag == "!" {
            return None;
        }
        let name = [OWN_TAGS, "tag:yaml.org,2002:", "!!"].iter().find_map(|space| tag.strip_prefix(space));
        Some(match name {
            Some("null") => Self::Null,
            Some("bool") => Self::Bool,
            Some("int") => Self::Whole,
            Some("float") => Self::Float,
            // JSON has no times.
            Some("str" | "timestamp") => Self::Text,
            Some("binary") => Self::Binary,
            Some("seq") => Self::List,
            Some("map") => Self::Mapping,
            _ => Self::Other,
        })
    }

    /// The value after its tag is applied, `None` if it does not change, or the flaw. `written` is the scalar in the
    /// document.
    fn applied(self, tree: &Tree, written: &str) -> Result<Option<Tree>, Self> {
        let number = |number: Option<Number>| {
            number.map(|number| Some(Tree::Number(number, Box::default()))).ok_or(Self::Wrong)
        };
        match (self, tree) {
            (Self::Other | Self::Wrong, _) => Err(self),
            (Self::List, Tree::List(_)) | (Self::Mapping, Tree::Mapping(_)) => Ok(None),
            (_, Tree::List(_) | Tree::Mapping(_)) | (Self::List | Self::Mapping, _) => Err(Self::Wrong),
            (Self::Null, _) => Ok(Some(Tree::Null)),
            (Self::Text, Tree::Text(_)) => Ok(None),
            (Self::Text, _) => Ok(Some(Tree::Text(written.to_owned()))),
            (Self::Binary, Tree::Text(text)) => {
                decoded(text).map(|text| Some(Tree::Text(text))).ok_or(Self::Wrong)
            }
            (Self::Bool, Tree::Bool(_)) => Ok(None),
            (Self::Bool, Tree::Text(text)) => match text.trim() {
                "true" | "True" | "TRUE" => Ok(Some(Tree::Bool(true))),
                "false" | "False" | "FALSE" => Ok(Some(Tree::Bool(false))),
                _ => Err(Self::Wrong),
            },
            (Self::Whole, Tree::Number(number, _)) if !number.is_f64() => Ok(None),
            (Self::Whole, Tree::Text(text)) => {
                let text = text.trim();
                let signed = || text.parse::<i64>().ok().map(Number::from);
                number(text.parse::<u64>().ok().map(Number::from).or_else(signed))
            }
            (Self::Float, Tree::Number(found, _)) => number(found.as_f64().and_then(Number::from_f64)),
            (Self::Float, Tree::Text(text)) => {
                let text = text.trim();
                if matches!(text, ".inf" | "-.inf" | ".nan") {
                    return Ok(None);
                }
                number(text.parse().ok().and_then(Number::from_f64))
            }
            (Self::Bool | Self::Whole | Self::Float | Self::Binary, _) => Err(Self::Wrong),
        }
    }
}

/// The text in Base64, if it is valid.
fn decoded(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// See [`Node::report_flaws`].
fn flaws(node: &Node, path: &mut String, except: &str, problems: &mut Problems) {
    match node.tag {
        Some(Tag::Wrong) => problems.add(|| wrong_tag(path).at(node.at)),
        Some(_) => problems.add(|| unsupported_tag(path).at(node.at)),
        None => {}
    }
    match &node.tree {
        Tree::Text(value) => {
            if value.contains('\0') {
                problems.add(|| nul(path, node.at));
            }
        }
        Tree::List(items) => {
            let end = path.len();
            for (index, item) in items.iter().enumerate() {
                use fmt::Write as _;
                // Writing to a String does not fail.
                let _ = write!(path, "[{index}]");
                flaws(item, path, "", problems);
                path.truncate(end);
            }
        }
        Tree::Mapping(entries) => {
            flaws_of_entries(entries.iter(), path, except, problems);
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(..) => {}
    }
}

fn flaws_of_entries<'a>(
    entries: impl Iterator<Item = &'a Entry> + Clone,
    path: &mut String,
    except: &str,
    problems: &mut Problems,
) {
    report_duplicates(entries.clone(), path, problems);
    let end = path.len();
    for entry in entries {
        if let Some(flaw) = entry.flaw {
            problems.add(|| flaw.problem(path).at(entry.at));
        }
        if end > 0 {
            path.push('.');
        }
        path.push_str(&short(&entry.key));
        if entry.key.contains('\0') {
            problems.add(|| nul(path, entry.at));
        }
        if except.is_empty() || entry.key != except {
            flaws(&entry.node, path, "", problems);
        }
        path.truncate(end);
    }
}

impl Flaw {
    fn problem(self, path: &str) -> Problem {
        match self {
            Self::NotAText => {
                Problem::new(path, "the key of a mapping is not a text").remedy("write the key as a text")
            }
            Self::Merge => Problem::new(path, "the merge key `<<` is not supported")
                .remedy("write the merged values out"),
            Self::Tagged => unsupported_tag(path),
        }
    }
}

/// The problem of a text with NUL, which no database and no file name can contain.
fn nul(path: &str, at: Position) -> Problem {
    Problem::new(path, "the text holds a NUL character").at(at).remedy("remove the `\\0` escape")
}

/// Reports duplicate keys. A duplicate with the same value, as some templates write it, is not ambiguous.
fn report_duplicates<'a>(entries: impl Iterator<Item = &'a Entry>, path: &str, problems: &mut Problems) {
    let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(entries.size_hint().1.unwrap_or_default());
    for entry in entries.filter(|entry| entry.flaw.is_none()) {
        let first = *seen.entry(&entry.key).or_insert(entry);
        if !std::ptr::eq(first, entry) && !first.node.has_same_content(&entry.node) {
            problems.add(|| {
                Problem::new(short(&entry.key), "the key exists twice")
                    .under(path)
                    .at(entry.at)
                    .remedy(format!("remove one; the first is on line {}", first.at.line))
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
        let Spanned { value: Tagged(Raw(tree), tag), referenced, defined } =
            Spanned::<Tagged<Raw>>::deserialize(deserializer)?;
        let tag = tag.and_then(|tag| Tag::of(&tag));
        Ok(Self { tree, at: position(&referenced), source: range(&defined), tag })
    }
}

fn position(location: &serde_yaml::Location) -> Position {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: small(location.line()), column: small(location.column()) }
}

fn range(location: &serde_yaml::Location) -> Range {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let span = location.span();
    match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(length)) => Range { start: small(start), length: small(length) },
        _ => Range::default(),
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
        while let Some(key) = access.next_key::<Spanned<Tagged<Key>>>()? {
            let Spanned { value: Tagged(Key(text), tag), referenced, defined } = key;
            let flaw = match &text {
                None => Some(Flaw::NotAText),
                Some(_) => (tag.and_then(|tag| Tag::of(&tag)) == Some(Tag::Other)).then_some(Flaw::Tagged),
            };
            entries.push(Entry {
                key: text.unwrap_or_else(|| "?".to_owned()),
                at: position(&referenced),
                node: access.next_value()?,
                source: range(&defined),
                flaw,
            });
        }
        Ok(Tree::Mapping(entries))
    }
}

/// A key of a mapping: any scalar except null, as text; `None` for anything else.
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor).map(Self)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key of a mapping")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Self::Value, E> {
        Ok(Some(value))
    }
}
