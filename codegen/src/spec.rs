//! Reads a document, refuses what is not supported, and reduces the rest to a [`Contract`].
//!
//! The check walks the raw document with a list of the keys known at each place, because the openapiv3 model drops
//! unknown keys: a misspelt or unsupported keyword would silently be missing in the generated code.

use std::collections::{BTreeMap, BTreeSet};

use heck::{ToPascalCase, ToSnakeCase};
use openapiv3::{OpenAPI, ReferenceOr, Schema};
use serde_json::{Map, Value};

use crate::Error;

/// An [`Error`] without its document.
#[derive(Debug)]
pub(crate) enum Problem {
    Syntax(String),
    Unsupported { place: String, what: String },
}

impl Problem {
    pub(crate) fn of(self, source_name: &str) -> Error {
        let source_name = source_name.to_owned();
        match self {
            Self::Syntax(message) => Error::Syntax { source_name, message },
            Self::Unsupported { place, what } => Error::Unsupported { source_name, place, what },
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;

pub(crate) fn unsupported<T>(place: &str, what: impl Into<String>) -> Result<T> {
    Err(Problem::Unsupported { place: place.to_owned(), what: what.into() })
}

/// Parse and check a document.
pub(crate) fn read(text: &str) -> Result<OpenAPI> {
    let raw: Value = serde_yaml::from_str(text).map_err(|error| Problem::Syntax(error.to_string()))?;
    check_document(&raw)?;
    serde_json::from_value(raw).map_err(|error| Problem::Syntax(error.to_string()))
}

// ---- the contract -------------------------------------------------------------------------------------------------

/// The input of the server generator. Every body is a named schema; inline ones are named here.
#[derive(Debug)]
pub(crate) struct Contract {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) description: String,
    /// The server trait.
    pub(crate) trait_name: String,
    /// In the order of the document.
    pub(crate) operations: Vec<Operation>,
    /// The challenge of a 401, if all operations require Basic authentication.
    pub(crate) challenge: Option<String>,
    /// Inline schemas of bodies, by their new names.
    pub(crate) named: BTreeMap<String, Schema>,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    /// The trait method.
    pub(crate) name: String,
    /// Prefix of the generated types.
    pub(crate) pascal: String,
    /// Upper case.
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    /// The path parameters in the order of the path, then the query parameters in the order of the document.
    pub(crate) parameters: Vec<Parameter>,
    /// The schema of the JSON body.
    pub(crate) body: Option<String>,
    pub(crate) answers: BTreeMap<u16, Answer>,
}

#[derive(Debug)]
pub(crate) struct Parameter {
    /// As in the document.
    pub(crate) wire_name: String,
    pub(crate) name: String,
    pub(crate) location: Location,
}

/// Where a parameter is, and its requirements there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Path { pattern: Option<String> },
    Query { required: bool },
}

#[derive(Debug)]
pub(crate) struct Answer {
    /// Variant of the response enum.
    pub(crate) variant: &'static str,
    pub(crate) description: String,
    pub(crate) content: Content,
}

/// The body of an answer, as the name of its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Empty,
    Json(String),
    Text(String),
    /// The server may choose the form.
    TextOrJson(String),
}

impl Content {
    pub(crate) fn schema(&self) -> Option<&str> {
        match self {
            Self::Empty => None,
            Self::Json(schema) | Self::Text(schema) | Self::TextOrJson(schema) => Some(schema),
        }
    }
}

impl Contract {
    pub(crate) fn new(document: &OpenAPI, module: &str) -> Result<Self> {
        let mut contract = Self {
            title: document.info.title.clone(),
            version: document.info.version.clone(),
            description: document.info.description.clone().unwrap_or_default(),
            trait_name: module.to_pascal_case(),
            operations: Vec::new(),
            challenge: challenge(document)?,
            named: BTreeMap::new(),
        };
        let mut names = BTreeMap::new();
        for (path, item) in &document.paths.paths {
            let item = match item {
                ReferenceOr::Item(item) => item,
                ReferenceOr::Reference { .. } => {
                    return unsupported(&format!("path `{path}`"), "a `$ref` as path item");
                }
            };
            for (method, operation) in item.iter() {
                let operation = contract.operation(document, path, item, method, operation)?;
                if let Some(other) = names.insert(operation.name.clone(), operation.id.clone()) {
                    return unsupported(
                        &format!("operation `{}`", operation.id),
                        format!("its name collides with that of operation `{other}`"),
                    );
                }
                contract.operations.push(operation);
            }
        }
        Ok(contract)
    }

    fn operation(
        &mut self,
        document: &OpenAPI,
        path: &str,
        item: &openapiv3::PathItem,
        method: &str,
        operation: &openapiv3::Operation,
    ) -> Result<Operation> {
        let method = method.to_uppercase();
        let Some(id) = operation.operation_id.clone() else {
            return unsupported(&format!("{method} {path}"), "an operation without an `operationId`");
        };
        let place = format!("operation `{id}`");
        let name = id.to_snake_case();
        if syn::parse_str::<syn::Ident>(&name).is_err() {
            return unsupported(&place, format!("`{name}` is no name for a Rust method"));
        }
        let pascal = id.to_pascal_case();

        let declared = item.parameters.iter().chain(&operation.parameters);
        let declared = declared.map(|parameter| resolve(parameter, document, &place));
        let parameters = parameters(path, &declared.collect::<Result<Vec<_>>>()?, &place)?;

        let body = match &operation.request_body {
            None => None,
            Some(body) => {
                let content = &resolve(body, document, &place)?.content;
                let schema = content.get("application/json").and_then(|media| media.schema.as_ref());
                match schema {
                    Some(schema) => {
                        Some(self.schema_name(document, schema, &format!("{pascal}Request"), &place)?)
                    }
                    None => {
                        return unsupported(
                            &place,
                            "a request body other than application/json with a schema",
                        );
                    }
                }
            }
        };

        let mut answers = BTreeMap::new();
        for (status, response) in &operation.responses.responses {
            let openapiv3::StatusCode::Code(status) = *status else {
                return unsupported(&place, format!("the response range `{status}`, name the statuses"));
            };
            let response = resolve(response, document, &place)?;
            let Some(variant) = variant(status) else {
                return unsupported(&place, format!("the response status {status}"));
            };
            let content =
                self.content(document, response, &format!("{pascal}{variant}Body"), &place, status)?;
            answers.insert(status, Answer { variant, description: response.description.clone(), content });
        }
        if !answers.keys().any(|status| (200..300).contains(status)) {
            return unsupported(&place, "no successful response is declared");
        }
        let denials = if self.challenge.is_some() { &[401, 403, 500][..] } else { &[] };
        if let Some(status) = denials.iter().find(|status| !answers.contains_key(status)) {
            return unsupported(&place, format!("`security` without a {status}, declare 401, 403 and 500"));
        }
        for status in denials.iter().chain(&[400]) {
            if let Some(Content::Text(_) | Content::TextOrJson(_)) = answers.get(status).map(|it| &it.content)
            {
                return unsupported(
                    &place,
                    format!("{status} as text/plain, the generated code answers it as JSON"),
                );
            }
        }
        Ok(Operation {
            id,
            name,
            pascal,
            method,
            path: path.to_owned(),
            summary: operation.summary.clone().unwrap_or_default(),
            description: operation.description.clone().unwrap_or_default(),
            parameters,
            body,
            answers,
        })
    }

    fn content(
        &mut self,
        document: &OpenAPI,
        response: &openapiv3::Response,
        name: &str,
        place: &str,
        status: u16,
    ) -> Result<Content> {
        let place = &format!("{place}, response {status}");
        let mut schemas = Vec::new();
        for (media_type, media) in &response.content {
            if media_type != "application/json" && media_type != "text/plain" {
                return unsupported(place, format!("the content type `{media_type}`"));
            }
            match &media.schema {
                Some(schema) => {
                    schemas.push((media_type.as_str(), self.schema_name(document, schema, name, place)?))
                }
                None => return unsupported(place, format!("`{media_type}` without a schema")),
            }
        }
        let text =
            schemas.iter().find(|(media_type, _)| *media_type == "text/plain").map(|(_, name)| name.clone());
        let json =
            schemas.iter().find(|(media_type, _)| *media_type != "text/plain").map(|(_, name)| name.clone());
        if let Some(text) = &text
            && !self.is_plain_string(document, text)
        {
            return unsupported(place, format!("text/plain of schema `{text}`, which is no string"));
        }
        match (text, json) {
            (None, None) => Ok(Content::Empty),
            (None, Some(schema)) => Ok(Content::Json(schema)),
            (Some(schema), None) => Ok(Content::Text(schema)),
            (Some(text), Some(json)) if text == json => Ok(Content::TextOrJson(text)),
            (Some(_), Some(_)) => {
                unsupported(place, "text/plain and application/json with different schemas")
            }
        }
    }

    fn is_plain_string(&self, document: &OpenAPI, name: &str) -> bool {
        let schema = self
            .named
            .get(name)
            .or_else(|| document.components.as_ref()?.schemas.get(name).and_then(ReferenceOr::as_item));
        matches!(
            schema.map(|schema| &schema.schema_kind),
            Some(openapiv3::SchemaKind::Type(openapiv3::Type::String(_)))
        )
    }

    /// The name of a body's schema: that of the component it refers to, or `name`, under which the schema is stored.
    fn schema_name(
        &mut self,
        document: &OpenAPI,
        schema: &ReferenceOr<Schema>,
        name: &str,
        place: &str,
    ) -> Result<String> {
        match schema {
            ReferenceOr::Reference { reference } => {
                Ok(reference.rsplit('/').next().unwrap_or_default().to_owned())
            }
            ReferenceOr::Item(schema) => {
                let taken = document.components.as_ref().is_some_and(|all| all.schemas.contains_key(name))
                    || self.named.get(name).is_some_and(|other| other != schema);
                if taken {
                    return unsupported(
                        place,
                        format!(
                            "its inline schema would be named `{name}`, which is taken: move it to components"
                        ),
                    );
                }
                self.named.insert(name.to_owned(), schema.clone());
                Ok(name.to_owned())
            }
        }
    }
}

/// Components that an operation may refer to.
pub(crate) trait Component: Sized {
    const SECTION: &'static str;
    fn section(components: &openapiv3::Components) -> &indexmap::IndexMap<String, ReferenceOr<Self>>;
}

macro_rules! component {
    ($type:ident, $field:ident, $section:literal) => {
        impl Component for openapiv3::$type {
            const SECTION: &'static str = $section;
            fn section(components: &openapiv3::Components) -> &indexmap::IndexMap<String, ReferenceOr<Self>> {
                &components.$field
            }
        }
    };
}
component!(RequestBody, request_bodies, "requestBodies");
component!(Response, responses, "responses");
component!(Parameter, parameters, "parameters");

/// The item itself, or the component that it refers to.
fn resolve<'d, T: Component>(item: &'d ReferenceOr<T>, document: &'d OpenAPI, place: &str) -> Result<&'d T> {
    match item {
        ReferenceOr::Item(item) => Ok(item),
        ReferenceOr::Reference { reference } => {
            let found = reference
                .strip_prefix(&format!("#/components/{}/", T::SECTION))
                .and_then(|name| T::section(document.components.as_ref()?).get(name)?.as_item());
            match found {
                Some(item) => Ok(item),
                None => unsupported(place, format!("the reference `{reference}` leads to no component")),
            }
        }
    }
}

/// Names that a parameter must not have: the local variables of a generated handler.
const TAKEN: [&str; 6] = ["body", "context", "denial", "implementor", "payload", "request"];

fn parameters(path: &str, declared: &[&openapiv3::Parameter], place: &str) -> Result<Vec<Parameter>> {
    let mut patterns = BTreeMap::new();
    let mut query = Vec::new();
    for parameter in declared {
        let data = parameter.parameter_data_ref();
        let wire_name = data.name.clone();
        match parameter {
            openapiv3::Parameter::Query { .. } => {
                query.push((wire_name, Location::Query { required: data.required }));
            }
            _ => {
                patterns.insert(wire_name, pattern(data));
            }
        }
    }
    let used = template_parameters(path, place)?;
    if !used.iter().collect::<BTreeSet<_>>().into_iter().eq(patterns.keys()) {
        return unsupported(place, format!("its parameters are not those of the path `{path}`"));
    }
    let used = used.into_iter().map(|wire_name| {
        let pattern = patterns.get(&wire_name).cloned().flatten();
        (wire_name, Location::Path { pattern })
    });
    let mut names = BTreeSet::new();
    let mut parameters = Vec::new();
    for (wire_name, location) in used.chain(query) {
        let name = wire_name.to_snake_case();
        if TAKEN.contains(&name.as_str()) || syn::parse_str::<syn::Ident>(&name).is_err() {
            return unsupported(place, format!("the parameter name `{wire_name}`"));
        }
        if !names.insert(name.clone()) {
            return unsupported(place, format!("the parameter name `{wire_name}`, which another one has"));
        }
        parameters.push(Parameter { wire_name, name, location });
    }
    Ok(parameters)
}

fn pattern(data: &openapiv3::ParameterData) -> Option<String> {
    let openapiv3::ParameterSchemaOrContent::Schema(ReferenceOr::Item(schema)) = &data.format else {
        return None;
    };
    match &schema.schema_kind {
        openapiv3::SchemaKind::Type(openapiv3::Type::String(text)) => text.pattern.clone(),
        _ => None,
    }
}

/// The challenge of a 401 of the contract; `None` if the contract has no `security`.
fn challenge(document: &OpenAPI) -> Result<Option<String>> {
    if document.security.iter().flatten().next().is_none() {
        return Ok(None);
    }
    let title = &document.info.title;
    if !title.chars().all(|c| c == ' ' || c.is_ascii_graphic()) || title.contains(['"', '\\']) {
        return unsupported(
            "the document",
            format!("the title `{title}` is the realm of its `security`, write it in ASCII without quotes"),
        );
    }
    Ok(Some(format!("Basic realm=\"{title}\", charset=\"UTF-8\"")))
}

/// The names in `/v1/{a}/{b}`.
fn template_parameters(path: &str, place: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for segment in path.split('/').skip(1) {
        if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            names.push(name.to_owned());
        } else if segment.is_empty()
            || !segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
        {
            return unsupported(place, format!("the segment `{segment}` of the path `{path}`"));
        }
    }
    Ok(names)
}

/// The variant of a response enum for a status.
fn variant(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "Ok",
        201 => "Created",
        202 => "Accepted",
        204 => "NoContent",
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "UnprocessableEntity",
        429 => "TooManyRequests",
        500 => "InternalServerError",
        501 => "NotImplemented",
        503 => "ServiceUnavailable",
        _ => return None,
    })
}

// ---- the check ----------------------------------------------------------------------------------------------------

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// `value` as an object with no keys except `known` and extensions.
fn object<'v>(place: &str, value: &'v Value, known: &[&str]) -> Result<&'v Map<String, Value>> {
    let Some(map) = value.as_object() else {
        return unsupported(place, "is not an object");
    };
    match map.keys().find(|key| !key.starts_with("x-") && !known.contains(&key.as_str())) {
        Some(key) => unsupported(place, format!("`{key}` is not supported")),
        None => Ok(map),
    }
}

/// The members of the object under `key`, if it exists.
fn members<'v>(map: &'v Map<String, Value>, key: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    map.get(key).and_then(Value::as_object).into_iter().flatten().filter(|(name, _)| !name.starts_with("x-"))
}

fn check_document(raw: &Value) -> Result<()> {
    let version = raw.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.0.") {
        return unsupported("the document", format!("OpenAPI version `{version}`, use 3.0.3"));
    }
    let known = ["openapi", "info", "servers", "security", "tags", "paths", "components", "externalDocs"];
    let document = object("the document", raw, &known)?;
    for (path, item) in members(document, "paths") {
        let place = format!("path `{path}`");
        let known = [&METHODS[..], &["summary", "description", "parameters"]].concat();
        let item = object(&place, item, &known)?;
        check_parameters(&place, item)?;
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                check_operation(&format!("{method} {path}"), operation)?;
            }
        }
    }
    check_security(document)?;
    if let Some(components) = document.get("components") {
        let known = ["schemas", "requestBodies", "responses", "parameters", "securitySchemes"];
        let components = object("components", components, &known)?;
        let names = members(components, "schemas").map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
        for (name, schema) in members(components, "schemas") {
            let place = format!("schema `{name}`");
            if *name != name.to_pascal_case() {
                return unsupported(
                    &place,
                    format!("its name is not in Pascal case, use `{}`", name.to_pascal_case()),
                );
            }
            if schema.get("$ref").is_some() {
                return unsupported(&place, "a schema that is only a `$ref`");
            }
        }
        for (name, body) in members(components, "requestBodies") {
            check_request_body(&format!("request body `{name}`"), body)?;
        }
        for (name, response) in members(components, "responses") {
            check_response(&format!("response `{name}`"), response)?;
        }
        for (name, parameter) in members(components, "parameters") {
            check_parameter(&format!("parameter `{name}`"), parameter)?;
        }
        for (name, schema) in members(components, "schemas") {
            check_schema(&format!("schema `{name}`"), schema)?;
        }
        check_references("the document", raw, &names)?;
    }
    Ok(())
}

/// Checks that the document has no security scheme, or only Basic, which the whole document requires.
fn check_security(document: &Map<String, Value>) -> Result<()> {
    let schemes = document.get("components").and_then(|components| components.get("securitySchemes"));
    let schemes = schemes.and_then(Value::as_object);
    for (name, scheme) in schemes.into_iter().flatten() {
        let place = format!("security scheme `{name}`");
        let text = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default();
        if (text("type"), text("scheme")) != ("http", "basic") {
            return unsupported(&place, "is not `type: http` with `scheme: basic`");
        }
        object(&place, scheme, &["type", "scheme", "description"])?;
    }
    let names = schemes.into_iter().flatten().map(|(name, _)| serde_json::json!({ name: [] }));
    let asked = document.get("security").and_then(Value::as_array).cloned().unwrap_or_default();
    if asked.len() > 1 || !names.eq(asked) {
        return unsupported("the document", "`security` other than the one scheme of `securitySchemes`");
    }
    Ok(())
}

fn check_operation(fallback: &str, raw: &Value) -> Result<()> {
    let place = match raw.get("operationId").and_then(Value::as_str) {
        Some(id) => format!("operation `{id}`"),
        None => fallback.to_owned(),
    };
    let known = [
        "operationId",
        "tags",
        "summary",
        "description",
        "externalDocs",
        "parameters",
        "requestBody",
        "responses",
    ];
    let operation = object(&place, raw, &known)?;
    check_parameters(&place, operation)?;
    if let Some(body) = operation.get("requestBody") {
        check_request_body(&place, body)?;
    }
    for (status, response) in members(operation, "responses") {
        if status == "default" {
            return unsupported(&place, "a `default` response, name the statuses");
        }
        check_response(&format!("{place}, response {status}"), response)?;
    }
    Ok(())
}

fn check_parameters(place: &str, owner: &Map<String, Value>) -> Result<()> {
    let parameters = owner.get("parameters").and_then(Value::as_array);
    parameters.into_iter().flatten().try_for_each(|parameter| check_parameter(place, parameter))
}

fn check_parameter(place: &str, raw: &Value) -> Result<()> {
    if raw.get("$ref").is_some() {
        return Ok(());
    }
    let name = raw.get("name").and_then(Value::as_str).unwrap_or_default();
    let location = raw.get("in").and_then(Value::as_str).unwrap_or_default();
    let place = format!("{place}, parameter `{name}`");
    let known: &[&str] = match location {
        "path" => &["type", "description", "example", "pattern"],
        "query" => &["type", "description", "example"],
        _ => return unsupported(&place, format!("a {location} parameter is not supported")),
    };
    let parameter = object(&place, raw, &["name", "in", "required", "description", "schema", "example"])?;
    let schema = object(&place, parameter.get("schema").unwrap_or(&Value::Null), known)?;
    if schema.get("type").and_then(Value::as_str) != Some("string") {
        return unsupported(&place, format!("a {location} parameter other than a string is not supported"));
    }
    schema.get("pattern").map_or(Ok(()), |pattern| check_pattern(&place, pattern))
}

fn check_pattern(place: &str, pattern: &Value) -> Result<()> {
    let text = pattern.as_str().unwrap_or_default();
    if let Err(error) = regex::Regex::new(text) {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        return unsupported(place, format!("the pattern `{text}` does not compile: {reason}"));
    }
    // ASCII in a contract, Unicode in the crate that checks them.
    if let Some(class) =
        ["\\d", "\\w", "\\s", "\\b"].iter().find(|class| text.to_lowercase().contains(**class))
    {
        return unsupported(place, format!("`{class}` in the pattern `{text}`, spell the characters out"));
    }
    Ok(())
}

fn check_request_body(place: &str, raw: &Value) -> Result<()> {
    if raw.get("$ref").is_some() {
        return Ok(());
    }
    let body = object(place, raw, &["description", "required", "content"])?;
    if body.get("required") != Some(&Value::Bool(true)) {
        return unsupported(place, "an optional request body is not supported, add `required: true`");
    }
    if let Some((media_type, _)) =
        members(body, "content").find(|(media_type, _)| *media_type != "application/json")
    {
        return unsupported(place, format!("a request body of type `{media_type}` is not supported"));
    }
    check_content(place, body)
}

fn check_response(place: &str, raw: &Value) -> Result<()> {
    if raw.get("$ref").is_some() {
        return Ok(());
    }
    // Links are for readers and testers; no code is generated from them.
    check_content(place, object(place, raw, &["description", "content", "links"])?)
}

fn check_content(place: &str, owner: &Map<String, Value>) -> Result<()> {
    for (media_type, media) in members(owner, "content") {
        let place = format!("{place}, `{media_type}`");
        if let Some(schema) = object(&place, media, &["schema", "example", "examples"])?.get("schema") {
            check_schema(&place, schema)?;
        }
    }
    Ok(())
}

fn check_schema(place: &str, raw: &Value) -> Result<()> {
    if raw.get("$ref").is_some() {
        object(place, raw, &["$ref"])?;
        return Ok(());
    }
    let anyway = ["type", "title", "description", "example", "nullable"];
    let known = |more: &[&'static str]| [&anyway[..], more].concat();
    let text = |key: &str| raw.get(key).and_then(Value::as_str);
    let format = |known: &[&str]| match text("format") {
        Some(format) if !known.contains(&format) => unsupported(place, format!("the format `{format}`")),
        _ => Ok(()),
    };
    match text("type") {
        None => {
            object(place, raw, &anyway)?;
        }
        Some("string") => {
            let schema = object(place, raw, &known(&["format", "enum", "default"]))?;
            format(&["date-time"])?;
            let values = schema.get("enum").and_then(Value::as_array);
            if values.into_iter().flatten().any(|value| !value.is_string()) {
                return unsupported(place, "an enum of other values than strings");
            }
        }
        Some("boolean") => {
            object(place, raw, &known(&["default"]))?;
        }
        Some("integer") => {
            let schema = object(place, raw, &known(&["format", "default", "minimum"]))?;
            format(&["int32", "int64"])?;
            if schema.get("minimum").is_some_and(|minimum| minimum.as_i64() != Some(0)) {
                return unsupported(place, "a `minimum` other than 0");
            }
            if schema.contains_key("minimum") && schema.contains_key("format") {
                return unsupported(
                    place,
                    "`minimum` beside `format`, the generated type would not enforce it",
                );
            }
        }
        Some("number") => {
            object(place, raw, &known(&["format", "default"]))?;
            format(&["float", "double"])?;
        }
        Some("array") => match object(place, raw, &known(&["items"]))?.get("items") {
            Some(items) => check_schema(&format!("{place}, items"), items)?,
            None => return unsupported(place, "an array without `items`"),
        },
        Some("object") => check_object(place, object(place, raw, &known(&OBJECT))?)?,
        Some(other) => return unsupported(place, format!("the type `{other}`")),
    }
    Ok(())
}

const OBJECT: [&str; 3] = ["properties", "required", "additionalProperties"];

fn check_object(place: &str, schema: &Map<String, Value>) -> Result<()> {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        check_schema(&format!("{place}, property `{name}`"), property)?;
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !properties.is_some_and(|properties| properties.contains_key(name)) {
            return unsupported(place, format!("it requires `{name}`, which is no property of it"));
        }
    }
    match schema.get("additionalProperties") {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) if properties.is_some() => unsupported(
            place,
            "`properties` beside `additionalProperties`; leave the latter out, objects are open",
        ),
        Some(Value::Bool(true)) => Ok(()),
        Some(values) => check_schema(&format!("{place}, additional properties"), values),
    }
}

/// Checks that every reference to a schema names an existing schema.
fn check_references(place: &str, raw: &Value, schemas: &BTreeSet<&str>) -> Result<()> {
    match raw {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let known = match reference.strip_prefix("#/components/schemas/") {
                    Some(name) => schemas.contains(name),
                    // `resolve` looks these up; there the operation that refers to them is known.
                    None => reference.starts_with("#/components/"),
                };
                if !known {
                    return unsupported(place, format!("the reference `{reference}` leads to no component"));
                }
            }
            for (key, value) in map {
                let place = match value.get("operationId").and_then(Value::as_str) {
                    Some(id) => format!("operation `{id}`"),
                    None if schemas.contains(key.as_str()) => format!("schema `{key}`"),
                    None => place.to_owned(),
                };
                check_references(&place, value, schemas)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_references(place, item, schemas)),
        _ => Ok(()),
    }
}
