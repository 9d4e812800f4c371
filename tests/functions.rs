//! No function in `sessions/src` is longer than 50 lines, unless a line in front of it or at its top says
//! why: `// Long: ` and the reason. Functions of tests are not counted.

use std::{fs, path::Path};

use sessions_tests::{repository, sources_of_sessions};
use syn::{
    Attribute, Block, Ident,
    spanned::Spanned,
    visit::{self, Visit},
};

/// Lines from a function's name to its closing brace.
const LONGEST: usize = 50;
const REASON: &str = "// Long: ";

struct Functions<'a> {
    lines: Vec<&'a str>,
    /// Name, first and last line, counted from one.
    too_long: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn check(&mut self, name: &Ident, block: &Block) {
        let (first, last) = (name.span().start().line, block.span().end().line);
        let has_reason = self.lines[first.saturating_sub(2)..last].iter().take(12).any(|line| {
            line.trim_start().strip_prefix(REASON).is_some_and(|reason| !reason.trim().is_empty())
        });
        if last + 1 - first > LONGEST && !has_reason {
            self.too_long.push((name.to_string(), first, last));
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition =
            attribute.path().is_ident("cfg").then(|| attribute.meta.require_list().ok());
        condition.flatten().is_some_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.check(&item.sig.ident, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn too_long(source: &str) -> Vec<(String, usize, usize)> {
    let mut functions = Functions { lines: source.lines().collect(), too_long: Vec::new() };
    functions.visit_file(&syn::parse_file(source).expect("Rust"));
    functions.too_long
}

#[test]
fn no_function_is_longer_than_fifty_lines_without_a_reason() {
    let root = repository().join("sessions/src");
    let found = sources_of_sessions();
    let mut wrong = Vec::new();
    let below = |path: &Path| path.strip_prefix(&root).expect("a file below").to_path_buf();
    let is_test =
        |path: &Path| below(path).iter().any(|part| part == "tests" || part == "tests.rs");
    for path in found.iter().filter(|path| !is_test(path)) {
        let file = below(path);
        let file = file.display();
        for (name, first, last) in too_long(&fs::read_to_string(path).expect("UTF-8")) {
            wrong.push(format!("{file}:{first}: `{name}` has {} lines", last + 1 - first));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_long_function_is_seen_and_a_reason_excuses_it() {
    let long = |before: &str, top: &str| {
        let body = "    work();\n".repeat(LONGEST);
        format!("struct It;\n\nimpl It {{\n{before}fn long() {{\n{top}{body}}}\n}}\n")
    };
    let count = |source: &str| too_long(source).len();
    assert_eq!(count(&long("", "")), 1);
    assert_eq!(count(&long("", "// Long: a table of codes.\n")), 0);
    assert_eq!(count(&long("// Long: a table of codes.\n", "")), 0);
    assert_eq!(count(&long("", "// Long:\n")), 1, "no reason");
    assert_eq!(count(&format!("#[cfg(test)] mod tests {{ {} }}", long("", ""))), 0);
    assert_eq!(count("fn short() {}"), 0);
}
