//! Which other crates stand in what the crate `sessions` shows: their next major version is ours too.
//! Whatever a public signature names of a crate that is not in the list fails. (`unreachable_pub` sees to
//! it that what is `pub` can be reached from outside.)

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use sessions_tests::{repository, sources_of_sessions};
use syn::{
    Attribute, ImplItem, Item, ItemImpl, TraitItem, Type, UseTree, Visibility,
    visit::{self, Visit},
};

/// Crates whose types and traits may stand in public signatures, and what for.
const MAY_STAND_THERE: [(&str, &str); 12] = [
    ("actix_web", "middleware, extractors and responses of actix-web"),
    ("axum_core", "extractors, responses, and the body of responses"),
    ("bytes", "the data of a body"),
    ("http", "requests and responses"),
    ("http_body", "the body of a response that an application makes of a rejection"),
    ("redis", "a `RedisStore` on a connection of the application's"),
    ("serde", "what a field must be able to do"),
    ("sessions_derive", "the derive"),
    ("sqlx", "a SQL store on a pool of the application's"),
    ("tower_layer", "layers"),
    ("tower_service", "services"),
    ("zeroize", "what a `Secret` can hold"),
];

/// What a file shows of other crates.
struct Shown<'a> {
    /// Where the names come from that the file imports: from these crates.
    imported: BTreeMap<String, String>,
    crates: BTreeSet<String>,
    /// Traits of the crate that nobody outside can name: who implements them is no interface.
    private_traits: &'a BTreeSet<String>,
    found: BTreeSet<(String, String)>,
}

impl Shown<'_> {
    fn import(&mut self, tree: &UseTree, krate: Option<&str>) {
        match tree {
            UseTree::Path(path) => {
                let name = path.ident.to_string();
                let krate = krate.map_or(name, ToString::to_string);
                self.import(&path.tree, Some(&krate));
            }
            UseTree::Name(name) => self.note_import(name.ident.to_string(), krate),
            UseTree::Rename(rename) => self.note_import(rename.rename.to_string(), krate),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, krate)),
            UseTree::Glob(_) => {}
        }
    }

    fn note_import(&mut self, name: String, krate: Option<&str>) {
        if let Some(krate) = krate.filter(|krate| self.crates.contains(*krate)) {
            self.imported.insert(name, krate.to_string());
        }
    }

    fn note(&mut self, krate: &str, path: &str) {
        self.found.insert((krate.to_string(), path.to_string()));
    }
}

/// Visits nothing but what is part of a signature.
impl<'ast> Visit<'ast> for Shown<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        let of_import = self.imported.get(&names[0]).cloned();
        let of_crate = self.crates.get(&names[0]).filter(|_| names.len() > 1).cloned();
        if let Some(krate) = of_import.or(of_crate) {
            self.note(&krate, &names.join("::"));
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list().map(|list| list.tokens.to_string());
        let list = list.unwrap_or_default();
        match attribute.path().get_ident().map(ToString::to_string).as_deref() {
            Some("doc") => list == "hidden",
            Some("cfg") => list == "test" || list.contains("(test"),
            _ => false,
        }
    })
}

const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl Shown<'_> {
    fn fields(&mut self, fields: &syn::Fields) {
        for field in fields.iter().filter(|field| is_public(&field.vis)) {
            self.visit_type(&field.ty);
        }
    }

    /// An implementation of a trait is as public as its type.
    fn implementation(&mut self, item: &ItemImpl, public: &BTreeSet<String>) {
        let is_of_public_type = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().is_some_and(|last| {
                public.contains(&last.ident.to_string()) || item.generics.params.iter().any(|param| {
                    matches!(param, syn::GenericParam::Type(param) if param.ident == last.ident)
                })
            }),
            _ => false,
        };
        if !is_of_public_type {
            return;
        }
        match &item.trait_ {
            None => {
                for item in &item.items {
                    if let ImplItem::Fn(item) = item
                        && is_public(&item.vis)
                        && !is_hidden(&item.attrs)
                    {
                        self.visit_signature(&item.sig);
                    }
                }
            }
            Some((path, _)) => {
                let name = path.segments.last().map(|last| last.ident.to_string());
                if name.is_some_and(|name| self.private_traits.contains(&name)) {
                    return;
                }
                self.visit_path(path);
                self.visit_generics(&item.generics);
                for item in &item.items {
                    if let ImplItem::Type(item) = item {
                        self.visit_type(&item.ty);
                    }
                }
            }
        }
    }

    fn item(&mut self, item: &Item, public: &BTreeSet<String>) {
        match item {
            Item::Use(item) if is_public(&item.vis) => {
                let mut tree = &item.tree;
                while let UseTree::Path(path) = tree {
                    let name = path.ident.to_string();
                    if self.crates.contains(&name) {
                        self.note(&name, "pub use");
                    }
                    tree = &path.tree;
                }
            }
            Item::Fn(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                self.visit_signature(&item.sig);
            }
            Item::Struct(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                self.visit_generics(&item.generics);
                self.fields(&item.fields);
            }
            Item::Enum(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                self.visit_generics(&item.generics);
                item.variants
                    .iter()
                    .flat_map(|it| &it.fields)
                    .for_each(|it| self.visit_type(&it.ty));
            }
            Item::Type(item) if is_public(&item.vis) => self.visit_type(&item.ty),
            Item::Trait(item) if is_public(&item.vis) => {
                item.supertraits.iter().for_each(|it| self.visit_type_param_bound(it));
                for item in &item.items {
                    match item {
                        TraitItem::Fn(item) if !is_hidden(&item.attrs) => {
                            self.visit_signature(&item.sig);
                        }
                        TraitItem::Type(item) if !is_hidden(&item.attrs) => {
                            item.bounds.iter().for_each(|it| self.visit_type_param_bound(it));
                        }
                        _ => {}
                    }
                }
            }
            Item::Impl(item) if !is_hidden(&item.attrs) => self.implementation(item, public),
            Item::Mod(item) if !is_hidden(&item.attrs) => {
                let items = item.content.iter().flat_map(|(_, items)| items);
                items.for_each(|item| self.item(item, public));
            }
            _ => {}
        }
    }
}

/// The traits that are not `pub`, in any file.
fn private_traits(files: &[syn::File]) -> BTreeSet<String> {
    let items = files.iter().flat_map(|file| &file.items);
    let name = |item: &Item| match item {
        Item::Trait(item) if !is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    items.filter_map(name).collect()
}

/// The names of all types and traits that are `pub` in any file.
fn public_names(files: &[syn::File]) -> BTreeSet<String> {
    let items = files.iter().flat_map(|file| &file.items);
    let name = |item: &Item| match item {
        Item::Struct(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Enum(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Trait(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    items.filter_map(name).collect()
}

/// What the file shows of these crates: the crate, and the path by which it is named.
fn shown(
    file: &syn::File,
    crates: &BTreeSet<String>,
    public: &BTreeSet<String>,
    private_traits: &BTreeSet<String>,
) -> BTreeSet<(String, String)> {
    // A module of the crate hides the crate of that name where it is declared.
    let modules: BTreeSet<String> = file
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(item) => Some(item.ident.to_string()),
            _ => None,
        })
        .collect();
    let crates = crates.difference(&modules).cloned().collect();
    let (imported, found) = Default::default();
    let mut shown = Shown { imported, crates, private_traits, found };
    for item in &file.items {
        if let Item::Use(item) = item {
            shown.import(&item.tree, None);
        }
    }
    file.items.iter().for_each(|item| shown.item(item, public));
    shown.found
}

/// The dependencies of the crate, as code names them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let sections = manifest.split("\n[");
    let lines =
        sections.filter(|section| section.starts_with("dependencies]")).flat_map(str::lines);
    lines
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .filter(|name| {
            !name.is_empty() && !name.starts_with(['#', ']']) && *name != "dependencies]"
        })
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[test]
fn no_other_crate_stands_in_a_public_signature() {
    let manifest =
        fs::read_to_string(repository().join("sessions/Cargo.toml")).expect("a manifest");
    let crates = dependencies(&manifest);
    assert!(crates.len() > 20, "the dependencies are not read: {crates:?}");
    let mut paths = sources_of_sessions();
    // What generated code names is no interface for people, and not shown.
    paths.retain(|path| !path.ends_with("private.rs") && !path.ends_with("tests.rs"));
    let parse =
        |path: &PathBuf| syn::parse_file(&fs::read_to_string(path).expect("UTF-8")).expect("Rust");
    let files: Vec<syn::File> = paths.iter().map(parse).collect();
    let (public, private) = (public_names(&files), private_traits(&files));
    let allowed: BTreeSet<&str> = MAY_STAND_THERE.map(|(name, _)| name).into();
    let mut standing = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, file) in paths.iter().zip(&files) {
        for (krate, name) in shown(file, &crates, &public, &private) {
            if !allowed.contains(&*krate) {
                wrong.push(format!("{}: {krate}, as `{name}`", path.display()));
            }
            standing.insert(krate);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let standing: BTreeSet<&str> = standing.iter().map(String::as_str).collect();
    assert_eq!(standing, allowed, "the list has a crate that stands nowhere any more");
}

#[test]
fn each_kind_of_public_signature_is_read() {
    let crates: BTreeSet<String> = ["other".to_string(), "two".to_string()].into();
    for (source, count) in [
        ("use other::Thing; pub fn f(thing: Thing) {}", 1),
        ("use other::{deep::Thing as Named, Second}; pub fn f() -> Option<Named> { None }", 1),
        ("pub fn f<T: other::Trait>() where T: two::Trait {}", 2),
        ("pub struct S { pub field: Vec<other::Thing>, hidden: two::Thing }", 1),
        ("pub enum E { One(other::Thing), Two { field: two::Thing } }", 2),
        ("pub trait T: other::Super { type A: two::Bound; }", 2),
        ("pub struct S; impl S { pub fn f(&self, _: impl Fn() -> other::Thing) {} }", 1),
        ("pub struct S; impl From<other::Error> for S { }", 1),
        ("use other::Layer; pub struct S; impl Layer for S { type Service = two::Thing; }", 2),
        ("pub type A = other::Thing; pub use two::Thing;", 2),
        (
            "pub struct S; impl S { pub(crate) fn f(&self, _: other::Thing) {} fn g(_: two::A) {} }",
            0,
        ),
        ("pub struct S; trait Inner {} impl Inner for S { type A = other::Thing; }", 0),
        ("mod other {} pub use other::Thing; pub fn f(_: other::Thing) {}", 0),
        ("struct Hidden; impl From<other::Error> for Hidden {} fn f() -> two::Thing {}", 0),
        ("use other::Thing; pub fn f() { let _: Thing; } #[doc(hidden)] pub fn g(_: Thing) {}", 0),
        ("#[cfg(test)] mod tests { pub fn f(_: other::Thing) {} }", 0),
    ] {
        let file = syn::parse_file(source).expect("Rust");
        let public = public_names(std::slice::from_ref(&file));
        let private = private_traits(std::slice::from_ref(&file));
        assert_eq!(shown(&file, &crates, &public, &private).len(), count, "{source}");
    }
}
