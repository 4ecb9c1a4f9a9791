//! Decoding of answers: the status selects the schema.

use crate::golden::runtime::{Answer, DecodeProblem, TextOrJson};
use crate::golden::tasks::responses::*;
use crate::golden::tasks::types;

const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain; charset=utf-8");

#[test]
fn each_status_has_its_schema() {
    let task = br#"{"name":"a","state":"OPEN","created":"2026-01-02T03:04:05Z"}"#;
    assert!(
        matches!(CreateTaskResponse::decode(201, JSON, task), Ok(CreateTaskResponse::Created(task)) if task.name == "a")
    );
    assert_eq!(
        CreateTaskResponse::decode(202, JSON, br#""abc""#),
        Ok(CreateTaskResponse::Accepted("abc".to_owned().into(), TextOrJson::Json))
    );
    assert_eq!(
        CreateTaskResponse::decode(202, TEXT, b"abc"),
        Ok(CreateTaskResponse::Accepted("abc".to_owned().into(), TextOrJson::Text))
    );
    let problem = types::Problem { problem: "p".into(), where_: None };
    assert_eq!(
        CreateTaskResponse::decode(400, JSON, br#"{"problem":"p"}"#),
        Ok(CreateTaskResponse::BadRequest(problem))
    );
    assert_eq!(
        CreateTaskResponse::decode(500, JSON, br#"{"message":"m"}"#),
        Ok(CreateTaskResponse::InternalServerError(types::Failed { message: "m".into() }))
    );
    assert_eq!(
        ReadNoteResponse::decode(200, TEXT, "n\u{e9}".as_bytes()),
        Ok(ReadNoteResponse::Ok("n\u{e9}".to_owned().into()))
    );
    assert_eq!(ReadNoteResponse::decode(404, None, b""), Ok(ReadNoteResponse::NotFound));
    assert_eq!(PingResponse::decode(204, None, b""), Ok(PingResponse::NoContent));
}

#[test]
fn body_of_another_status_is_refused() {
    let error = CreateTaskResponse::decode(500, JSON, br#"{"problem":"p"}"#).unwrap_err();
    assert_eq!(error.status, 500);
    assert!(
        matches!(&error.problem, DecodeProblem::Body { field: Some(field), .. } if field == "message"),
        "{error}"
    );
    let deep = br#"{"name":"a","state":"LOST","created":"2026-01-02T03:04:05Z"}"#;
    let error = CreateTaskResponse::decode(201, JSON, deep).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "the answer 201 to `createTask` is not of the contract: its body does not fit: `state`: \
             expected `OPEN` or `DONE`, found the string `LOST`"
        ),
        "{error}"
    );
}

#[test]
fn undeclared_statuses_and_content_types_do_not_pass() {
    let problem = |decoded: Result<CreateTaskResponse, _>| -> DecodeProblem {
        let error: crate::golden::runtime::DecodeError = decoded.unwrap_err();
        error.problem
    };
    assert_eq!(problem(CreateTaskResponse::decode(404, JSON, b"{}")), DecodeProblem::Status);
    assert_eq!(
        problem(CreateTaskResponse::decode(400, Some("text/html"), b"<p>")),
        DecodeProblem::ContentType { declared: "application/json", found: "text/html".into() }
    );
    assert_eq!(
        problem(CreateTaskResponse::decode(202, None, b"abc")),
        DecodeProblem::ContentType { declared: "text/plain or application/json", found: String::new() }
    );
    assert!(PingResponse::decode(404, None, b"nothing here").is_err());
    assert!(ReadNoteResponse::decode(200, TEXT, b"\xff").is_err());
    assert!(CreateTaskResponse::decode(202, JSON, br#""abc" x"#).is_err());
}

/// Code for several operations is written once against the statuses that it needs.
#[test]
fn answers_are_made_by_status() {
    fn refuse<R: Answer<400, types::Problem>>() -> R {
        R::answer(types::Problem { problem: "no".into(), where_: None })
    }
    assert_eq!(refuse::<CreateTaskResponse>().status(), 400);
    assert_eq!(refuse::<ReadNoteResponse>().status(), 400);
    let token: CreateTaskResponse =
        Answer::<202, _>::answer((types::Token::from("t".to_owned()), TextOrJson::Text));
    assert_eq!(token.status(), 202);
}
