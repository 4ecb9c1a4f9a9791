//! Names that users can distinguish.
//!
//! Users decide by the name of a bucket, a table or a column whose data they see. A technology that accepts any text
//! as a name would accept two names that look the same. So this function refuses such names for every technology,
//! when a component is provisioned:
//!
//! - characters that are not visible, or that change how the text around them is shown: controls, format characters
//!   (zero width, bidirectional), fillers and variation selectors, spaces other than U+0020;
//! - code points without a meaning of their own: private use, unassigned, non-characters;
//! - white space at the beginning or end;
//! - a text that is not in the normal form NFKC, because another text in that form looks the same.
//!
//! Similar letters of different scripts (Latin and Cyrillic `a`) are not detected.
//!
//! Identities (component ids, environments) are opaque, and names derived from them are ASCII. A component that was
//! provisioned with such a name earlier can be unprovisioned.

use std::fmt::Write;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::{Column, Object, Problem};

/// The maximum number of code points that a message shows.
const MAX_SHOWN: usize = 4;

/// The reason against a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// "the name has the invisible character U+200B".
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

/// The reason against a name, if any. An empty name is checked elsewhere.
pub fn fault(name: &str) -> Option<Fault> {
    let edge = |c: Option<char>| c.is_some_and(char::is_whitespace);
    if let Some((c, what)) = name.chars().find_map(|c| Some((c, odd(c)?))) {
        return Some(Fault {
            message: format!("the name has {what} U+{:04X}", u32::from(c)),
            remedy: "leave it out, or write a letter, a digit or a sign that can be seen".to_owned(),
        });
    }
    if edge(name.chars().next()) || edge(name.chars().next_back()) {
        return Some(Fault {
            message: "the name begins or ends with white space".to_owned(),
            remedy: format!("write `{}`", name.trim()),
        });
    }
    let normal: String = name.nfkc().collect();
    (normal != name).then(|| {
        let (written, meant) = difference(name, &normal);
        Fault {
            message: format!(
                "the name is not in the normal form NFKC, so that another name can look the same: it has {written} where \
                 {meant} is meant"
            ),
            remedy: format!("write {meant} instead of {written}"),
        }
    })
}

/// The same as a problem at `path`.
pub fn problem(path: impl Into<String>, name: &str) -> Option<Problem> {
    let Fault { message, remedy } = fault(name)?;
    Some(Problem::new(path, message).value(name).remedy(remedy))
}

/// The problems of the texts at these keys of `specific`.
pub fn in_specific(specific: &Object, keys: &[&str]) -> Vec<Problem> {
    let written = |key: &str| specific.get(key)?.as_str().filter(|text| !text.trim().is_empty());
    let text = |key: &&str| problem(format!("specific.{key}"), written(key)?);
    keys.iter().filter_map(text).collect()
}

/// The problems of columns and nested columns; `path` is the path of the list.
pub fn in_columns(columns: &[Column], path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let path = format!("{path}[{index}]");
        problems.extend(problem(format!("{path}.name"), &column.name));
        problems.extend(in_columns(&column.children, &format!("{path}.children")));
    }
    problems
}

/// The warning about an imported name that would be refused.
pub fn warning(what: &str, name: &str) -> Option<String> {
    let Fault { message, remedy } = fault(name)?;
    Some(format!(
        "{what} `{}`: {message}; it is imported as it is, and refused when it is to be provisioned: {remedy}",
        visible(name)
    ))
}

/// The text with invisible and confusing characters as `<U+202E>`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match odd(c) {
            Some(_) => {
                let _ = write!(shown, "<U+{:04X}>", u32::from(c));
            }
            None => shown.push(c),
        }
    }
    shown
}

/// Whether a character changes how the text around it is shown.
pub fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// The kind of a character that no name may have.
fn odd(c: char) -> Option<&'static str> {
    if is_deceptive(c) && !matches!(c, '\u{2028}' | '\u{2029}') {
        return Some("the direction control");
    }
    // Invisible, although they count as letters, marks or signs.
    if matches!(
        c,
        '\u{034f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    ) {
        return Some("the invisible character");
    }
    match c.general_category() {
        GeneralCategory::Control => Some("the control character"),
        GeneralCategory::Format => Some("the invisible character"),
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => Some("the line separator"),
        GeneralCategory::SpaceSeparator if c != ' ' => Some("the unusual space"),
        GeneralCategory::PrivateUse | GeneralCategory::Surrogate => Some("the private-use character"),
        GeneralCategory::Unassigned => Some("the code point without a character"),
        _ => None,
    }
}

/// The difference between two texts, as code points: "U+0065 U+0301", "U+00E9".
fn difference(written: &str, meant: &str) -> (String, String) {
    let (mut written, mut meant): (Vec<char>, Vec<char>) =
        (written.chars().collect(), meant.chars().collect());
    let same = written.iter().zip(&meant).take_while(|(one, other)| one == other).count();
    written.drain(..same);
    meant.drain(..same);
    while let (Some(one), Some(other)) = (written.last(), meant.last())
        && one == other
        // Both must have something left to show.
        && written.len() > 1
        && meant.len() > 1
    {
        written.pop();
        meant.pop();
    }
    (code_points(&written), code_points(&meant))
}

fn code_points(text: &[char]) -> String {
    let shown: Vec<_> = text.iter().take(MAX_SHOWN).map(|c| format!("U+{:04X}", u32::from(*c))).collect();
    let more = if text.len() > MAX_SHOWN { " ..." } else { "" };
    if shown.is_empty() { "nothing".to_owned() } else { format!("{}{more}", shown.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        fault(name).map(|fault| fault.message).unwrap_or_default()
    }

    #[test]
    fn names_in_any_script_are_names() {
        for name in [
            "cashflow",
            "Cash Flow",
            "a.b-c_d",
            "caf\u{e9}",
            "Größe",
            "имя",
            "名前",
            "이름",
            "نام",
            "ชื่อ",
            "नाम",
            "\"quoted\"",
            "a$b",
            "1st",
            "€",
            "",
        ] {
            assert_eq!(fault(name), None, "{name:?}");
        }
    }

    #[test]
    fn names_invisible_characters_by_code_point() {
        for (name, message) in [
            ("a\u{202e}b", "the name has the direction control U+202E"),
            ("a\u{2066}b", "the name has the direction control U+2066"),
            ("\u{200f}", "the name has the direction control U+200F"),
            ("a\u{200b}b", "the name has the invisible character U+200B"),
            ("a\u{200d}b", "the name has the invisible character U+200D"),
            ("\u{feff}a", "the name has the invisible character U+FEFF"),
            ("a\u{ad}b", "the name has the invisible character U+00AD"),
            ("a\u{3164}", "the name has the invisible character U+3164"),
            ("a\u{fe0f}", "the name has the invisible character U+FE0F"),
            ("a\u{e0041}", "the name has the invisible character U+E0041"),
            ("a\u{2800}", "the name has the invisible character U+2800"),
            ("a\tb", "the name has the control character U+0009"),
            ("a\u{85}b", "the name has the control character U+0085"),
            ("a\u{a0}b", "the name has the unusual space U+00A0"),
            ("a\u{2028}b", "the name has the line separator U+2028"),
            ("a\u{e000}b", "the name has the private-use character U+E000"),
            ("a\u{10fffd}b", "the name has the private-use character U+10FFFD"),
            ("a\u{fdd0}b", "the name has the code point without a character U+FDD0"),
            ("a\u{ffff}b", "the name has the code point without a character U+FFFF"),
            ("a\u{378}b", "the name has the code point without a character U+0378"),
        ] {
            assert_eq!(said(name), message);
        }
    }

    #[test]
    fn leading_and_trailing_white_space_is_refused() {
        for name in [" a", "a ", " "] {
            assert_eq!(said(name), "the name begins or ends with white space");
        }
        assert_eq!(fault(" a ").unwrap().remedy, "write `a`");
    }

    #[test]
    fn names_that_are_not_normalized_are_refused() {
        for (name, difference) in [
            ("cafe\u{301}s", "it has U+0065 U+0301 where U+00E9 is meant"),
            ("\u{ff41}bc", "it has U+FF41 where U+0061 is meant"),
            ("\u{fb01}n", "it has U+FB01 where U+0066 U+0069 is meant"),
            ("m\u{b2}", "it has U+00B2 where U+0032 is meant"),
            ("\u{212b}", "it has U+212B where U+00C5 is meant"),
            ("a\u{323}\u{302}", "it has U+0061 U+0323 U+0302 where U+1EAD is meant"),
        ] {
            let message = "the name is not in the normal form NFKC, so that another name can look the same";
            assert_eq!(said(name), format!("{message}: {difference}"));
        }
    }

    #[test]
    fn problem_shows_invisible_characters_of_quotes() {
        let problem = problem("specific.table", "cash\u{202e}flow").unwrap();
        assert_eq!(
            problem.with_remedy(),
            "specific.table: the name has the direction control U+202E: `cash<U+202E>flow`; leave it out, or write a letter, \
             a digit or a sign that can be seen"
        );
    }
}
