//! OpenAPI 3.0.3 to Rust, at build time: the one place of the project that knows OpenAPI.
//!
//! For each contract the generator writes one module of four files:
//!
//! - `types`: the schemas, made by progenitor (typify);
//! - `responses`: one enum for each operation, with a variant for each declared status, so that an undeclared
//!   status or a wrong body does not compile. `decode` parses a received answer, with the schema of its status;
//! - `server`: one trait with a required method for each operationId, and `configure`, which mounts an implementor.
//!   Hand-written code never sees a path: a contract that moves a path changes generated code only. Where the
//!   document has `security`, `authorize` runs before every operation;
//! - `client`: a typed client, made by progenitor from a *client view* of the document (see `view`).
//!
//! Schemas that are equal in several documents are one type, in the module `shared`.
//!
//! It guarantees that the same documents give the same bytes, and that everything unsupported is an [`Error`] that
//! names the operation or the schema; nothing is skipped silently. It is no general OpenAPI implementation: it
//! supports what the contracts of this repository use.

mod client;
mod server;
mod shared;
mod spec;
#[cfg(test)]
mod tests;
mod view;
mod write;

use std::path::PathBuf;

pub use write::{Changes, WriteError, write_if_changed};

/// One generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, relative to the folder of all generated code.
    pub path: PathBuf,
    /// The whole content.
    pub content: String,
}

/// Why no code can be generated from a document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML, or not the shape of an OpenAPI document.
    #[error("{source_name} is not an OpenAPI document: {message}")]
    Syntax {
        /// The document.
        source_name: String,
        /// The message of the parser.
        message: String,
    },
    /// Possibly valid, but not supported by this generator.
    #[error("{source_name}: {place}: {what}")]
    Unsupported {
        /// The document.
        source_name: String,
        /// The operation or schema, e.g. "operation `provision`".
        place: String,
        /// What is not supported, and the remedy.
        what: String,
    },
    /// The generated code does not parse: a fault in the generator.
    #[error("{source_name}: the generated {file} does not parse: {message}")]
    Internal {
        /// The document.
        source_name: String,
        /// The generated file.
        file: String,
        /// The message of the parser.
        message: String,
    },
}

/// A document to generate from.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The whole document, in YAML.
    pub text: &'a str,
    /// Its path, for headers and errors.
    pub source_name: &'a str,
    /// The name of its module, in snake case. The server trait has the same name in Pascal case.
    pub module: &'a str,
}

/// Generate a module for each document, and `shared.rs` with the types that are equal in several of them.
pub fn generate(documents: &[Document<'_>]) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    let mut types = Vec::new();
    for Document { text, source_name, module } in documents {
        let of = |problem: spec::Problem| problem.of(source_name);
        let document = spec::read(text).map_err(of)?;
        let contract = spec::Contract::new(&document, module).map_err(of)?;
        let view = view::client_view(&document, &contract).map_err(of)?;
        let parts = client::generate(&view).map_err(of)?;
        files.extend([
            print(source_name, &format!("{module}/mod.rs"), server::module(&contract, source_name))?,
            print(source_name, &format!("{module}/responses.rs"), server::responses(&contract))?,
            print(source_name, &format!("{module}/server.rs"), server::server(&contract))?,
            print(source_name, &format!("{module}/client.rs"), parts.client)?,
        ]);
        types.push(parts.types);
    }
    files.push(print("spec/", "shared.rs", shared::take(&mut types).of_all())?);
    for (Document { source_name, module, .. }, types) in documents.iter().zip(&types) {
        files.push(print(source_name, &format!("{module}/types.rs"), types.of_contract())?);
    }
    Ok(files)
}

fn print(source_name: &str, path: &str, tokens: proc_macro2::TokenStream) -> Result<File, Error> {
    let syntax = syn::parse2(tokens).map_err(|error| Error::Internal {
        source_name: source_name.to_owned(),
        file: path.to_owned(),
        message: error.to_string(),
    })?;
    let content = format!("{}\n{}", header(source_name), prettyplease::unparse(&syntax));
    Ok(File { path: path.into(), content })
}

/// The files that all generated modules share: `mod.rs`, which declares them, and the hand-written support code.
pub fn common(modules: &[&str]) -> Vec<File> {
    let names = modules.iter().map(|name| format!("pub mod {name};\n")).collect::<String>();
    let root = format!(
        "{}\n\
         //! Generated code, one module per contract. Change the document in spec/ or the generator in codegen/, not
         //! this.\n\
         \n\
         // Lints are for code that people write; what matters here is what compiles and what the tests prove.\n\
         #![allow(clippy::all, clippy::allow_attributes, clippy::unwrap_used, clippy::expect_used, clippy::panic)]\n\
         #![allow(clippy::indexing_slicing, missing_docs, unreachable_pub, dead_code, unused_imports)]\n\
         \n\
         pub mod json;\n\
         pub mod runtime;\n\
         pub mod shared;\n\
         pub mod transport;\n\
         {names}",
        header("spec/")
    );
    let support = |path: &str, text: &str| File {
        path: path.into(),
        content: format!("{}\n{text}", header(&format!("codegen/support/{path}"))),
    };
    vec![
        File { path: "mod.rs".into(), content: root },
        support("json.rs", include_str!("../support/json.rs")),
        support("runtime.rs", include_str!("../support/runtime.rs")),
        support("transport.rs", include_str!("../support/transport.rs")),
    ]
}

/// The first lines of every generated file; [`write_if_changed`] recognises its own files by them.
fn header(source_name: &str) -> String {
    format!("{HEADER} {source_name}, do not edit: the next build undoes it.\n")
}

const HEADER: &str = "// @generated by codegen from";
