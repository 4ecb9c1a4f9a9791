//! Quotes names and texts for statements. DDL takes no parameters, so external text becomes part of a statement. That
//! happens only here: all other modules call [`ident`], [`dotted`] and [`literal`].

/// Quotes a name. In a quoted name, keywords, capital letters and quotation marks have no special meaning.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', ""))
}

/// Quotes a name with its schema.
pub(super) fn dotted(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Quotes a text. Every session sets `standard_conforming_strings` on. The encoding of a backslash is correct with
/// either setting.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// Quotes names and joins them with commas.
pub(super) fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_names_and_texts() {
        assert_eq!(ident("select"), "\"select\"");
        assert_eq!(ident("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
        assert_eq!(dotted("S", "t.u"), "\"S\".\"t.u\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\' OR 1"), "E'\\\\'' OR 1'");
        assert_eq!(idents(["a", "b"]), "\"a\", \"b\"");
    }
}
