//! The client view: the same contract in a form that progenitor supports.
//!
//! progenitor panics on an operation with two success or two error schemas, and a text/plain answer becomes an
//! untyped stream. So all answers of a class (success, error) get one schema, a named oneOf if there are several, and
//! text becomes a JSON string; the client's transport does the conversion (support/transport.rs). An answer without a
//! body beside others with one is left out of the view: the client reports it as an unexpected response.

use std::collections::BTreeMap;

use openapiv3::{
    Components, MediaType, OpenAPI, Operation, PathItem, ReferenceOr, RequestBody, Response, Responses,
    Schema, SchemaData, SchemaKind, StatusCode,
};

use crate::spec::{self, Contract, Location, Result, unsupported};

/// Make the view of a checked document.
pub(crate) fn client_view(document: &OpenAPI, contract: &Contract) -> Result<OpenAPI> {
    let components = document.components.clone().unwrap_or_default();
    let mut schemas = components.schemas;
    for (name, schema) in &contract.named {
        schemas.insert(name.clone(), ReferenceOr::Item(schema.clone()));
    }
    let mut alternatives = BTreeMap::new();
    let mut paths = openapiv3::Paths::default();
    for operation in &contract.operations {
        let item = paths
            .paths
            .entry(operation.path.clone())
            .or_insert_with(|| ReferenceOr::Item(PathItem::default()));
        let ReferenceOr::Item(item) = item else { continue };
        let view = view_of(operation, &mut alternatives);
        match operation.method.as_str() {
            "GET" => item.get = Some(view),
            "PUT" => item.put = Some(view),
            "POST" => item.post = Some(view),
            "DELETE" => item.delete = Some(view),
            "PATCH" => item.patch = Some(view),
            other => {
                return unsupported(&format!("operation `{}`", operation.id), format!("the method {other}"));
            }
        }
    }
    for (name, members) in alternatives {
        if schemas.contains_key(&name) {
            return unsupported(
                &format!("schema `{name}`"),
                "its name is needed for alternatives of answers, rename it",
            );
        }
        let one_of = members.iter().map(|member| reference(member)).collect();
        schemas.insert(
            name,
            ReferenceOr::Item(Schema {
                schema_data: SchemaData {
                    description: Some(format!(
                        "One of {}, distinguished by their fields",
                        members.join(", ")
                    )),
                    ..SchemaData::default()
                },
                schema_kind: SchemaKind::OneOf { one_of },
            }),
        );
    }
    schemas.sort_keys();
    Ok(OpenAPI {
        openapi: document.openapi.clone(),
        info: document.info.clone(),
        paths,
        components: Some(Components { schemas, ..Components::default() }),
        ..OpenAPI::default()
    })
}

fn view_of(operation: &spec::Operation, alternatives: &mut BTreeMap<String, Vec<String>>) -> Operation {
    let mut responses = Responses::default();
    let (success, error): (Vec<_>, Vec<_>) =
        operation.answers.iter().partition(|(status, _)| (200..300).contains(*status));
    for class in [success, error] {
        let mut members: Vec<String> = Vec::new();
        for name in class.iter().filter_map(|(_, answer)| answer.content.schema()) {
            if !members.iter().any(|member| member == name) {
                members.push(name.to_owned());
            }
        }
        let schema = members.join("Or");
        if members.len() > 1 {
            alternatives.insert(schema.clone(), members.clone());
        }
        for (status, answer) in class {
            let mut response = Response { description: answer.description.clone(), ..Response::default() };
            match (answer.content.schema(), members.is_empty()) {
                (Some(_), _) => response.content = json(&schema),
                (None, true) => {}
                (None, false) => continue,
            }
            responses.responses.insert(StatusCode::Code(*status), ReferenceOr::Item(response));
        }
    }
    Operation {
        operation_id: Some(operation.id.clone()),
        summary: Some(operation.summary.clone()),
        description: Some(operation.description.clone()),
        parameters: operation.parameters.iter().map(parameter).collect(),
        request_body: operation.body.as_ref().map(|schema| {
            ReferenceOr::Item(RequestBody { content: json(schema), required: true, ..RequestBody::default() })
        }),
        responses,
        ..Operation::default()
    }
}

fn parameter(parameter: &spec::Parameter) -> ReferenceOr<openapiv3::Parameter> {
    let schema = Schema {
        schema_data: SchemaData::default(),
        schema_kind: SchemaKind::Type(openapiv3::Type::String(openapiv3::StringType::default())),
    };
    let parameter_data = |required| openapiv3::ParameterData {
        name: parameter.wire_name.clone(),
        description: None,
        required,
        deprecated: None,
        format: openapiv3::ParameterSchemaOrContent::Schema(ReferenceOr::Item(schema)),
        example: None,
        examples: indexmap::IndexMap::new(),
        explode: None,
        extensions: indexmap::IndexMap::new(),
    };
    ReferenceOr::Item(match parameter.location {
        // Only the server checks a pattern: with it, progenitor would require a special type instead of text from
        // callers.
        Location::Path { .. } => openapiv3::Parameter::Path {
            parameter_data: parameter_data(true),
            style: openapiv3::PathStyle::Simple,
        },
        Location::Query { required } => openapiv3::Parameter::Query {
            parameter_data: parameter_data(required),
            allow_reserved: false,
            style: openapiv3::QueryStyle::Form,
            allow_empty_value: None,
        },
    })
}

fn json(schema: &str) -> indexmap::IndexMap<String, MediaType> {
    let media = MediaType { schema: Some(reference(schema)), ..MediaType::default() };
    indexmap::IndexMap::from([("application/json".to_owned(), media)])
}

fn reference<T>(schema: &str) -> ReferenceOr<T> {
    ReferenceOr::Reference { reference: format!("#/components/schemas/{schema}") }
}
