//! Types that are equal in several contracts, generated once.
//!
//! The generated code decides, not a list. Two types are one if they have the same name, equal code (without
//! documentation, with the functions of their default values), and if the types that they refer to are also one. So a
//! shared type reads and writes the same bytes as the types that it replaces. If a name has several meanings, one of
//! them is shared: that of the first document that agrees with another.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Fields, Item};

use crate::spec::{Problem, Result};

/// The types of one module, in the order of their names.
#[derive(Default)]
pub(crate) struct Types {
    named: IndexMap<String, Type>,
    /// The items that belong to no type: the error of conversions, which every module of typify has.
    rest: TokenStream,
    /// The types that another module defines.
    shared: BTreeSet<String>,
}

/// A struct or an enum.
struct Type {
    /// Its definition, and its implementations.
    items: TokenStream,
    /// The functions of its default values.
    defaults: BTreeMap<String, TokenStream>,
    /// All of that as text, without documentation.
    code: String,
    /// The types of its fields.
    refers_to: BTreeSet<String>,
}

impl Types {
    /// Group the output of typify: a type, then its implementations; and at the end the module `defaults`.
    pub(crate) fn new(items: Vec<Item>) -> Result<Self> {
        let mut types = Self::default();
        let mut defaults = BTreeMap::new();
        let mut groups: IndexMap<String, [TokenStream; 2]> = IndexMap::new();
        for item in items {
            let tokens = item.to_token_stream();
            match item {
                Item::Struct(item) => {
                    groups.insert(item.ident.to_string(), [tokens, field_types(&item.fields)]);
                }
                Item::Enum(item) => {
                    let fields = item.variants.iter().map(|variant| field_types(&variant.fields));
                    groups.insert(item.ident.to_string(), [tokens, fields.collect()]);
                }
                Item::Impl(_) => match groups.last_mut() {
                    Some((_, [items, _])) => items.extend(tokens),
                    None => return Err(Problem::Syntax("an `impl` before all types".to_owned())),
                },
                Item::Mod(module) if module.ident == "defaults" => {
                    for item in module.content.into_iter().flat_map(|(_, items)| items) {
                        if let Item::Fn(function) = item {
                            defaults.insert(function.sig.ident.to_string(), function.into_token_stream());
                        }
                    }
                }
                _ => types.rest.extend(tokens),
            }
        }
        let names = groups.keys().cloned().collect::<BTreeSet<_>>();
        for (name, [items, fields]) in groups {
            let code = without_docs(items.clone()).to_string();
            let words = words(&code);
            let mut defaults = defaults.clone();
            defaults.retain(|name, _| words.contains(name.as_str()));
            let code = defaults.values().fold(code, |code, function| code + &function.to_string());
            let refers_to = local_names(fields).intersection(&names).cloned().collect();
            types.named.insert(name, Type { items, defaults, code, refers_to });
        }
        Ok(types)
    }

    /// The file `types.rs` of a contract.
    pub(crate) fn of_contract(&self) -> TokenStream {
        let names = self.shared.iter().map(|name| format_ident!("{name}"));
        let shared =
            (!self.shared.is_empty()).then(|| quote! { pub use super::super::shared::{#(#names),*}; });
        let items = self.items();
        quote! {
            //! The schemas of the contract.
            #shared
            #items
        }
    }

    /// The file `shared.rs`.
    pub(crate) fn of_all(&self) -> TokenStream {
        let items = self.items();
        quote! {
            //! The schemas that are equal in several contracts; each contract's `types` has them too.
            #items
        }
    }

    fn items(&self) -> TokenStream {
        let items = self.named.values().map(|it| &it.items);
        let defaults = self.named.values().flat_map(|it| &it.defaults).collect::<BTreeMap<_, _>>();
        let functions = defaults.values();
        let defaults = (!defaults.is_empty()).then(|| {
            quote! {
                /// Generation of default values for serde.
                pub mod defaults {
                    #(#functions)*
                }
            }
        });
        let rest = &self.rest;
        quote! { #(#items)* #defaults #rest }
    }
}

/// Move the types that are equal in several contracts out of these contracts, and return them.
pub(crate) fn take(contracts: &mut [Types]) -> Types {
    let members = members(contracts);
    let mut shared = Types::default();
    for (index, contract) in contracts.iter_mut().enumerate() {
        for (name, _) in members.iter().filter(|(_, alike)| alike.contains(&index)) {
            contract.shared.insert(name.clone());
            if let Some(own) = contract.named.shift_remove(name) {
                // The text of the first document is kept.
                shared.named.entry(name.clone()).or_insert(own);
                shared.rest = contract.rest.clone();
            }
        }
    }
    shared.named.sort_keys();
    shared
}

/// The shared names, each with the contracts that have the same type of that name.
fn members(contracts: &[Types]) -> BTreeMap<String, BTreeSet<usize>> {
    let mut members = BTreeMap::new();
    for name in contracts.iter().flat_map(|types| types.named.keys()) {
        let alike = |code: &str| {
            let all = contracts.iter().enumerate();
            all.filter(|(_, types)| types.named.get(name).is_some_and(|it| it.code == code))
                .map(|(index, _)| index)
                .collect::<BTreeSet<_>>()
        };
        let candidates = contracts.iter().filter_map(|types| types.named.get(name));
        if let Some(alike) = candidates.map(|it| alike(&it.code)).find(|alike| alike.len() > 1) {
            members.insert(name.clone(), alike);
        }
    }
    // A type that refers to a different type is different itself, and so on.
    loop {
        let is_shared = |name: &String, index: &usize| {
            members.get(name).is_some_and(|it: &BTreeSet<_>| it.contains(index))
        };
        let is_whole = |name: &String, index: &usize| {
            let of_contract = contracts.get(*index).and_then(|types| types.named.get(name));
            of_contract.is_some_and(|it| it.refers_to.iter().all(|other| is_shared(other, index)))
        };
        let kept = members.iter().map(|(name, alike)| {
            (
                name.clone(),
                alike.iter().copied().filter(|index| is_whole(name, index)).collect::<BTreeSet<_>>(),
            )
        });
        let kept = kept.filter(|(_, alike)| alike.len() > 1).collect::<BTreeMap<_, _>>();
        if kept == members {
            return members;
        }
        members = kept;
    }
}

fn field_types(fields: &Fields) -> TokenStream {
    fields.iter().map(|field| field.ty.to_token_stream()).collect()
}

/// The first segments of the paths in types: `Task` of `::std::vec::Vec<Task>`.
fn local_names(types: TokenStream) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut follows_colon = false;
    for token in types {
        match &token {
            TokenTree::Ident(ident) if !follows_colon => {
                names.insert(ident.to_string());
            }
            TokenTree::Group(group) => names.extend(local_names(group.stream())),
            _ => {}
        }
        follows_colon = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':');
    }
    names
}

/// The same code without `#[doc = "..."]`.
fn without_docs(tokens: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) if is_doc(&group) => {
                // Remove the `#` before the attribute, too.
                kept.pop();
            }
            TokenTree::Group(group) => {
                let inner = without_docs(group.stream());
                kept.push(proc_macro2::Group::new(group.delimiter(), inner).into());
            }
            token => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn is_doc(group: &proc_macro2::Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket
        && matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc")
}

/// All identifiers, also those in string literals: serde names functions there.
fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}
