//! What the generator does not support is an error that names the place.

use landfall_codegen::{Document, generate};

const CONTRACT: &str = include_str!("../golden/tasks.yaml");

const GUARDED: &str = include_str!("../golden/boxes.yaml");

/// The error for a golden contract with `from` replaced.
#[track_caller]
fn error(contract: &str, from: &str, to: &str) -> String {
    assert!(contract.contains(from), "`{from}` is not in the contract");
    error_of(&contract.replacen(from, to, 1))
}

fn error_of(text: &str) -> String {
    generate(&[Document { text, source_name: "x.yaml", module: "x" }]).unwrap_err().to_string()
}

macro_rules! refuses {
    ($contract:expr, $($name:ident: $from:expr => $to:expr, $message:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(error($contract, $from, $to), concat!("x.yaml: ", $message));
        })*
    };
}

refuses! {
    CONTRACT,
    another_version: "openapi: 3.0.3" => "openapi: 3.1.0",
        "the document: OpenAPI version `3.1.0`, use 3.0.3";
    security_without_a_scheme: "paths:\n" => "security:\n  - basic: []\npaths:\n",
        "the document: `security` other than the one scheme of `securitySchemes`";
    an_operation_without_an_id: "      operationId: listTasks\n" => "",
        "GET /v1/tasks: an operation without an `operationId`";
    an_id_twice: "operationId: listTasks" => "operationId: createTask",
        "operation `createTask`: its name collides with that of operation `createTask`";
    an_id_that_is_a_keyword: "operationId: ping" => "operationId: async",
        "operation `async`: `async` is no name for a Rust method";
    another_method: "    delete:\n" => "    head:\n",
        "path `/v1/tasks/{taskId}/notes/{noteId}`: `head` is not supported";
    callbacks: "      summary: List the tasks\n" => "      summary: List\n      callbacks: {}\n",
        "operation `listTasks`: `callbacks` is not supported";
    operation_security: "      summary: List the tasks\n" => "      summary: List\n      security: []\n",
        "operation `listTasks`: `security` is not supported";
    a_header_parameter: "          in: path\n" => "          in: header\n",
        "operation `readNote`, parameter `noteId`: a header parameter is not supported";
    a_parameter_that_left_the_path: "          in: path\n" => "          in: query\n",
        "operation `readNote`: its parameters are not those of the path `/v1/tasks/{taskId}/notes/{noteId}`";
    a_number_in_a_path: "          in: path\n          required: true\n          schema:\n            type: string"
        => "          in: path\n          required: true\n          schema:\n            type: integer",
        "operation `readNote`, parameter `noteId`: a path parameter other than a string is not supported";
    a_constraint_on_a_parameter: "          schema:\n            type: string\n"
        => "          schema:\n            type: string\n            minLength: 1\n",
        "operation `readNote`, parameter `noteId`: `minLength` is not supported";
    parameters_that_are_not_of_the_path: "/v1/tasks/{taskId}:" => "/v1/tasks/{id}:",
        "operation `ping`: its parameters are not those of the path `/v1/tasks/{id}`";
    half_a_segment: "/v1/tasks/{taskId}:" => "/v1/tasks/t-{taskId}:",
        "operation `ping`: the segment `t-{taskId}` of the path `/v1/tasks/t-{taskId}`";
    an_optional_body: "        required: true\n        content:" => "        required: false\n        content:",
        "operation `createTask`: an optional request body is not supported, add `required: true`";
    another_body: "        required: true\n        content:\n          application/json:"
        => "        required: true\n        content:\n          application/xml:",
        "operation `createTask`: a request body of type `application/xml` is not supported";
    a_body_without_a_schema: "          application/json:\n            schema:\n              type: object\n              required: [name, owner]"
        => "          application/json:\n            example:\n              type: object\n              required: [name, owner]",
        "operation `createTask`: a request body other than application/json with a schema";
    a_default_response: "        '204':\n          description: It is gone" => "        default:\n          description: It is gone",
        "operation `deleteNote`: a `default` response, name the statuses";
    a_range_of_statuses: "        '204':\n          description: It is gone" => "        2XX:\n          description: It is gone",
        "operation `deleteNote`: the response range `2XX`, name the statuses";
    an_unusual_status: "        '204':\n          description: It is gone" => "        '299':\n          description: It is gone",
        "operation `deleteNote`: the response status 299";
    no_success: "        '204':\n          description: It is gone" => "        '403':\n          description: It is gone",
        "operation `deleteNote`: no successful response is declared";
    response_headers: "          description: It is gone" => "          description: It is gone\n          headers: {}",
        "operation `deleteNote`, response 204: `headers` is not supported";
    another_response: "            text/plain:\n              schema:\n                type: string" =>
        "            text/html:\n              schema:\n                type: string",
        "operation `readNote`, response 200: the content type `text/html`";
    text_that_is_no_string: "            text/plain:\n              schema:\n                type: string" =>
        "            text/plain:\n              schema:\n                type: boolean",
        "operation `readNote`, response 200: text/plain of schema `ReadNoteOkBody`, which is no string";
    two_forms_of_different_schemas: "            text/plain:\n              schema:\n                $ref: '#/components/schemas/Token'" =>
        "            text/plain:\n              schema:\n                type: string",
        "operation `createTask`, response 202: text/plain and application/json with different schemas";
    a_refusal_as_text: "        '400':\n          description: That cannot be the name of a note" =>
        "        '400':\n          description: Nope\n          content:\n            text/plain:\n              schema:\n                type: string",
        "operation `deleteNote`: 400 as text/plain, the generated code answers it as JSON";
    a_dead_response_reference: "#/components/responses/Failed" => "#/components/responses/Fialed",
        "operation `createTask`: the reference `#/components/responses/Fialed` leads to no component";
    a_dead_schema_reference: "                owner:\n                  $ref: '#/components/schemas/Person'" =>
        "                owner:\n                  $ref: '#/components/schemas/Persona'",
        "operation `createTask`: the reference `#/components/schemas/Persona` leads to no component";
    a_foreign_reference: "                owner:\n                  $ref: '#/components/schemas/Person'" =>
        "                owner:\n                  $ref: 'other.yaml#/Person'",
        "operation `createTask`: the reference `other.yaml#/Person` leads to no component";
    a_key_beside_a_reference: "                owner:\n" => "                owner:\n                  nullable: true\n",
        "operation `createTask`, `application/json`, property `owner`: `nullable` is not supported";
    a_taken_name: "    Token:\n      type: string" => "    Token:\n      type: string\n    ReadNoteOkBody:\n      type: string",
        "operation `readNote`, response 200: its inline schema would be named `ReadNoteOkBody`, which is taken: move it to components";
    alternatives_with_a_taken_name: "    Token:\n      type: string" => "    Token:\n      type: string\n    TaskOrToken:\n      type: string",
        "schema `TaskOrToken`: its name is needed for alternatives of answers, rename it";
    a_schema_in_snake_case: "    Token:\n      type: string" => "    Token:\n      type: string\n    to_ken:\n      type: string",
        "schema `to_ken`: its name is not in Pascal case, use `ToKen`";
    one_of: "    Token:\n      type: string" => "    Token:\n      type: string\n    Either:\n      oneOf: []",
        "schema `Either`: `oneOf` is not supported";
    a_pattern: "    Token:\n      type: string" => "    Token:\n      type: string\n      pattern: x",
        "schema `Token`: `pattern` is not supported";
    a_length: "    Token:\n      type: string" => "    Token:\n      type: string\n      minLength: 1",
        "schema `Token`: `minLength` is not supported";
    a_format: "    Token:\n      type: string" => "    Token:\n      type: string\n      format: uuid",
        "schema `Token`: the format `uuid`";
    a_number_of_items: "                watchers:\n                  type: array" =>
        "                watchers:\n                  type: array\n                  maxItems: 3",
        "operation `createTask`, `application/json`, property `watchers`: `maxItems` is not supported";
    a_minimum: "minimum: 0" => "minimum: 1",
        "schema `Person`, property `age`: a `minimum` other than 0";
    a_minimum_of_a_format: "minimum: 0" => "minimum: 0\n          format: int64",
        "schema `Person`, property `age`: `minimum` beside `format`, the generated type would not enforce it";
    a_misspelt_keyword: "      required: [problem]" => "      requird: [problem]",
        "schema `Problem`: `requird` is not supported";
    a_required_stranger: "      required: [problem]" => "      required: [problm]",
        "schema `Problem`: it requires `problm`, which is no property of it";
    open_objects_said_twice: "      required: [problem]" => "      required: [problem]\n      additionalProperties: true",
        "schema `Problem`: `properties` beside `additionalProperties`; leave the latter out, objects are open";
}

refuses! {
    GUARDED,
    another_scheme: "      scheme: basic" => "      scheme: bearer",
        "security scheme `basic`: is not `type: http` with `scheme: basic`";
    a_key_as_scheme: "      type: http\n      scheme: basic" => "      type: apiKey",
        "security scheme `basic`: is not `type: http` with `scheme: basic`";
    a_scheme_that_nothing_asks_for: "security:\n  - basic: []\n" => "",
        "the document: `security` other than the one scheme of `securitySchemes`";
    a_choice_of_schemes: "  - basic: []\n" => "  - basic: []\n  - {}\n",
        "the document: `security` other than the one scheme of `securitySchemes`";
    a_scheme_with_scopes: "  - basic: []\n" => "  - basic: [read]\n",
        "the document: `security` other than the one scheme of `securitySchemes`";
    an_operation_with_its_own_security: "      operationId: findBoxes\n" => "      operationId: findBoxes\n      security: []\n",
        "operation `findBoxes`: `security` is not supported";
    security_without_403: "        '403': &forbidden\n          description: Not yours\n" => "        '404': &forbidden\n          description: Not yours\n",
        "operation `findBoxes`: `security` without a 403, declare 401, 403 and 500";
    a_denial_as_text: "          description: Who are you\n" => "          description: Who are you\n          content:\n            text/plain:\n              schema:\n                type: string\n",
        "operation `readBox`: 401 as text/plain, the generated code answers it as JSON";
    a_title_that_is_no_realm: "  title: Boxes" => "  title: The \"Boxes\"",
        "the document: the title `The \"Boxes\"` is the realm of its `security`, write it in ASCII without quotes";
    a_number_in_the_query: "          in: query\n          schema:\n            type: string" => "          in: query\n          schema:\n            type: integer",
        "operation `findBoxes`, parameter `label`: a query parameter other than a string is not supported";
    a_pattern_in_the_query: "          in: query\n          schema:\n            type: string" => "          in: query\n          schema:\n            type: string\n            pattern: x",
        "operation `findBoxes`, parameter `label`: `pattern` is not supported";
    a_parameter_twice: "        - name: label" => "        - name: ownerName",
        "operation `findBoxes`: the parameter name `ownerName`, which another one has";
    a_parameter_that_is_called_as_one_of_the_path: "        - name: view" => "        - name: box_id",
        "operation `readBox`: the parameter name `box_id`, which another one has";
    a_parameter_named_as_a_local: "        - name: view" => "        - name: payload",
        "operation `readBox`: the parameter name `payload`";
    a_pattern_that_does_not_compile: "^[0-9]+$" => "'^[0-9'",
        "path `/v1/rooms/{roomCode}/boxes/{boxId}`, parameter `boxId`: the pattern `^[0-9` does not compile: unclosed character class";
    a_pattern_that_looks_ahead: "^[0-9]+$" => "^(?!0)[0-9]+$",
        "path `/v1/rooms/{roomCode}/boxes/{boxId}`, parameter `boxId`: the pattern `^(?!0)[0-9]+$` does not compile: look-around, including look-ahead and look-behind, is not supported";
    a_pattern_that_means_two_things: "^[0-9]+$" => "^\\D+$",
        "path `/v1/rooms/{roomCode}/boxes/{boxId}`, parameter `boxId`: `\\d` in the pattern `^\\D+$`, spell the characters out";
}

#[test]
fn reports_invalid_yaml_with_position() {
    let no_yaml = error_of("openapi: [");
    assert!(no_yaml.starts_with("x.yaml is not an OpenAPI document: "), "{no_yaml}");
    let no_paths = error_of("openapi: 3.0.3\ninfo: {title: T, version: '1'}");
    assert_eq!(no_paths, "x.yaml is not an OpenAPI document: missing field `paths`");
}
