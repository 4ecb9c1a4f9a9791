//! Types and client, by progenitor, split into two files.

use proc_macro2::TokenStream;
use progenitor::{GenerationSettings, Generator, HooksMode};
use quote::quote;
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

use crate::shared::Types;
use crate::spec::{Problem, Result};

/// The output for a client view.
pub(crate) struct Parts {
    pub(crate) types: Types,
    pub(crate) client: TokenStream,
}

/// Run progenitor.
pub(crate) fn generate(view: &openapiv3::OpenAPI) -> Result<Parts> {
    let mut settings = GenerationSettings::default();
    // An ordered map, so that the same document gives the same bytes, and the same value the same JSON.
    settings
        .with_map_type("::std::collections::BTreeMap")
        .with_derive("PartialEq")
        .with_hooks(HooksMode::Expected);
    let tokens = Generator::new(&settings).generate_tokens(view).map_err(|error| Problem::Unsupported {
        place: "types and client".to_owned(),
        what: error.to_string(),
    })?;
    let file: syn::File = syn::parse2(tokens).map_err(|error| Problem::Syntax(error.to_string()))?;

    let mut types = Vec::new();
    let mut client = Vec::new();
    for item in file.items {
        match item {
            Item::Mod(module) if module.ident == "types" => {
                types = module.content.map(|(_, items)| items).unwrap_or_default();
            }
            item => client.push(item),
        }
    }
    types.iter_mut().for_each(shorten_docs);
    Ok(Parts {
        types: Types::new(types)?,
        client: quote! {
            //! A typed client. Answers of one class (success, error) with several schemas come as an enum; an answer
            //! that the contract does not declare is `Error::UnexpectedResponse`.
            use super::types;
            #(#client)*

            /// Converts answers to the one form that the methods above read: a token sent as text becomes JSON.
            impl ClientHooks<()> for Client {
                async fn exec(
                    &self,
                    request: reqwest::Request,
                    _info: &OperationInfo,
                ) -> reqwest::Result<reqwest::Response> {
                    super::super::transport::text_as_json(self.client.execute(request).await?).await
                }
            }
        },
    })
}

/// typify repeats each schema as JSON in the documentation; the document already has it.
fn shorten_docs(item: &mut Item) {
    let attributes = match item {
        Item::Struct(item) => &mut item.attrs,
        Item::Enum(item) => &mut item.attrs,
        _ => return,
    };
    for attribute in attributes {
        shorten_doc(attribute);
    }
}

fn shorten_doc(attribute: &mut Attribute) {
    if let Meta::NameValue(doc) = &mut attribute.meta
        && doc.path.is_ident("doc")
        && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &mut doc.value
    {
        let value = text.value();
        if let Some((kept, _)) = value.split_once("<details>") {
            *text = syn::LitStr::new(kept.trim_end(), text.span());
        }
    }
}
