//! serde's own attributes. Those that mean something for one field of a session are honoured, the rest
//! are refused: a price that is stored in another form than its attribute says is worse than an error.
//!
//! Where `#[session(…)]` says the same thing, it counts: serde's may be there for serde's derives.

use proc_macro2::{Ident, TokenStream};
use syn::{
    Attribute, Expr, LitStr, Path, Result, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    parse_quote,
    punctuated::Punctuated,
    token::Paren,
};

use super::{Field, Given, Input, string};
use crate::errors::Errors;

/// A word of `#[serde(…)]`, and what follows it.
struct Word {
    word: Ident,
    value: Option<Expr>,
    has_list: bool,
}

impl Parse for Word {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let word = input.call(Ident::parse_any)?;
        let has_list = input.peek(Paren);
        if has_list {
            let list;
            syn::parenthesized!(list in input);
            list.parse::<TokenStream>()?;
        }
        let equals: Option<Token![=]> = input.parse()?;
        let value = equals.map(|_| input.parse()).transpose()?;
        Ok(Self { word, value, has_list })
    }
}

/// What serde itself will complain of is left to it.
fn words(attributes: &[Attribute]) -> impl Iterator<Item = Word> {
    let parser = Punctuated::<Word, Token![,]>::parse_terminated;
    let serdes = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    serdes.filter_map(move |attribute| attribute.parse_args_with(parser).ok()).flatten()
}

impl Word {
    fn text(&self) -> Option<Given<LitStr>> {
        let value = string(self.value.as_ref()?)?;
        Some(Given { word: self.word.clone(), value })
    }

    fn path(&self, errors: &Errors) -> Option<Given<Path>> {
        let text = self.text()?;
        match text.value.parse() {
            Ok(value) => Some(Given { word: text.word, value }),
            Err(_) => {
                errors.at(&text.value, "write the path of a module or function in the quotes");
                None
            }
        }
    }
}

pub(super) fn on_struct(input: &mut Input<'_>, errors: &Errors) {
    for word in words(&input.written.attrs) {
        match word.word.to_string().as_str() {
            "rename_all" if word.has_list => errors.at(
                &word.word,
                "a session's keys are written and read alike; write \
                 `#[session(rename_all = \"…\")]`",
            ),
            "rename_all" if input.rename_all.is_none() => input.rename_all = word.text(),
            "default" => errors.at(
                &word.word,
                "each field of a session begins at its own default; write \
                 `#[session(default = …)]` on those that do not begin at their type's",
            ),
            // For serde's derives.
            _ => {}
        }
    }
}

pub(super) fn on_field(field: &mut Field<'_>, errors: &Errors) {
    for word in words(&field.written.attrs) {
        let name = word.word.to_string();
        match name.as_str() {
            "alias" => field.aliases.extend(word.text().filter(|alias| {
                field.aliases.iter().all(|known| known.value.value() != alias.value.value())
            })),
            "rename" if word.has_list => {
                errors.at(
                    &word.word,
                    "a session's keys are written and read alike; write `rename = \"key\"`",
                );
            }
            "rename" if field.rename.is_none() => field.rename = word.text(),
            "default" if field.default.is_none() && word.value.is_some() => {
                field.default = word.path(errors).map(|Given { word, value }| {
                    let value: Expr = parse_quote!(#value());
                    Given { word, value }
                });
            }
            "skip" if field.skip.is_none() => field.skip = Some(word.word),
            "with" => {
                if let Some(Given { word, value: module }) = word.path(errors) {
                    let path = |function: &str| {
                        let function = Ident::new(function, word.span());
                        Some(Given { word: word.clone(), value: parse_quote!(#module::#function) })
                    };
                    field.with.serialize = path("serialize");
                    field.with.deserialize = path("deserialize");
                }
            }
            "serialize_with" => field.with.serialize = word.path(errors),
            "deserialize_with" => field.with.deserialize = word.path(errors),
            "rename" | "default" | "skip" => {}
            "skip_serializing" | "skip_deserializing" => errors.at(
                &word.word,
                format!(
                    "a session stores a field and reads it, or neither; write `#[serde(skip)]`, or \
                     remove `{name}`"
                ),
            ),
            "skip_serializing_if" => errors.at(
                &word.word,
                "a session stores what was set, and a field that never was takes no room; remove \
                 `skip_serializing_if`",
            ),
            "flatten" => errors.at(
                &word.word,
                "each field of a session is stored by itself; remove `flatten`, or write the fields \
                 into the session's struct",
            ),
            _ => errors.at(
                &word.word,
                format!(
                    "`{name}` means nothing for a field of a session; remove it. Of serde's \
                     attributes there are `alias`, `default`, `deserialize_with`, `rename`, \
                     `serialize_with`, `skip` and `with`"
                ),
            ),
        }
    }
}
