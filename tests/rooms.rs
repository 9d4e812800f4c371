//! The rooms of `sessions/src`, and who may know whom: an arrow from a room to one that stands above it,
//! or to the crate's root, fails. Without such arrows there is no circle either.

use std::{fs, path::Path};

use sessions_tests::{repository, sources_of_sessions};
use syn::{
    Attribute, Item, UseTree,
    visit::{self, Visit},
};

/// From the ground up. What is in a row knows the rows above it in this list, and nothing else of the
/// crate.
const ROOMS: [(&str, &[&str]); 17] = [
    ("leaves", &["clock", "meters", "scratch", "sync", "unique", "varint"]),
    ("error", &["error"]),
    ("identity", &["identity"]),
    ("record", &["record"]),
    ("data", &["data"]),
    ("store", &["store"]),
    ("cookie", &["cookie"]),
    ("device_bound", &["device_bound"]),
    ("adopt", &["adopt"]),
    ("slot", &["slot"]),
    ("save", &["save"]),
    ("web", &["web"]),
    ("session", &["session"]),
    ("login", &["login"]),
    ("csrf", &["csrf"]),
    ("layer", &["layer"]),
    // They know everything, and nobody knows them.
    ("faces", &["actix", "extract", "private", "testing", "lib", "model_tests"]),
];

fn room_of(module: &str) -> Option<usize> {
    ROOMS.iter().position(|(_, modules)| modules.contains(&module))
}

/// What a file names of its crate: each path, from the crate's root on.
struct Names {
    /// The file's own module.
    module: Vec<String>,
    paths: Vec<Vec<String>>,
}

impl Names {
    fn note(&mut self, path: Vec<String>) {
        let mut resolved = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(resolved.pop()),
                _ => resolved.push(segment),
            }
        }
        self.paths.push(resolved);
    }

    fn note_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.note(with(&name.ident)),
            UseTree::Rename(rename) => self.note(with(&rename.ident)),
            UseTree::Glob(_) => self.note(before.to_vec()),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.note_tree(tree, before))
            }
        }
    }
}

/// What is compiled for tests alone may know all rooms.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.path().is_ident("cfg").then(|| attribute.meta.require_list().ok());
        list.flatten().is_some_and(|list| {
            let condition = list.tokens.to_string();
            condition.split(|char: char| !char.is_alphanumeric()).any(|word| word == "test")
                && !condition.contains("not")
        })
    })
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // `self`, and `crate` in `pub(crate)`, name nothing.
        if path.segments.len() == 1 {
            return visit::visit_path(self, path);
        }
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// Each arrow of a file that runs up or to the root, in words.
fn wrong_arrows(file: &Path, source: &str) -> Vec<String> {
    let name = |part: &Path| part.to_string_lossy().into_owned();
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| name(part.as_ref())).collect();
    module.pop_if(|last| last == "mod");
    let room = room_of(&module[0]).unwrap_or_else(|| panic!("{file:?} is in no room"));
    let mut names = Names { module, paths: Vec::new() };
    names.visit_file(&syn::parse_file(source).expect("Rust"));
    let is_wrong = |path: &&Vec<String>| match path.first() {
        Some(first) => room_of(first).is_none_or(|to| to > room),
        None => true,
    };
    let wrong = names.paths.iter().filter(is_wrong);
    wrong.map(|path| format!("{} knows {}", file.display(), path.join("::"))).collect()
}

#[test]
fn no_room_knows_one_above_it_and_none_knows_the_root() {
    let root = repository().join("sessions/src");
    let found = sources_of_sessions();
    let wrong: Vec<String> = found
        .iter()
        .map(|path| (path.strip_prefix(&root).expect("a file below"), path))
        .filter(|(file, _)| !file.ends_with("tests.rs"))
        .filter(|(file, _)| {
            room_of(&file.with_extension("").to_string_lossy()) != Some(ROOMS.len() - 1)
        })
        .filter(|(file, _)| !file.starts_with("testing"))
        .flat_map(|(file, path)| wrong_arrows(file, &fs::read_to_string(path).expect("UTF-8")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_kind_of_wrong_arrow_is_seen() {
    let wrong = |file: &str, source: &str| wrong_arrows(Path::new(file), source).len();
    for (file, source, count) in [
        ("slot/mod.rs", "use crate::{data::patch::Patch, save::{Saving, shared::Shared}};", 2),
        ("slot/mod.rs", "use crate::Record;", 1),
        ("slot/plan.rs", "use super::rebase::Policy; use super::super::save::Saving;", 1),
        ("error/mod.rs", "fn f() -> crate::store::Created { crate::clock::now() }", 1),
        ("error/mod.rs", "use crate::clock::Clock; use std::fmt;", 0),
        ("store/redis/mod.rs", "use super::Created; use crate::record::Record;", 0),
        ("slot/mod.rs", "#[cfg(test)] mod tests { use crate::save::Saving; use super::*; }", 0),
        ("slot/mod.rs", "mod inner { use super::plan::Plan; }", 0),
        ("slot/mod.rs", "mod inner { use super::super::save::Saving; }", 1),
    ] {
        assert_eq!(wrong(file, source), count, "{source}");
    }
}
