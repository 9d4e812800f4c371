//! Names: of accessors, of keys, and the nearest right one to a wrong one.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::format_ident;

use crate::model::Kind;

/// The names of a field's accessors, each with the span of the field.
pub(crate) struct Accessors {
    /// Not for a flash field, as `get_mut` and `reset` are not.
    pub(crate) get: Option<Ident>,
    pub(crate) set: Ident,
    /// Only for an `Option`.
    pub(crate) clear: Option<Ident>,
    /// Only for a list.
    pub(crate) push: Option<Ident>,
    pub(crate) get_mut: Option<Ident>,
    pub(crate) take: Ident,
    pub(crate) reset: Option<Ident>,
    pub(crate) is_dirty: Ident,
}

impl Accessors {
    /// `format_ident!` takes the span of its argument, and leaves out the `r#` of a raw identifier:
    /// `r#type` has `set_type`.
    pub(crate) fn for_field(field: &Ident, kind: &Kind<'_>) -> Self {
        let is_option = matches!(kind, Kind::Option(..));
        Self {
            get: Some(field.clone()),
            clear: is_option.then(|| format_ident!("clear_{}", field)),
            get_mut: Some(format_ident!("{}_mut", field)),
            reset: Some(format_ident!("reset_{}", field)),
            ..Self::of_flash(field, kind)
        }
    }

    /// Those of a field that can only be taken.
    pub(crate) fn of_flash(field: &Ident, kind: &Kind<'_>) -> Self {
        let is_list = matches!(kind, Kind::Vec(_));
        Self {
            get: None,
            set: format_ident!("set_{}", field),
            clear: None,
            push: is_list.then(|| format_ident!("push_{}", field)),
            get_mut: None,
            take: format_ident!("take_{}", field),
            reset: None,
            is_dirty: format_ident!("{}_is_dirty", field),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Ident> {
        let Self { get, set, clear, push, get_mut, take, reset, is_dirty } = self;
        let some = [get, get_mut, reset, clear, push].into_iter().flatten();
        [set, take, is_dirty].into_iter().chain(some)
    }
}

/// How `rename_all` spells keys; the names are serde's.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    pub(crate) const ALL: [(&str, Self); 8] = [
        ("lowercase", Self::Lower),
        ("UPPERCASE", Self::Upper),
        ("PascalCase", Self::Pascal),
        ("camelCase", Self::Camel),
        ("snake_case", Self::Snake),
        ("SCREAMING_SNAKE_CASE", Self::ScreamingSnake),
        ("kebab-case", Self::Kebab),
        ("SCREAMING-KEBAB-CASE", Self::ScreamingKebab),
    ];

    /// The key of a field, whose name is in snake case already.
    pub(crate) fn apply(self, field: &str) -> String {
        match self {
            Self::Lower | Self::Snake => field.to_owned(),
            Self::Upper | Self::ScreamingSnake => field.to_ascii_uppercase(),
            Self::Pascal => field.split('_').map(capitalized).collect(),
            Self::Camel => {
                let mut words = field.split('_').filter(|word| !word.is_empty());
                let first = words.next().unwrap_or_default().to_owned();
                words.fold(first, |key, word| key + &capitalized(word))
            }
            Self::Kebab => field.replace('_', "-"),
            Self::ScreamingKebab => field.to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// What follows the name of an unknown word: the nearest right one, if there is one.
pub(crate) fn suggestion<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, words) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => ".".to_owned(),
    }
}

/// The candidate that `word` was most likely meant to be, if one is near enough to suggest.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let furthest = word.chars().count().max(3) / 3;
    let distances = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    distances.filter(|&(distance, _)| distance <= furthest).min().map(|(_, candidate)| candidate)
}

/// How many letters have to be put in, taken out or exchanged (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (above, a) in a.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, b) in b.chars().enumerate() {
            let exchanged = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[row.len() - 1]
}

/// "`a`, `b` and `c`".
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Writes the struct's name for each `Self`: the types and defaults of fields are repeated in an
/// impl of the fields struct, where `Self` would be another type.
pub(crate) fn spell_out_self(tokens: TokenStream, name: &Ident) -> TokenStream {
    let spelt_out = |tree| match tree {
        TokenTree::Ident(word) if word == "Self" => {
            let mut name = name.clone();
            name.set_span(word.span());
            TokenTree::Ident(name)
        }
        TokenTree::Group(group) => {
            let mut inside = Group::new(group.delimiter(), spell_out_self(group.stream(), name));
            inside.set_span(group.span());
            TokenTree::Group(inside)
        }
        other => other,
    };
    tokens.into_iter().map(spelt_out).collect()
}
