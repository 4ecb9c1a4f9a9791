//! The server side of a contract: response enums, the trait, the routes.

use std::collections::{BTreeMap, BTreeSet};

use heck::{ToShoutySnakeCase, ToSnakeCase};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::spec::{Answer, Content, Contract, Location, Operation, Parameter};

/// `mod.rs` of the contract's module.
pub(crate) fn module(contract: &Contract, source_name: &str) -> TokenStream {
    let intro = doc(&format!("{} {}, generated from `{source_name}`.", contract.title, contract.version));
    let description = doc(&contract.description);
    quote! {
        #![doc = #intro]
        #![doc = ""]
        #![doc = #description]

        pub mod client;
        pub mod responses;
        pub mod server;
        pub mod types;
    }
}

/// `responses.rs`.
pub(crate) fn responses(contract: &Contract) -> TokenStream {
    let responses = contract.operations.iter().map(|operation| response(contract, operation));
    let challenge = contract.challenge.as_ref().map(|challenge| {
        quote! {
            /// The challenge of every 401.
            const CHALLENGE: &str = #challenge;
        }
    });
    quote! {
        //! The answers of each operation: a variant for each declared status.
        use super::super::runtime::{self, Answer, DecodeError, DecodeProblem, TextOrJson};
        use super::types;

        #challenge

        #(#responses)*
    }
}

fn response(contract: &Contract, operation: &Operation) -> TokenStream {
    let name = response_name(operation);
    let operation_id = &operation.id;
    let intro = doc(&format!("Answers of `{operation_id}`. {}", operation.summary));
    let parts = operation
        .answers
        .iter()
        .map(|(status, answer)| variant(contract, operation, *status, answer))
        .collect::<Vec<_>>();
    let variants = parts.iter().map(|part| &part.declaration);
    let statuses = parts.iter().map(|part| &part.status);
    let decoders = parts.iter().map(|part| &part.decode);
    let responders = parts.iter().map(|part| &part.respond);
    let answers = parts.iter().map(|part| &part.answer);
    let is_empty = operation.answers.values().all(|answer| answer.content == Content::Empty);
    let content_type = if is_empty {
        quote! { _content_type }
    } else {
        quote! { content_type }
    };
    quote! {
        #[doc = #intro]
        #[derive(Clone, Debug, PartialEq)]
        pub enum #name {
            #(#variants)*
        }

        impl #name {
            /// The operation in the contract.
            pub const OPERATION_ID: &'static str = #operation_id;

            /// The HTTP status.
            pub fn status(&self) -> u16 {
                match self {
                    #(#statuses)*
                }
            }

            /// Read an answer of this operation: the status picks the schema.
            pub fn decode(status: u16, #content_type: Option<&str>, body: &[u8]) -> Result<Self, DecodeError> {
                let decoded = match status {
                    #(#decoders)*
                    _ => Err(DecodeProblem::Status),
                };
                decoded.map_err(|problem| DecodeError { operation_id: Self::OPERATION_ID, status, problem })
            }
        }

        impl actix_web::Responder for #name {
            type Body = actix_web::body::BoxBody;

            fn respond_to(self, _request: &actix_web::HttpRequest) -> actix_web::HttpResponse {
                match self {
                    #(#responders)*
                }
            }
        }

        #(#answers)*
    }
}

/// One variant of a response enum, as it appears in each generated item.
struct Variant {
    declaration: TokenStream,
    status: TokenStream,
    decode: TokenStream,
    respond: TokenStream,
    answer: TokenStream,
}

fn variant(contract: &Contract, operation: &Operation, status: u16, answer: &Answer) -> Variant {
    let response = response_name(operation);
    let write = |response: TokenStream| match (status, &contract.challenge) {
        (401, Some(_)) => quote! { runtime::challenge(#response, CHALLENGE) },
        _ => response,
    };
    let name = format_ident!("{}", answer.variant);
    let intro = doc(&format!("{status}: {}", answer.description));
    let implement = |body: TokenStream, pattern: TokenStream, value: TokenStream| {
        quote! {
            impl Answer<#status, #body> for #response {
                fn answer(#pattern: #body) -> Self {
                    #value
                }
            }
        }
    };
    match &answer.content {
        Content::Empty => Variant {
            declaration: quote! { #[doc = #intro] #name, },
            status: quote! { Self::#name => #status, },
            decode: quote! { #status => runtime::decode_empty(body).map(|()| Self::#name), },
            respond: {
                let response = write(quote! { runtime::empty_response(#status) });
                quote! { Self::#name => #response, }
            },
            answer: implement(quote! { () }, quote! { _ }, quote! { Self::#name }),
        },
        Content::Json(schema) | Content::Text(schema) => {
            let schema = format_ident!("{schema}");
            let is_text = matches!(answer.content, Content::Text(_));
            let (decode, respond) = if is_text {
                (quote! { decode_text }, quote! { text_response })
            } else {
                (quote! { decode_json }, quote! { json_response })
            };
            Variant {
                declaration: quote! { #[doc = #intro] #name(types::#schema), },
                status: quote! { Self::#name(_) => #status, },
                decode: quote! { #status => runtime::#decode(content_type, body).map(Self::#name), },
                respond: {
                    let response = write(quote! { runtime::#respond(#status, &body) });
                    quote! { Self::#name(body) => #response, }
                },
                answer: implement(quote! { types::#schema }, quote! { body }, quote! { Self::#name(body) }),
            }
        }
        Content::TextOrJson(schema) => {
            let schema = format_ident!("{schema}");
            Variant {
                declaration: quote! { #[doc = #intro] #name(types::#schema, TextOrJson), },
                status: quote! { Self::#name(..) => #status, },
                decode: quote! {
                    #status => runtime::decode_text_or_json(content_type, body)
                        .map(|(body, form)| Self::#name(body, form)),
                },
                respond: quote! {
                    Self::#name(body, TextOrJson::Text) => runtime::text_response(#status, &body),
                    Self::#name(body, TextOrJson::Json) => runtime::json_response(#status, &body),
                },
                answer: implement(
                    quote! { (types::#schema, TextOrJson) },
                    quote! { (body, form) },
                    quote! { Self::#name(body, form) },
                ),
            }
        }
    }
}

/// `server.rs`.
pub(crate) fn server(contract: &Contract) -> TokenStream {
    let trait_name = format_ident!("{}", contract.trait_name);
    let intro = doc(&format!(
        "{} {}, as its implementor sees it: a method an operation.",
        contract.title, contract.version
    ));
    let constants = contract.operations.iter().map(operation_constant);
    let names = contract.operations.iter().map(constant_name);
    let patterns = contract.operations.iter().flat_map(patterns);
    let guards = guards(contract);
    let refusals = refusals(contract);
    let error = error(contract);
    let methods = contract.operations.iter().map(method);
    let handlers = contract.operations.iter().map(|operation| handler(contract, operation));
    let resources = resources(contract);
    quote! {
        //! The trait that serves the contract, and its routes.
        use std::future::Future;

        use actix_web::{HttpRequest, web};

        use super::super::runtime::{self, IntoResponse, Limits, Operation, Rejection, RequestContext};
        use super::{responses::*, types};

        #(#constants)*

        /// All operations of the contract.
        pub const OPERATIONS: &[Operation] = &[#(#names),*];

        #(#patterns)*

        #[doc = #intro]
        ///
        /// A request that does not match its schema never reaches a method: `reject...` gives the answer.
        pub trait #trait_name: Sized + Send + Sync + 'static {
            #error

            /// Limits on the reading of a request body.
            fn limits(&self) -> Limits {
                Limits::default()
            }

            #(#guards)*
            #(#refusals)*
            #(#methods)*
        }

        /// Mount an implementor under a prefix; `/` for no prefix.
        ///
        /// A method that a path does not have is answered 405 with Allow; an unknown path is left to the application.
        pub fn configure<T: #trait_name>(
            config: &mut web::ServiceConfig,
            prefix: &str,
            implementor: &web::Data<T>,
        ) {
            #resources
        }

        #(#handlers)*
    }
}

fn operation_constant(operation: &Operation) -> TokenStream {
    let name = constant_name(operation);
    let Operation { id, method, path, .. } = operation;
    let statuses = operation.answers.keys();
    let intro = doc(&format!("`{method} {path}`: {}", operation.summary));
    quote! {
        #[doc = #intro]
        pub const #name: Operation = Operation {
            operation_id: #id,
            method: #method,
            path: #path,
            statuses: &[#(#statuses),*],
        };
    }
}

fn constant_name(operation: &Operation) -> syn::Ident {
    format_ident!("{}", operation.id.to_shouty_snake_case())
}

fn response_name(operation: &Operation) -> syn::Ident {
    format_ident!("{}Response", operation.pascal)
}

/// The patterns of an operation's parameters, each compiled once.
fn patterns(operation: &Operation) -> impl Iterator<Item = TokenStream> {
    operation.parameters.iter().filter_map(|parameter| match &parameter.location {
        Location::Path { pattern: Some(pattern) } => {
            let name = pattern_name(operation, parameter);
            Some(quote! { static #name: runtime::Pattern = runtime::Pattern::new(#pattern); })
        }
        _ => None,
    })
}

fn pattern_name(operation: &Operation, parameter: &Parameter) -> syn::Ident {
    format_ident!("{}_{}_PATTERN", operation.id.to_shouty_snake_case(), parameter.name.to_shouty_snake_case())
}

/// The answers to a caller that is refused: the variant of the runtime's `Denial`, and its status.
const DENIALS: [(&str, u16); 3] = [("Unauthorized", 401), ("Forbidden", 403), ("Unavailable", 500)];

/// The required trait methods of a contract with security: the authorization, and a body for each schema of a
/// refusal.
fn guards(contract: &Contract) -> Vec<TokenStream> {
    if contract.challenge.is_none() {
        return Vec::new();
    }
    let mut methods = vec![quote! {
        /// Whether the caller may call this operation; runs before its parameters and its body are read.
        fn authorize(&self, context: &RequestContext) -> impl Future<Output = Result<(), runtime::Denial>>;
    }];
    let answers = contract.operations.iter().flat_map(|operation| {
        DENIALS.iter().filter_map(|(_, status)| operation.answers.get(status)?.content.schema())
    });
    methods.extend(answers.collect::<BTreeSet<_>>().into_iter().map(|schema| {
        let name = deny_name(schema);
        let schema = format_ident!("{schema}");
        quote! {
            /// The body of 401, 403 or 500, for a caller that is refused.
            fn #name(&self, context: &RequestContext, denial: &runtime::Denial) -> types::#schema;
        }
    }));
    methods
}

fn deny_name(schema: &str) -> syn::Ident {
    format_ident!("deny_with_{}", schema.to_snake_case())
}

/// How a request that does not match the contract is answered.
enum Refusal<'c> {
    /// Impossible: the operation reads nothing of the request.
    Never,
    /// 400 without a body.
    Empty,
    /// 400 with this schema; the implementor creates the body.
    Schema(&'c str),
    /// The contract has no 400: the implementor creates the whole response.
    Response,
}

fn refusal(operation: &Operation) -> Refusal<'_> {
    if operation.body.is_none() && operation.parameters.is_empty() {
        return Refusal::Never;
    }
    match operation.answers.get(&400).map(|answer| &answer.content) {
        None => Refusal::Response,
        Some(content) => content.schema().map_or(Refusal::Empty, Refusal::Schema),
    }
}

/// The required trait methods that refuse: one for each schema, and one for each operation without a 400.
fn refusals(contract: &Contract) -> Vec<TokenStream> {
    let mut methods = BTreeMap::new();
    for operation in &contract.operations {
        match refusal(operation) {
            Refusal::Never | Refusal::Empty => {}
            Refusal::Schema(schema) => {
                let name = format_ident!("reject_with_{}", schema.to_snake_case());
                let schema = format_ident!("{schema}");
                let method = quote! {
                    /// The body of 400, for a request that does not match its schema.
                    fn #name(&self, context: &RequestContext, rejection: Rejection) -> types::#schema;
                };
                methods.insert(name.to_string(), method);
            }
            Refusal::Response => {
                let name = format_ident!("reject_{}", operation.name);
                let response = response_name(operation);
                let intro = doc(&format!(
                    "The answer to a request of `{}` that does not fit its schema; the contract declares no 400.",
                    operation.id
                ));
                let method = quote! {
                    #[doc = #intro]
                    fn #name(&self, context: &RequestContext, rejection: Rejection) -> #response;
                };
                methods.insert(name.to_string(), method);
            }
        }
    }
    methods.into_values().collect()
}

/// Whether the contract declares a status for an error of the server.
///
/// Without one, no declared answer fits, so the method returns the response and cannot fail.
fn can_fail(operation: &Operation) -> bool {
    [500, 501].iter().any(|status| operation.answers.contains_key(status))
}

/// The error type of the methods, which must become a response of each operation that can fail.
fn error(contract: &Contract) -> Option<TokenStream> {
    let responses = contract.operations.iter().filter(|it| can_fail(it)).map(response_name);
    let bounds = responses.map(|response| quote! { IntoResponse<Self, #response> }).collect::<Vec<_>>();
    (!bounds.is_empty()).then(|| {
        quote! {
            /// The error of an operation. It becomes one of the answers that the contract declares for the operation.
            type Error: #(#bounds)+*;
        }
    })
}

fn method(operation: &Operation) -> TokenStream {
    let name = format_ident!("{}", operation.name);
    let response = response_name(operation);
    let mut docs = vec![doc(&operation.summary)];
    if !operation.description.is_empty() && operation.description != operation.summary {
        docs.extend([String::new(), doc(&operation.description)]);
    }
    let parameters = names(operation);
    let types = operation.parameters.iter().map(|parameter| match parameter.location {
        Location::Path { .. } | Location::Query { required: true } => quote! { String },
        Location::Query { required: false } => quote! { Option<String> },
    });
    let body = operation.body.as_ref().map(|schema| {
        let schema = format_ident!("{schema}");
        quote! { , body: types::#schema }
    });
    let output = if can_fail(operation) {
        quote! { Result<#response, Self::Error> }
    } else {
        quote! { #response }
    };
    quote! {
        #(#[doc = #docs])*
        fn #name(
            &self,
            context: &RequestContext
            #(, #parameters: #types)*
            #body
        ) -> impl Future<Output = #output>;
    }
}

/// Asks the implementor to authorize the caller, and answers a caller that is refused.
fn guard(operation: &Operation) -> TokenStream {
    let response = response_name(operation);
    let drain = drain();
    let answers = DENIALS.iter().filter_map(|(denial, status)| {
        let answer = operation.answers.get(status)?;
        let (denial, variant) = (format_ident!("{denial}"), format_ident!("{}", answer.variant));
        let body = answer.content.schema().map(|schema| {
            let deny = deny_name(schema);
            quote! { (implementor.#deny(&context, &denial)) }
        });
        Some(quote! { runtime::Denial::#denial(_) => #response::#variant #body, })
    });
    quote! {
        if let Err(denial) = implementor.authorize(&context).await {
            #drain
            return match denial {
                #(#answers)*
            };
        }
    }
}

fn drain() -> TokenStream {
    quote! { runtime::drain(payload, &implementor.limits()).await; }
}

/// The arm that answers a request that does not match, after `first`.
fn refuse(operation: &Operation, first: Option<TokenStream>) -> TokenStream {
    let response = response_name(operation);
    let (rejection, answer) = match refusal(operation) {
        Refusal::Never => return quote! {},
        Refusal::Empty => (quote! { _ }, quote! { #response::BadRequest }),
        Refusal::Schema(schema) => {
            let reject = format_ident!("reject_with_{}", schema.to_snake_case());
            (quote! { rejection }, quote! { #response::BadRequest(implementor.#reject(&context, rejection)) })
        }
        Refusal::Response => {
            let reject = format_ident!("reject_{}", operation.name);
            (quote! { rejection }, quote! { implementor.#reject(&context, rejection) })
        }
    };
    match first {
        None => quote! { Err(#rejection) => return #answer, },
        Some(first) => quote! { Err(#rejection) => { #first return #answer; } },
    }
}

fn read_parameter(operation: &Operation, parameter: &Parameter) -> TokenStream {
    let wire_name = &parameter.wire_name;
    match &parameter.location {
        Location::Path { pattern: None } => quote! { runtime::path_parameter(&request, #wire_name) },
        Location::Path { pattern: Some(_) } => {
            let pattern = pattern_name(operation, parameter);
            quote! { runtime::path_parameter(&request, #wire_name).and_then(|value| #pattern.check(#wire_name, value)) }
        }
        Location::Query { required: false } => quote! { runtime::query_parameter(&request, #wire_name) },
        Location::Query { required: true } => {
            quote! { runtime::required_query_parameter(&request, #wire_name) }
        }
    }
}

/// The parameters of an operation, with their Rust names.
fn names(operation: &Operation) -> Vec<syn::Ident> {
    operation.parameters.iter().map(|parameter| format_ident!("{}", parameter.name)).collect()
}

fn handler(contract: &Contract, operation: &Operation) -> TokenStream {
    let trait_name = format_ident!("{}", contract.trait_name);
    let name = handler_name(operation);
    let method = format_ident!("{}", operation.name);
    let constant = constant_name(operation);
    let response = response_name(operation);
    let guard = contract.challenge.as_ref().map(|_| guard(operation));
    let refuse_body = refuse(operation, None);
    // Read the body before a refusal: a client that is still sending would not read the answer.
    let refuse_parameter = refuse(operation, operation.body.as_ref().map(|_| drain()));
    let names = names(operation);
    let reads = operation.parameters.iter().map(|parameter| read_parameter(operation, parameter));
    let answer_error = can_fail(operation).then(|| {
        quote! { .unwrap_or_else(|error| IntoResponse::<T, #response>::into_response(error, &context)) }
    });
    let (read_body, pass_body) = match &operation.body {
        None => (quote! { drop(payload); }, quote! {}),
        Some(schema) => {
            let schema = format_ident!("{schema}");
            let read = quote! {
                let read = runtime::read_json::<types::#schema>(&request, payload, &implementor.limits()).await;
                let body = match read {
                    Ok(body) => body,
                    #refuse_body
                };
            };
            (read, quote! { , body })
        }
    };
    quote! {
        async fn #name<T: #trait_name>(
            implementor: web::Data<T>,
            request: HttpRequest,
            payload: web::Payload,
        ) -> #response {
            let context = RequestContext::new(#constant, request.clone());
            #guard
            #(
                let #names = match #reads {
                    Ok(value) => value,
                    #refuse_parameter
                };
            )*
            #read_body
            implementor.#method(&context #(, #names)* #pass_body).await #answer_error
        }
    }
}

fn handler_name(operation: &Operation) -> syn::Ident {
    format_ident!("serve_{}", operation.name)
}

/// One resource for each path. Literal segments go before parameters, because actix takes the first match.
fn resources(contract: &Contract) -> TokenStream {
    let mut paths: Vec<(&str, Vec<&Operation>)> = Vec::new();
    for operation in &contract.operations {
        match paths.iter_mut().find(|(path, _)| *path == operation.path) {
            Some((_, operations)) => operations.push(operation),
            None => paths.push((&operation.path, vec![operation])),
        }
    }
    paths
        .sort_by_key(|(path, _)| path.split('/').map(|segment| segment.starts_with('{')).collect::<Vec<_>>());
    let resources = paths.iter().map(|(path, operations)| {
        // An operation for GET answers HEAD, too, with the same status and headers: the server omits the body.
        let methods = operations.iter().flat_map(|operation| match operation.method.as_str() {
            "GET" => vec!["GET", "HEAD"],
            method => vec![method],
        });
        let allow = methods.collect::<Vec<_>>().join(", ");
        let routes = operations.iter().map(|operation| {
            let route = match operation.method.as_str() {
                "GET" => quote! {
                    route().guard(actix_web::guard::Any(actix_web::guard::Get()).or(actix_web::guard::Head()))
                },
                method => {
                    let method = format_ident!("{}", method.to_lowercase());
                    quote! { #method() }
                }
            };
            let handler = handler_name(operation);
            quote! {
                .route({
                    let implementor = implementor.clone();
                    web::#route.to(move |request: HttpRequest, payload: web::Payload| {
                        #handler(implementor.clone(), request, payload)
                    })
                })
            }
        });
        quote! {
            config.service(
                web::resource(runtime::mount(prefix, #path))
                    #(#routes)*
                    .default_service(web::to(|| async { runtime::method_not_allowed(#allow) })),
            );
        }
    });
    quote! { #(#resources)* }
}

/// A text as a doc comment: a space at the start of each line.
fn doc(text: &str) -> String {
    text.trim().lines().map(|line| format!(" {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
