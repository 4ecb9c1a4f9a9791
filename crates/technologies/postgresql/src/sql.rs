//! Names and texts in statements. DDL takes no parameters, so this is the one place where what somebody else wrote
//! becomes part of a statement: everything else calls [`ident`], [`dotted`] and [`literal`].

/// A name, always in quotes: no keyword, capital letter or quotation mark means anything in it.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', ""))
}

/// A name inside a schema.
pub(super) fn dotted(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A text. Every session has `standard_conforming_strings` on; a backslash is spelt so that it would not matter.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// Names with commas between them.
pub(super) fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_inside_its_quotes() {
        assert_eq!(ident("select"), "\"select\"");
        assert_eq!(ident("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
        assert_eq!(dotted("S", "t.u"), "\"S\".\"t.u\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\' OR 1"), "E'\\\\'' OR 1'");
        assert_eq!(idents(["a", "b"]), "\"a\", \"b\"");
    }
}
