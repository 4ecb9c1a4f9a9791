//! The errors for invalid JSON, word by word, and the limits of the parser.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::golden::json::{JsonProblem, read};

#[derive(Debug, PartialEq, Deserialize)]
struct Order {
    #[serde(rename = "orderKind")]
    kind: Kind,
    name: String,
    #[serde(default)]
    urgent: Option<bool>,
    #[serde(default)]
    lines: Vec<Line>,
    #[serde(default)]
    extra: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Line {
    number: i64,
    #[serde(default)]
    weight: Option<f64>,
    #[serde(default)]
    switch: Option<Switch>,
    #[serde(default)]
    alone: Option<Alone>,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Kind {
    #[serde(rename = "A")]
    A,
    #[serde(rename = "B")]
    B,
    #[serde(rename = "C")]
    C,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Alone {
    Only,
}

fn problem(text: &[u8]) -> JsonProblem {
    read::<Order>(text).unwrap_err()
}

/// A mismatch is reported with its field, its value, and the expected value.
#[test]
fn reports_invalid_values_with_field_value_and_remedy() {
    let order = |rest: &str| format!(r#"{{"orderKind":"A","name":"n",{rest}}}"#);
    let line = |rest: &str| order(&format!(r#""lines":[{{"number":1}},{{{rest}}}]"#));
    let cases = [
        ("[]".to_owned(), "", "expected an object, found a list", "", "send the body as an object"),
        (
            r#"["A","n",null,[],null]"#.to_owned(),
            "",
            "expected an object, found a list",
            "",
            "send the body as an object",
        ),
        (
            "\"A\"".to_owned(),
            "",
            "expected an object, found the string `A`",
            "A",
            "send the body as an object",
        ),
        ("null".to_owned(), "", "expected an object, found `null`", "null", "send the body as an object"),
        ("{}".to_owned(), "orderKind", "is missing", "", "add `orderKind`"),
        (r#"{"orderKind":"A"}"#.to_owned(), "name", "is missing", "", "add `name`"),
        (
            r#"{"orderKind":"D","name":"n"}"#.to_owned(),
            "orderKind",
            "expected one of `A`, `B`, `C`, found the string `D`",
            "D",
            "send `orderKind` as one of `A`, `B`, `C`",
        ),
        (
            r#"{"orderKind":5,"name":"n"}"#.to_owned(),
            "orderKind",
            "expected one of `A`, `B`, `C`, found the number `5`",
            "5",
            "send `orderKind` as one of `A`, `B`, `C`",
        ),
        (
            r#"{"orderKind":{"A":null},"name":"n"}"#.to_owned(),
            "orderKind",
            "expected one of `A`, `B`, `C`, found an object",
            "",
            "send `orderKind` as one of `A`, `B`, `C`",
        ),
        (
            r#"{"orderKind":"A","name":{"first":"n"}}"#.to_owned(),
            "name",
            "expected a string, found an object",
            "",
            "send `name` as a string",
        ),
        (
            r#"{"orderKind":"A","name":null}"#.to_owned(),
            "name",
            "expected a string, found `null`",
            "null",
            "send `name` as a string",
        ),
        (order(r#""name":"again""#), "name", "is there more than once", "", "send it once"),
        (
            order(r#""urgent":"no""#),
            "urgent",
            "expected true or false, found the string `no`",
            "no",
            "send `urgent` as true or false",
        ),
        (
            order(r#""lines":"x""#),
            "lines",
            "expected a list, found the string `x`",
            "x",
            "send `lines` as a list",
        ),
        (
            order(r#""lines":[[1,null,null,null]]"#),
            "lines[0]",
            "expected an object, found a list",
            "",
            "send `lines[0]` as an object",
        ),
        (line(""), "lines[1].number", "is missing", "", "add `lines[1].number`"),
        (
            line(r#""number":1.0"#),
            "lines[1].number",
            "expected a whole number of 64 bits, found the number `1.0`",
            "1.0",
            "send `lines[1].number` as a whole number of 64 bits",
        ),
        (
            line(r#""number":9223372036854775808"#),
            "lines[1].number",
            "expected a whole number of 64 bits, found the number `9223372036854775808`",
            "9223372036854775808",
            "send `lines[1].number` as a whole number of 64 bits",
        ),
        (
            line(r#""number":1,"weight":true"#),
            "lines[1].weight",
            "expected a number, found `true`",
            "true",
            "send `lines[1].weight` as a number",
        ),
        (
            line(r#""number":1,"weight":1e999"#),
            "lines[1].weight",
            "is a number out of range",
            "",
            "send a number that 64 bits can hold",
        ),
        (
            line(r#""number":1,"switch":"Of""#),
            "lines[1].switch",
            "expected `On` or `Off`, found the string `Of`",
            "Of",
            "send `lines[1].switch` as `On` or `Off`",
        ),
        (
            line(r#""number":1,"alone":[]"#),
            "lines[1].alone",
            "expected `Only`, found a list",
            "",
            "send `lines[1].alone` as `Only`",
        ),
        (
            order(r#""extra":[1]"#),
            "extra",
            "expected an object, found a list",
            "",
            "send `extra` as an object",
        ),
    ];
    for (text, field, message, value, remedy) in cases {
        let problem = problem(text.as_bytes());
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let expected = JsonProblem {
            is_schema: true,
            field: optional(field),
            message: message.to_owned(),
            value: optional(value),
            remedy: optional(remedy),
        };
        assert_eq!(problem, expected, "{text}");
    }
}

#[test]
fn reports_invalid_json_with_line_and_column() {
    let cases: [(&[u8], &str); 14] = [
        (b"orderKind: A", "line 1, column 1: a value is expected"),
        (b"{\n  \"name\": 'n'\n}", "line 2, column 11: a value is expected"),
        (b"{\"name\":\"n\"", "line 1, column 11: it ends within an object"),
        (b"{\"name\":\"n", "line 1, column 10: it ends within a string"),
        (b"{\"name\":", "line 1, column 8: it ends within a value"),
        (b"[1, 2", "line 1, column 5: it ends within a list"),
        (b"{\"name\":\"n\",}", "line 1, column 13: trailing comma"),
        (b"{\"name\" \"n\"}", "line 1, column 9: expected `:`"),
        (b"{name: 1}", "line 1, column 2: key must be a string"),
        (b"{\"orderKind\":\"A\",\"name\":\"n\"} {}", "line 1, column 30: something follows the value"),
        // An earlier mistake, and invalid JSON after it.
        (b"{\"orderKind\":5,\"name\":\n\n nul}", "line 3, column 5: expected ident"),
        ("{\"\u{e9}\u{e9}\": x}".as_bytes(), "line 1, column 8: a value is expected"),
        (b"{\n\"orderKind\":\"A\",\"name\":\"\xff\"}", "line 2, column 25: it is not UTF-8 text"),
        (b"{\"orderKind\":\"A\",\"name\":\"\\ud800\"}", "line 1, column 32: unexpected end of hex escape"),
    ];
    for (text, said) in cases {
        let found = problem(text);
        let told = String::from_utf8_lossy(text);
        assert_eq!(found.message, format!("the body is not JSON: {said}"), "{told}");
        assert_eq!((found.is_schema, found.field, found.value), (false, None, None), "{told}");
    }
}

#[test]
fn depth_limit_applies_to_both_syntaxes() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let found = problem(format!(r#"{{"orderKind":"A","name":"n","extra":{{"a":{deep}}}}}"#).as_bytes());
    assert!(
        found.is_schema && found.field.as_deref().is_some_and(|field| field.starts_with("extra.a")),
        "{found:?}"
    );
    assert_eq!(found.message, "is nested too deeply, the limit is 127 levels");
    let unread = format!(r#"{{"orderKind":"A","name":"n","tomorrow":{deep}}}"#);
    assert!(read::<Order>(unread.as_bytes()).is_ok(), "what is not read may be as deep as it likes");
}

#[test]
fn a_long_value_and_a_long_path_are_shortened() {
    let long = "\u{e9}\n".repeat(10_000);
    let text = serde_json::json!({ "orderKind": long, "name": "n" }).to_string();
    let found = problem(text.as_bytes());
    let value = found.value.clone().unwrap();
    assert_eq!(value, format!("{}...", "\u{e9} ".repeat(40)));
    assert!(found.message.chars().count() < 200 && found.message.contains(&value), "{found:?}");

    let keys = BTreeMap::from([("k".repeat(5_000), 1)]);
    assert!(read::<BTreeMap<String, i64>>(serde_json::to_string(&keys).unwrap().as_bytes()).is_ok());
    let wrong = format!(r#"{{"{}":"x"}}"#, "k".repeat(5_000));
    let found = read::<BTreeMap<String, i64>>(wrong.as_bytes()).unwrap_err();
    assert!(found.field.unwrap().len() < 300 && found.remedy.unwrap().len() < 400);
}

#[test]
fn matching_values_are_read() {
    let text = r#" {"name":"n","later":[{"x":{}}],"orderKind":"B","urgent":null,"lines":[{"number":-1,"switch":"On","weight":1}],
        "extra":{"a":[1,null,{"b":"c"}]}} "#;
    let order: Order = read(text.as_bytes()).unwrap();
    let expected = Order {
        kind: Kind::B,
        name: "n".to_owned(),
        urgent: None,
        lines: vec![Line { number: -1, weight: Some(1.0), switch: Some(Switch::On), alone: None }],
        extra: serde_json::json!({"a": [1, null, {"b": "c"}]}).as_object().cloned(),
    };
    assert_eq!(order, expected);
    assert!(read::<Order>(br#"{"orderKind":"C","name":"n","urgent":true}"#).is_ok());
}
