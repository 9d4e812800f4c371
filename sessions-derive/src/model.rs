//! A session struct that has passed every check: what `expand` works from.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::{
    Attribute, Expr, GenericArgument, LitStr, Path, PathArguments, Type, TypePath, Visibility,
};

use crate::names::Accessors;

pub(crate) struct Model<'a> {
    /// Path of the runtime crate.
    pub(crate) krate: Path,
    pub(crate) vis: &'a Visibility,
    pub(crate) ident: &'a Ident,
    /// What cookies and stores call this type of session.
    pub(crate) name: String,
    /// Name of the generated struct, `VisitorFields`.
    pub(crate) fields_ident: Ident,
    pub(crate) fields: Vec<Field<'a>>,
    /// The field that says whose session it is.
    pub(crate) user: Option<User<'a>>,
}

impl Model<'_> {
    /// Path of all that generated code may name, beside `SessionData` itself.
    pub(crate) fn private(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::__private)
    }
}

pub(crate) struct User<'a> {
    /// The place of the field among the fields.
    pub(crate) field: usize,
    /// What its `Option` holds.
    pub(crate) ty: &'a Type,
    /// The function that names a user, if that is not its `Display`.
    pub(crate) name: Option<&'a Path>,
}

pub(crate) struct Field<'a> {
    pub(crate) vis: &'a Visibility,
    pub(crate) ident: &'a Ident,
    pub(crate) ty: &'a Type,
    pub(crate) kind: Kind<'a>,
    /// Whether the setter takes `impl Into<…>`.
    pub(crate) converts: bool,
    /// Whether it can only be taken.
    pub(crate) flash: bool,
    pub(crate) start: Start<'a>,
    pub(crate) storage: Storage<'a>,
    /// The functions that give and take its stored form, if they are not its type's.
    pub(crate) with: Option<With<'a>>,
    /// Whether only a login changes the field.
    pub(crate) is_user: bool,
    pub(crate) accessors: Accessors,
    pub(crate) docs: Vec<&'a Attribute>,
    pub(crate) deprecated: Option<&'a Attribute>,
}

impl Field<'_> {
    /// The place of the field, with the hygiene of generated code: where its accessors are said to
    /// be defined.
    pub(crate) fn at(&self) -> Span {
        Span::mixed_site().located_at(self.ident.span())
    }

    /// The names of the accessors that the field has.
    pub(crate) fn accessor_names(&self) -> impl Iterator<Item = &Ident> {
        self.accessors.all().filter(|name| self.has_accessor(name))
    }

    /// Only a login changes the user: the setter is there to say so.
    pub(crate) fn has_accessor(&self, name: &Ident) -> bool {
        let Accessors { get, set, is_dirty, .. } = &self.accessors;
        !self.is_user || Some(name) == get.as_ref() || name == set || name == is_dirty
    }
}

/// What a field's type means to its getter and setter.
pub(crate) enum Kind<'a> {
    /// A number, `bool` or `char`.
    Scalar,
    /// A `String`.
    Str,
    /// A `Vec` of this type.
    Vec(&'a Type),
    /// An `Option` of this type, which is of this kind.
    Option(&'a Type, Box<Kind<'a>>),
    Other,
}

/// Where a field starts when nothing is stored for it.
pub(crate) enum Start<'a> {
    /// At its type's `Default`.
    Default,
    /// At a text, converted into the field's type, or into what its `Option` holds.
    Text(LitStr),
    /// At the value of an expression.
    Value(&'a Expr),
}

pub(crate) enum Storage<'a> {
    /// `index` counts the stored fields only.
    Stored {
        index: usize,
        key: String,
        aliases: Vec<String>,
        version: Option<u32>,
        /// Instead of the layer's.
        codec: Option<&'a Ident>,
        merge: Option<Merge<'a>>,
        /// How many milliseconds it lasts.
        ttl: Option<u64>,
        /// Whether it is encrypted in the store.
        secret: bool,
    },
    Skipped,
}

/// The functions of `#[serde(with = …)]`; one of them may be the type's own.
pub(crate) struct With<'a> {
    pub(crate) serialize: Option<&'a Path>,
    pub(crate) deserialize: Option<&'a Path>,
}

/// How a field is merged that two saves have changed at once.
pub(crate) enum Merge<'a> {
    Add,
    Union,
    /// By this function.
    By(&'a Path),
}

impl<'a> Kind<'a> {
    pub(crate) fn from_type(ty: &'a Type) -> Self {
        const SCALARS: [&str; 16] = [
            "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16",
            "u32", "u64", "u128", "usize",
        ];
        let is = |module, name| matches!(std_type(ty, module, name), Some(None));
        if SCALARS.into_iter().any(|name| is("primitive", name)) {
            Self::Scalar
        } else if is("string", "String") {
            Self::Str
        } else if let Some(Some(element)) = std_type(ty, "vec", "Vec") {
            Self::Vec(element)
        } else if let Some(Some(inner)) = std_type(ty, "option", "Option") {
            Self::Option(inner, Box::new(Self::from_type(inner)))
        } else {
            Self::Other
        }
    }

    /// The kind of what a setter takes: what is in an `Option`, else the type itself.
    pub(crate) fn of_value(&self) -> &Self {
        match self {
            Self::Option(_, inner) => inner,
            kind => kind,
        }
    }
}

/// Whether `ty` is `name` by itself or by its full path (`std::module::name`), and if so, its one
/// argument if it has one. Anything else that ends in the same name is another crate's type.
fn std_type<'a>(ty: &'a Type, module: &str, name: &str) -> Option<Option<&'a Type>> {
    let Type::Path(TypePath { qself: None, path, .. }) = bare(ty) else { return None };
    let mut segments = path.segments.iter().rev();
    let last = segments.next()?;
    let is_std = last.ident == name
        && segments.next().is_none_or(|segment| segment.ident == module)
        && segments.next().is_none_or(|segment| {
            ["std", "core", "alloc"].iter().any(|krate| segment.ident == krate)
        })
        && segments.next().is_none();
    match &last.arguments {
        _ if !is_std => None,
        PathArguments::None => Some(None),
        PathArguments::AngleBracketed(list) => match list.args.first() {
            Some(GenericArgument::Type(argument)) if list.args.len() == 1 => {
                Some(Some(bare(argument)))
            }
            _ => None,
        },
        PathArguments::Parenthesized(_) => None,
    }
}

/// The type without parentheses, and without the invisible ones around a `$ty` of a macro.
pub(crate) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        ty => ty,
    }
}
