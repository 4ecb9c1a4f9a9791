//! The types that several contracts share, and the types that stay separate.

use landfall_codegen::{Document, File, generate};

const CONTRACT: &str = "
openapi: 3.0.3
info: {title: Shelves, version: 1.0.0}
paths:
  /shelf:
    get:
      operationId: readShelf
      responses:
        '200':
          description: The shelf
          content:
            application/json:
              schema: {$ref: '#/components/schemas/Shelf'}
components:
  schemas:
    Shelf:
      type: object
      required: [books, room]
      properties:
        books:
          type: array
          items: {$ref: '#/components/schemas/Book'}
        room: {type: string}
    Book:
      description: Something to read
      type: object
      required: [title]
      properties:
        title: {type: string}
        author: {$ref: '#/components/schemas/Person'}
        mark: {type: string, default: none}
        state:
          description: How it looks
          type: string
          enum: [NEW, WORN]
    Person:
      type: object
      required: [name]
      properties:
        name: {type: string}
        born: {type: integer, format: int64}
    Shape:
      type: string
      enum: [ROUND, PERSON]
";

/// The unchanged contract, and the contract with `from` replaced, as the modules `one` and `two`.
#[track_caller]
fn generated(from: &str, to: &str) -> Vec<File> {
    assert!(CONTRACT.contains(from), "`{from}` is not in the contract");
    modules(&[CONTRACT, &CONTRACT.replacen(from, to, 1)])
}

fn modules(texts: &[&str]) -> Vec<File> {
    let modules = texts.iter().zip(["one", "two", "three", "four"]);
    let documents = modules.map(|(text, module)| Document { text, source_name: "x.yaml", module });
    generate(&documents.collect::<Vec<_>>()).unwrap()
}

fn content<'f>(files: &'f [File], path: &str) -> &'f str {
    &files.iter().find(|file| file.path.to_str() == Some(path)).unwrap().content
}

/// The types that a file defines.
fn defined<'f>(files: &'f [File], path: &str) -> Vec<&'f str> {
    let lines = content(files, path).lines();
    let names = lines.filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")));
    names.map(|rest| rest.split([' ', '(']).next().unwrap()).collect()
}

const ALL: [&str; 5] = ["Book", "BookState", "Person", "Shape", "Shelf"];

#[test]
fn equal_schemas_of_two_documents_are_one_type() {
    let files = modules(&[CONTRACT, CONTRACT]);
    assert_eq!(defined(&files, "shared.rs"), ALL);
    for path in ["one/types.rs", "two/types.rs"] {
        assert_eq!(defined(&files, path), [""; 0]);
        let again = "pub use super::super::shared::{Book, BookState, Person, Shape, Shelf};";
        assert!(content(&files, path).contains(again), "{path}");
    }
}

#[test]
fn equal_schemas_of_one_document_are_two_types() {
    let files = modules(&[CONTRACT]);
    assert_eq!(defined(&files, "shared.rs"), [""; 0]);
    assert_eq!(defined(&files, "one/types.rs"), ALL);
}

#[test]
fn schemas_are_equal_whatever_their_text_and_their_order() {
    for (from, to) in [
        ("Something to read", "Whatever"),
        (
            "        name: {type: string}\n",
            "        name: {type: string, description: Of a person, example: Ann}\n",
        ),
        ("required: [books, room]", "required: [room, books]"),
        (
            "        name: {type: string}\n        born: {type: integer, format: int64}\n",
            "        born: {type: integer, format: int64}\n        name: {type: string}\n",
        ),
    ] {
        let files = generated(from, to);
        assert_eq!(defined(&files, "shared.rs"), ALL, "{to}");
        assert!(content(&files, "shared.rs").contains("Something to read"), "the first document's text");
    }
}

#[test]
fn different_schemas_become_two_types() {
    let cases: [(&str, &str, &[&str]); 9] = [
        ("name: {type: string}", "name: {type: boolean}", &["BookState", "Shape"]),
        (
            "born: {type: integer, format: int64}",
            "born: {type: integer, format: int32}",
            &["BookState", "Shape"],
        ),
        ("        born:", "        since:", &["BookState", "Shape"]),
        (
            "        name: {type: string}",
            "        age: {type: string}\n        name: {type: string}",
            &["BookState", "Shape"],
        ),
        ("required: [title]", "required: [title, author]", &["BookState", "Person", "Shape"]),
        ("default: none", "default: some", &["BookState", "Person", "Shape"]),
        ("[NEW, WORN]", "[NEW, OLD]", &["Person", "Shape"]),
        (
            "room: {type: string}",
            "room: {type: string, nullable: true}",
            &["Book", "BookState", "Person", "Shape"],
        ),
        ("[ROUND, PERSON]", "[ROUND]", &["Book", "BookState", "Person", "Shelf"]),
    ];
    for (from, to, shared) in cases {
        let files = generated(from, to);
        assert_eq!(defined(&files, "shared.rs"), shared, "{to}");
        let own = ALL.into_iter().filter(|name| !shared.contains(name)).collect::<Vec<_>>();
        assert_eq!(defined(&files, "one/types.rs"), own, "{to}");
        assert_eq!(defined(&files, "two/types.rs"), own, "{to}");
    }
}

/// `Shelf` and `Book` are equal in all documents, and refer to a `Person` with the same name that is not.
#[test]
fn differing_document_gets_its_own_types() {
    let other = CONTRACT.replace("born:", "since:");
    for texts in [[CONTRACT, CONTRACT, &other], [CONTRACT, &other, CONTRACT], [&other, CONTRACT, CONTRACT]] {
        let files = modules(&texts);
        assert_eq!(defined(&files, "shared.rs"), ALL);
        for (text, module) in texts.iter().zip(["one", "two", "three"]) {
            let own = if *text == other { &["Book", "Person", "Shelf"][..] } else { &[] };
            assert_eq!(defined(&files, &format!("{module}/types.rs")), own, "{module}");
        }
        assert!(content(&files, "shared.rs").contains("pub born:"));
    }
}

#[test]
fn first_common_meaning_of_a_name_is_shared() {
    let other = CONTRACT.replace("born:", "since:");
    let files = modules(&[&other, CONTRACT, CONTRACT, &other]);
    assert_eq!(defined(&files, "one/types.rs"), [""; 0]);
    assert_eq!(defined(&files, "two/types.rs"), ["Book", "Person", "Shelf"]);
    assert_eq!(defined(&files, "three/types.rs"), ["Book", "Person", "Shelf"]);
    assert!(content(&files, "shared.rs").contains("pub since:"));
}

/// A default value is a function, which belongs to the type that names it.
#[test]
fn default_values_are_where_their_types_are() {
    let places = |files: &[File]| {
        let has = |path: &str| content(files, path).contains("mod defaults {");
        [has("shared.rs"), has("one/types.rs"), has("two/types.rs")]
    };
    assert_eq!(places(&modules(&[CONTRACT, CONTRACT])), [true, false, false]);
    assert_eq!(places(&generated("default: none", "default: some")), [false, true, true]);
}
