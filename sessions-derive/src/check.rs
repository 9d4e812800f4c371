//! Turns what was written into a model, or reports what is wrong with it: one function a rule.
//!
//! The model is made even of a faulty struct, without what is wrong in it, for the stub that is
//! emitted beside the errors.

use std::collections::HashMap;

use proc_macro2::Ident;
use quote::{ToTokens, format_ident};
use syn::{
    Data, Fields, GenericArgument, GenericParam, LitStr, Path, PathArguments, Type, ext::IdentExt,
    parse_quote,
};

use crate::{
    duration,
    errors::Errors,
    model::{self, Kind, Merge, Model, Start, Storage, bare},
    names::{Accessors, Case, list, suggestion},
    parse::{self, Field, Given, Input},
};

/// A payload keeps the length of a key in one byte.
const LONGEST_KEY: usize = 255;

/// The name of a type stands before each user in a store, where MySQL takes 1020 bytes for both.
const LONGEST_NAME: usize = 100;

pub(crate) fn check<'a>(input: &'a Input<'a>, errors: &Errors) -> Model<'a> {
    has_named_fields(input, errors);
    has_no_generics(input, errors);
    has_a_name_for_stores(input, errors);
    for field in &input.fields {
        leaves_our_name_alone(field, errors);
        owns_its_value(field, errors);
        can_be_shared(field, errors);
        has_its_default_in_the_attribute(field, errors);
        has_a_default_of_its_type(field, errors);
        does_not_convert_twice(field, errors);
        is_not_stored_if_skipped(field, errors);
        is_the_logins_if_user(field, errors);
        is_gone_when_taken(field, errors);
        lasts_for_some_time(field, errors);
        has_a_codec_that_there_is(field, errors);
    }
    has_one_user(input, errors);
    let case = case(input, errors);
    let stored: Vec<_> = input.fields.iter().flat_map(|field| keys(field, case)).collect();
    keys_fit(&stored, errors);
    keys_differ(&stored, errors);
    let model = model(input, case);
    accessors_differ(&model, errors);
    model
}

/// A field's name is its key, so that there have to be names.
fn has_named_fields(input: &Input<'_>, errors: &Errors) {
    let name = &input.written.ident;
    let remedy = format!("write `struct {name} {{ … }}`");
    match &input.written.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => {}
            Fields::Unnamed(fields) => errors.at(
                fields,
                format!("a session's fields need names, which become its keys; {remedy}"),
            ),
            Fields::Unit => errors.at(name, format!("a session needs named fields; {remedy}")),
        },
        Data::Enum(data) => errors.at(
            data.enum_token,
            format!("an enum cannot be a session; {remedy}, with the enum in one of its fields"),
        ),
        Data::Union(data) => {
            errors.at(data.union_token, format!("a union cannot be a session; {remedy}"));
        }
    }
}

/// A session is one type in one store.
fn has_no_generics(input: &Input<'_>, errors: &Errors) {
    let generics = &input.written.generics;
    for parameter in &generics.params {
        match parameter {
            GenericParam::Lifetime(lifetime) => errors.at(
                lifetime,
                "a session outlives every request and cannot borrow; own the data, as `String` \
                 instead of `&str`",
            ),
            GenericParam::Type(_) | GenericParam::Const(_) => errors.at(
                parameter,
                "a session cannot have generic parameters; write the type out, or make a struct \
                 for each",
            ),
        }
    }
    if let (Some(clause), true) = (&generics.where_clause, generics.params.is_empty()) {
        errors.at(clause, "a session cannot have a `where` clause; remove it");
    }
}

/// A store lists users as `name:user`, or `name@tenant:user`: neither sign can stand in the name.
fn has_a_name_for_stores(input: &Input<'_>, errors: &Errors) {
    let Some(Given { value, .. }) = &input.name else { return };
    let name = value.value();
    let is_allowed = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_allowed) {
        let message = format!(
            "the name of a session's type is 1 to {LONGEST_NAME} bytes of letters, digits and any of \
             `_-./`; write `name = \"{}\"`",
            input.written.ident.unraw(),
        );
        errors.at(value, message);
    }
}

/// The fields struct derefs to the user's: our own field would hide one of the same name.
fn leaves_our_name_alone(field: &Field<'_>, errors: &Errors) {
    if field.ident.unraw().to_string().starts_with("__tracked") {
        let message = "names that begin with `__tracked` are reserved; give the field another name";
        errors.at(field.ident, message);
    }
}

/// What comes out of a store has nobody to borrow from.
fn owns_its_value(field: &Field<'_>, errors: &Errors) {
    if let (Some(reference), None) = (reference_in(&field.written.ty), &field.skip) {
        let message = "a session field has to own its value; write `String` instead of `&str`, \
                       or keep the field out of the store with `#[session(skip)]`";
        errors.at(reference, message);
    }
}

/// Of a type that says by its name that it stays in one thread, said at its field: the compiler would
/// say so of the whole struct, in terms of generated code.
fn can_be_shared(field: &Field<'_>, errors: &Errors) {
    if let Some(rc) = rc_in(&field.written.ty) {
        let message = format!(
            "field `{}` cannot be an `Rc`, which stays in one thread: the requests of a session run in \
             several; write `Arc`",
            field.ident
        );
        errors.at(rc, message);
    }
}

fn rc_in(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Group(group) => rc_in(&group.elem),
        Type::Paren(paren) => rc_in(&paren.elem),
        Type::Array(array) => rc_in(&array.elem),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(rc_in),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            if last.ident == "Rc" {
                return Some(ty);
            }
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => rc_in(ty),
                _ => None,
            })
        }
        _ => None,
    }
}

fn reference_in(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Reference(_) => Some(ty),
        Type::Group(group) => reference_in(&group.elem),
        Type::Paren(paren) => reference_in(&paren.elem),
        Type::Array(array) => reference_in(&array.elem),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(reference_in),
        Type::Path(path) => match &path.path.segments.last()?.arguments {
            PathArguments::AngleBracketed(list) => list.args.iter().find_map(|argument| {
                let GenericArgument::Type(ty) = argument else { return None };
                reference_in(ty)
            }),
            _ => None,
        },
        _ => None,
    }
}

/// `theme: String = …` is unstable Rust, and not ours to read.
fn has_its_default_in_the_attribute(field: &Field<'_>, errors: &Errors) {
    if let Some((_, value)) = &field.written.default {
        let written = value.to_token_stream();
        errors.at(value, format!("write the default as `#[session(default = {written})]`"));
    }
}

/// A text is converted into the field's type, which no number can be made of.
fn has_a_default_of_its_type(field: &Field<'_>, errors: &Errors) {
    let Some(text) = default_text(field) else { return };
    let example = match Kind::from_type(&field.written.ty) {
        Kind::Scalar => "default = 5",
        Kind::Option(_, kind) if matches!(*kind, Kind::Scalar) => "default = Some(5)",
        _ => return,
    };
    let message = format!(
        "a text is no default for a number, `bool` or `char`; write a value of the field's type, \
         as in `{example}`"
    );
    errors.at(text, message);
}

/// `into` is for the types whose setter does not convert by itself. A scalar's does not either,
/// but there `set_visits(1)` could no longer tell which integer `1` is.
fn does_not_convert_twice(field: &Field<'_>, errors: &Errors) {
    let Some(word) = &field.into else { return };
    if field.secret.is_some() {
        return errors.at(word, "the setter of a secret converts already; remove `into`");
    }
    match Kind::from_type(&field.written.ty).of_value() {
        Kind::Str => {
            errors.at(word, "this setter takes `impl Into<String>` already; remove `into`")
        }
        Kind::Vec(_) => {
            errors.at(word, "this setter takes `impl Into<Vec<…>>` already; remove `into`")
        }
        Kind::Scalar => errors.at(
            word,
            "the setter of a number, `bool` or `char` takes just that, so that a `1` needs no \
             type; remove `into`",
        ),
        Kind::Option(..) | Kind::Other => {}
    }
}

fn is_not_stored_if_skipped(field: &Field<'_>, errors: &Errors) {
    let Field { skip: Some(_), rename, aliases, codec, version, merge, flash, ttl, secret, .. } =
        field
    else {
        return;
    };
    let codec = codec.iter().map(|given| (&given.word, "bytes to encode"));
    let with = field.with.word().into_iter().map(|word| (word, "form in the store"));
    let keys = rename.iter().chain(aliases).map(|given| (&given.word, "key"));
    let version = version.iter().map(|given| (&given.word, "version"));
    let merge = merge.iter().map(|given| (&given.word, "other save to be merged with"));
    let flash = flash.iter().map(|word| (word, "later request to be shown in"));
    let ttl = ttl.iter().map(|given| (&given.word, "end of its own"));
    let secret = secret.iter().map(|word| (word, "bytes to encrypt"));
    let of_the_store = keys.chain(codec).chain(with).chain(version).chain(secret);
    for (word, what) in of_the_store.chain(merge).chain(flash).chain(ttl) {
        let message = format!(
            "`skip` excludes `{word}`, as a field that is never stored has no {what}; \
             remove one of them"
        );
        errors.at(word, message);
    }
}

/// A login sets the user, and nothing else does.
fn is_the_logins_if_user(field: &Field<'_>, errors: &Errors) {
    let Field { user: Some(user), default, flash, into, merge, secret, skip, ttl, .. } = field
    else {
        return;
    };
    if !matches!(Kind::from_type(&field.written.ty), Kind::Option(..)) {
        let message = "the user of a session is an `Option`, which is `None` until the login; \
                       write `Option<…>`";
        errors.at(&field.written.ty, message);
    }
    let default = default.iter().map(|it| (&it.word, "starts at `None`"));
    let into = into.iter().map(|word| (word, "has no setter"));
    let merge = merge.iter().map(|it| (&it.word, "is never changed by two saves at once"));
    let skip = skip.iter().map(|word| (word, "has to be stored"));
    let flash = flash.iter().map(|word| (word, "is read again and again"));
    let ttl = ttl.iter().map(|it| (&it.word, "lasts as long as the session"));
    let secret = secret.iter().map(|word| (word, "is known to the store"));
    let excluded =
        default.chain(flash).chain(into).chain(merge).chain(secret).chain(skip).chain(ttl);
    for (word, why) in excluded {
        let message = format!(
            "`{}` excludes `{word}`, as the user {why}; only `login` sets it: remove `{word}`",
            user.word
        );
        errors.at(word, message);
    }
}

fn has_one_user(input: &Input<'_>, errors: &Errors) {
    let mut users = input.fields.iter().filter_map(|field| Some((field, field.user.as_ref()?)));
    let Some((first, _)) = users.next() else { return };
    for (_, again) in users {
        let message = format!(
            "field `{}` is the session's user already, and a session has one; remove one `user`",
            first.ident
        );
        errors.at(&again.word, message);
    }
}

/// A flash field that left something behind would be shown again; and a sum of two changes, one of
/// which took the value, is neither shown once nor gone.
fn is_gone_when_taken(field: &Field<'_>, errors: &Errors) {
    let Field { flash: Some(_), default, merge, .. } = field else { return };
    if let Some(Given { word, .. }) = default {
        let message = "a flash field is gone when it has been taken, and leaves the default of its \
                       type; remove `default`, or make the field an `Option`";
        errors.at(word, message);
    }
    if let Some(Given { value, .. }) = merge.as_ref().filter(|given| !given.value.is_ident("union"))
    {
        let message = "a flash field that two processes change is not merged, as it would be shown \
                       twice; remove `merge`, or write `merge = union` for a list, set or map";
        errors.at(value, message);
    }
}

/// Two values that were set at different times and are merged would end at neither.
fn lasts_for_some_time(field: &Field<'_>, errors: &Errors) {
    let Field { ttl: Some(Given { value, .. }), merge, .. } = field else { return };
    match duration::millis(&value.value()) {
        Some(0) => errors.at(value, "a field that ends at once is never set; write a time above 0"),
        Some(_) => {}
        None => errors.at(
            value,
            "`ttl` takes whole numbers of days, hours, minutes and seconds, in this order; write \
             `ttl = \"90s\"`, `\"10m\"`, `\"1h30m\"` or `\"7d\"`",
        ),
    }
    if let Some(Given { word, .. }) = merge {
        let message = "`ttl` excludes `merge`, as what is merged was set at two times; remove one of \
                       them";
        errors.at(word, message);
    }
}

const CODECS: [&str; 4] = ["bincode", "json", "messagepack", "postcard"];

/// Whether its feature is on is for the compiler to say.
fn has_a_codec_that_there_is(field: &Field<'_>, errors: &Errors) {
    let Some(Given { value, .. }) = &field.codec else { return };
    let written = value.to_token_stream().to_string();
    if !CODECS.contains(&&*written) {
        let suggestion = suggestion(&written, CODECS);
        errors
            .at(value, format!("unknown codec `{written}`{suggestion} There are {}", list(CODECS)));
    }
}

/// What `rename_all` asks for.
fn case(input: &Input<'_>, errors: &Errors) -> Case {
    let Some(Given { value, .. }) = &input.rename_all else { return Case::Snake };
    let text = value.value();
    if let Some((_, case)) = Case::ALL.into_iter().find(|&(name, _)| name == text) {
        return case;
    }
    let names = Case::ALL.map(|(name, _)| name);
    let suggestion = suggestion(&text, names);
    errors.at(value, format!("unknown case `{text}`{suggestion} There are {}", list(names)));
    Case::Snake
}

/// A key or alias, the field that it is for, and the literal that it was given in, if any.
struct StoredAs<'a> {
    field: &'a Ident,
    key: String,
    literal: Option<&'a LitStr>,
}

impl ToTokens for StoredAs<'_> {
    fn to_tokens(&self, tokens: &mut proc_macro2::TokenStream) {
        match self.literal {
            Some(literal) => literal.to_tokens(tokens),
            None => self.field.to_tokens(tokens),
        }
    }
}

fn keys<'a>(field: &'a Field<'a>, case: Case) -> Vec<StoredAs<'a>> {
    if field.skip.is_some() {
        return Vec::new();
    }
    let key = StoredAs {
        field: field.ident,
        key: key(field, case),
        literal: field.rename.as_ref().map(|given| &given.value),
    };
    let aliases = field.aliases.iter().map(|given| StoredAs {
        field: field.ident,
        key: given.value.value(),
        literal: Some(&given.value),
    });
    [key].into_iter().chain(aliases).collect()
}

fn key(field: &Field<'_>, case: Case) -> String {
    match &field.rename {
        Some(given) => given.value.value(),
        None => case.apply(&field.ident.unraw().to_string()),
    }
}

fn keys_fit(stored: &[StoredAs<'_>], errors: &Errors) {
    for entry in stored {
        match entry.key.len() {
            0 => errors.at(entry, "a key cannot be empty; write at least one character"),
            1..=LONGEST_KEY => {}
            length => errors.at(
                entry,
                format!(
                    "this key has {length} bytes, and a key has at most {LONGEST_KEY}; write a \
                     shorter one with `#[session(rename = \"…\")]`"
                ),
            ),
        }
    }
}

fn keys_differ(stored: &[StoredAs<'_>], errors: &Errors) {
    let mut owners = HashMap::new();
    for entry in stored.iter().filter(|entry| !entry.key.is_empty()) {
        let StoredAs { field, key, .. } = entry;
        match owners.insert(key, field) {
            None => {}
            Some(owner) if owner == field => {
                errors
                    .at(entry, format!("field `{field}` has the key `{key}` already; remove this"));
            }
            Some(owner) => {
                let message = format!(
                    "field `{field}` has the key `{key}`, and so has field `{owner}`; give one of \
                     them another with `#[session(rename = \"…\")]`"
                );
                errors.at(entry, message);
            }
        }
    }
}

/// The accessors of all fields are methods of one struct.
fn accessors_differ(model: &Model<'_>, errors: &Errors) {
    let mut owners: HashMap<String, &Ident> = HashMap::new();
    for field in &model.fields {
        let ident = field.ident;
        let key = match &field.storage {
            Storage::Stored { key, .. } => {
                format!(", and keep its key with `#[session(rename = {key:?})]`")
            }
            Storage::Skipped => String::new(),
        };
        let taken = field.accessor_names().find_map(|name| {
            let owner = owners.insert(name.unraw().to_string(), ident)?;
            Some((name, owner))
        });
        if let Some((name, owner)) = taken {
            let message = format!(
                "fields `{owner}` and `{ident}` would both have an accessor `{name}()`; give \
                 field `{ident}` another name{key}"
            );
            errors.at(ident, message);
        }
    }
}

fn default_text(field: &Field<'_>) -> Option<LitStr> {
    parse::string(&field.default.as_ref()?.value)
}

fn model<'a>(input: &'a Input<'a>, case: Case) -> Model<'a> {
    let mut indices = 0..;
    let written = input.written;
    Model {
        user: user(input),
        krate: input.krate.as_ref().map_or_else(|| parse_quote!(::sessions), |it| it.value.clone()),
        vis: &written.vis,
        ident: &written.ident,
        name: match &input.name {
            Some(given) => given.value.value(),
            None => written.ident.unraw().to_string(),
        },
        fields_ident: format_ident!("{}Fields", written.ident),
        fields: input.fields.iter().map(|field| checked(field, case, &mut indices)).collect(),
    }
}

fn user<'a>(input: &'a Input<'a>) -> Option<model::User<'a>> {
    input.fields.iter().enumerate().find_map(|(at, field)| {
        let given = field.user.as_ref()?;
        let ty = match Kind::from_type(&field.written.ty) {
            Kind::Option(ty, _) => ty,
            _ => &field.written.ty,
        };
        Some(model::User { field: at, ty, name: given.value.as_ref() })
    })
}

fn checked<'a>(
    field: &'a Field<'a>,
    case: Case,
    indices: &mut impl Iterator<Item = usize>,
) -> model::Field<'a> {
    let ty = bare(&field.written.ty);
    let kind = Kind::from_type(ty);
    let attributes = field.written.attrs.iter();
    model::Field {
        vis: &field.written.vis,
        ident: field.ident,
        ty,
        converts: match kind.of_value() {
            Kind::Str | Kind::Vec(_) => true,
            Kind::Option(..) | Kind::Other => field.into.is_some() || field.secret.is_some(),
            Kind::Scalar => false,
        },
        start: match (&field.default, default_text(field)) {
            (None, _) => Start::Default,
            (Some(_), Some(text)) => Start::Text(text),
            (Some(given), None) => Start::Value(&given.value),
        },
        storage: match field.skip {
            Some(_) => Storage::Skipped,
            None => Storage::Stored {
                index: indices.next().unwrap_or_default(),
                key: key(field, case),
                aliases: field.aliases.iter().map(|given| given.value.value()).collect(),
                version: field.version.as_ref().map(|given| given.value),
                codec: field.codec.as_ref().and_then(|given| given.value.get_ident()),
                merge: field.merge.as_ref().map(|given| merge(&given.value)),
                secret: field.secret.is_some(),
                ttl: field.ttl.as_ref().and_then(|given| duration::millis(&given.value.value())),
            },
        },
        is_user: field.user.is_some(),
        with: field.with.word().map(|_| model::With {
            serialize: field.with.serialize.as_ref().map(|given| &given.value),
            deserialize: field.with.deserialize.as_ref().map(|given| &given.value),
        }),
        flash: field.flash.is_some(),
        accessors: match field.flash {
            Some(_) => Accessors::of_flash(field.ident, &kind),
            None => Accessors::for_field(field.ident, &kind),
        },
        docs: attributes.clone().filter(|attribute| attribute.path().is_ident("doc")).collect(),
        deprecated: attributes.clone().find(|attribute| attribute.path().is_ident("deprecated")),
        kind,
    }
}

fn merge(path: &Path) -> Merge<'_> {
    if path.is_ident("add") {
        Merge::Add
    } else if path.is_ident("union") {
        Merge::Union
    } else {
        Merge::By(path)
    }
}
