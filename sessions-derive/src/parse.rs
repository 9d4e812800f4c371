//! Reads a struct and its `#[session(…)]` attributes as they were written, with their spans.
//! Whether they make sense together is for `check` to say.

use proc_macro2::Ident;
use syn::{
    Attribute, Data, DeriveInput, Expr, Fields, Lit, LitStr, Path, Result, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    token::Paren,
};

use crate::{
    errors::Errors,
    names::{list, suggestion},
};

mod serde;

const ALIAS: &str = "alias";
const CODEC: &str = "codec";
const CRATE: &str = "crate";
const DEFAULT: &str = "default";
const FLASH: &str = "flash";
const INTO: &str = "into";
const MERGE: &str = "merge";
const NAME: &str = "name";
const RENAME: &str = "rename";
const RENAME_ALL: &str = "rename_all";
const SECRET: &str = "secret";
const SKIP: &str = "skip";
const TTL: &str = "ttl";
const USER: &str = "user";
const VERSION: &str = "version";

/// A place for `#[session(…)]`.
struct Place {
    name: &'static str,
    /// The words that it takes, each with how it is written.
    words: &'static [(&'static str, &'static str)],
    /// Words of serde or of other libraries that are looked for here, each with what to write.
    other_words: &'static [(&'static str, &'static str)],
}

const ON_FIELD: Place = Place {
    name: "a field",
    words: &[
        (ALIAS, r#"alias = "old key""#),
        (CODEC, "codec = json"),
        (DEFAULT, "default = …"),
        (FLASH, FLASH),
        (INTO, INTO),
        (MERGE, "merge = add"),
        (RENAME, r#"rename = "key""#),
        (SECRET, SECRET),
        (SKIP, SKIP),
        (TTL, r#"ttl = "10m""#),
        (USER, USER),
        (VERSION, "version = 2"),
    ],
    other_words: &[
        ("deserialize_with", r#"#[serde(deserialize_with = "…")]"#),
        ("encrypted", "#[session(secret)]"),
        ("expires", r#"#[session(ttl = "10m")]"#),
        ("ignore", "#[session(skip)]"),
        ("key", r#"#[session(rename = "key")]"#),
        ("max_age", r#"#[session(ttl = "10m")]"#),
        ("serialize_with", r#"#[serde(serialize_with = "…")]"#),
        ("user_id", "#[session(user)]"),
        ("with", r#"#[serde(with = "…")]"#),
    ],
};

const ON_STRUCT: Place = Place {
    name: "the struct",
    words: &[
        (CRATE, "crate = path::to::sessions"),
        (NAME, r#"name = "Visitor""#),
        (RENAME_ALL, r#"rename_all = "camelCase""#),
    ],
    other_words: &[],
};

impl Place {
    fn words(&self) -> impl Iterator<Item = &'static str> {
        self.words.iter().map(|&(word, _)| word)
    }

    fn usage(&self, word: &str) -> Option<&'static str> {
        self.words.iter().find(|&&(name, _)| name == word).map(|&(_, usage)| usage)
    }
}

/// What `user` takes, if anything.
const NAMES: &str = "nothing, or the path of a function, without quotes";
const CODECS: &str = "`bincode`, `postcard`, `messagepack` or `json`, without quotes";
const MERGES: &str = "`add`, `union` or the path of a function, without quotes";

/// The struct as written.
pub(crate) struct Input<'a> {
    pub(crate) written: &'a DeriveInput,
    pub(crate) krate: Option<Given<Path>>,
    pub(crate) name: Option<Given<LitStr>>,
    pub(crate) rename_all: Option<Given<LitStr>>,
    pub(crate) fields: Vec<Field<'a>>,
}

/// A named field as written.
pub(crate) struct Field<'a> {
    pub(crate) written: &'a syn::Field,
    pub(crate) ident: &'a Ident,
    pub(crate) aliases: Vec<Given<LitStr>>,
    pub(crate) codec: Option<Given<Path>>,
    pub(crate) default: Option<Given<Expr>>,
    pub(crate) flash: Option<Ident>,
    pub(crate) into: Option<Ident>,
    pub(crate) merge: Option<Given<Path>>,
    pub(crate) rename: Option<Given<LitStr>>,
    pub(crate) secret: Option<Ident>,
    pub(crate) skip: Option<Ident>,
    pub(crate) ttl: Option<Given<LitStr>>,
    pub(crate) user: Option<Given<Option<Path>>>,
    pub(crate) version: Option<Given<u32>>,
    pub(crate) with: With,
}

/// The functions that a field is stored with, of serde's attributes.
#[derive(Default)]
pub(crate) struct With {
    pub(crate) serialize: Option<Given<Path>>,
    pub(crate) deserialize: Option<Given<Path>>,
}

impl With {
    pub(crate) fn word(&self) -> Option<&Ident> {
        self.serialize.as_ref().or(self.deserialize.as_ref()).map(|given| &given.word)
    }
}

/// What an attribute's word was given, and where the word stands.
pub(crate) struct Given<T> {
    pub(crate) word: Ident,
    pub(crate) value: T,
}

pub(crate) fn parse<'a>(written: &'a DeriveInput, errors: &Errors) -> Input<'a> {
    let mut input =
        Input { written, krate: None, name: None, rename_all: None, fields: Vec::new() };
    for entry in entries(&written.attrs, &ON_STRUCT, errors) {
        match entry.word.to_string().as_str() {
            CRATE => entry.once(&mut input.krate, "a path without quotes", path),
            NAME => entry.once(&mut input.name, "a string", string),
            RENAME_ALL => entry.once(&mut input.rename_all, "a string", string),
            word => entry.unknown(word, &ON_FIELD),
        }
    }
    serde::on_struct(&mut input, errors);
    if let Data::Struct(data) = &written.data
        && let Fields::Named(fields) = &data.fields
    {
        input.fields.extend(fields.named.iter().filter_map(|written| field(written, errors)));
    }
    input
}

fn field<'a>(written: &'a syn::Field, errors: &Errors) -> Option<Field<'a>> {
    let mut field = Field {
        written,
        ident: written.ident.as_ref()?,
        aliases: Vec::new(),
        codec: None,
        default: None,
        flash: None,
        into: None,
        merge: None,
        rename: None,
        secret: None,
        skip: None,
        ttl: None,
        user: None,
        version: None,
        with: With::default(),
    };
    for entry in entries(&written.attrs, &ON_FIELD, errors) {
        match entry.word.to_string().as_str() {
            ALIAS => field.aliases.extend(entry.value("a string", string)),
            CODEC => entry.once(&mut field.codec, CODECS, path),
            DEFAULT => entry.once(&mut field.default, "an expression", |value| Some(value.clone())),
            FLASH => entry.flag(&mut field.flash),
            INTO => entry.flag(&mut field.into),
            MERGE => entry.once(&mut field.merge, MERGES, path),
            RENAME => entry.once(&mut field.rename, "a string", string),
            SECRET => entry.flag(&mut field.secret),
            SKIP => entry.flag(&mut field.skip),
            TTL => entry.once(&mut field.ttl, "a time in quotes", string),
            USER if entry.written.is_none() => entry.once_alone(&mut field.user),
            USER => entry.once(&mut field.user, NAMES, |value| path(value).map(Some)),
            VERSION => entry.once(&mut field.version, "a whole number below 2³²", number),
            word => entry.unknown(word, &ON_STRUCT),
        }
    }
    serde::on_field(&mut field, errors);
    Some(field)
}

/// One word of an attribute, with the value that it was given.
struct Entry<'a> {
    word: Ident,
    written: Option<Expr>,
    place: &'a Place,
    errors: &'a Errors,
}

/// The words of all `#[session(…)]` among the attributes.
fn entries<'a>(
    attributes: &[Attribute],
    place: &'a Place,
    errors: &'a Errors,
) -> impl Iterator<Item = Entry<'a>> {
    let parser = Punctuated::<WordAndValue, Token![,]>::parse_terminated;
    let ours = attributes.iter().filter(|attribute| attribute.path().is_ident("session"));
    let read = ours.filter_map(move |attribute| {
        attribute.parse_args_with(parser).map_err(|error| errors.push(error)).ok()
    });
    let read: Vec<WordAndValue> = read.flatten().collect();
    read.into_iter().map(|WordAndValue(word, written)| Entry { word, written, place, errors })
}

struct WordAndValue(Ident, Option<Expr>);

impl Parse for WordAndValue {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let word = input.call(Ident::parse_any)?;
        if input.peek(Paren) {
            return Err(input.error(format!("write `{word} = …` instead of `{word}(…)`")));
        }
        let equals: Option<Token![=]> = input.parse()?;
        let value = equals.map(|_| input.parse()).transpose()?;
        Ok(Self(word, value))
    }
}

impl Entry<'_> {
    /// Puts the value into its slot, unless there is one already.
    fn once<T>(self, slot: &mut Option<Given<T>>, kind: &str, read: fn(&Expr) -> Option<T>) {
        match slot {
            Some(_) => self.repeated(),
            None => *slot = self.value(kind, read),
        }
    }

    /// Puts a word that has no value here, but may have one, into its slot.
    fn once_alone<T>(self, slot: &mut Option<Given<Option<T>>>) {
        match slot {
            Some(_) => self.repeated(),
            None => *slot = Some(Given { word: self.word, value: None }),
        }
    }

    /// Puts the word itself into its slot.
    fn flag(self, slot: &mut Option<Ident>) {
        match (&self.written, &slot) {
            (Some(value), _) => {
                let message = format!("`{0}` takes no value; write `{0}` alone", self.word);
                self.errors.at(value, message);
            }
            (None, Some(_)) => self.repeated(),
            (None, None) => *slot = Some(self.word),
        }
    }

    fn repeated(&self) {
        let message = format!("`{}` is specified more than once; keep one of them", self.word);
        self.errors.at(&self.word, message);
    }

    fn value<T>(self, kind: &str, read: fn(&Expr) -> Option<T>) -> Option<Given<T>> {
        let Self { word, written, place, errors } = self;
        let usage = place.usage(&word.to_string()).unwrap_or_default();
        let Some(expression) = written else {
            // In serde it stands alone.
            let without =
                if word == DEFAULT { ", or nothing for the type's own default" } else { "" };
            errors.at(&word, format!("`{word}` needs a value; write `{usage}`{without}"));
            return None;
        };
        let value = read(&expression);
        if value.is_none() {
            errors.at(expression, format!("`{word}` takes {kind}; write `{usage}`"));
        }
        value.map(|value| Given { word, value })
    }

    fn unknown(self, word: &str, elsewhere: &Place) {
        let here = self.place;
        if let Some(usage) = elsewhere.usage(word) {
            let message = format!(
                "`{word}` belongs on {}, not on {}; write `#[session({usage})]` there",
                elsewhere.name, here.name,
            );
            return self.errors.at(&self.word, message);
        }
        let hint = match here.other_words.iter().find(|&&(other, _)| other == word) {
            Some((_, usage)) => format!("; write `{usage}`."),
            None => suggestion(word, here.words()),
        };
        let message = format!(
            "unknown attribute `{word}`{hint} On {} there are {}",
            here.name,
            list(here.words()),
        );
        self.errors.at(&self.word, message);
    }
}

/// The text of a string literal.
pub(crate) fn string(expression: &Expr) -> Option<LitStr> {
    match literal(expression)? {
        Lit::Str(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(expression: &Expr) -> Option<u32> {
    match literal(expression)? {
        Lit::Int(number) => number.base10_parse().ok(),
        _ => None,
    }
}

fn literal(expression: &Expr) -> Option<&Lit> {
    match bare(expression) {
        Expr::Lit(literal) => Some(&literal.lit),
        _ => None,
    }
}

fn path(expression: &Expr) -> Option<Path> {
    match bare(expression) {
        Expr::Path(path) if path.qself.is_none() => Some(path.path.clone()),
        _ => None,
    }
}

/// The expression without the invisible parentheses around what a macro passed on.
fn bare(expression: &Expr) -> &Expr {
    match expression {
        Expr::Group(group) => bare(&group.expr),
        expression => expression,
    }
}
