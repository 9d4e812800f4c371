//! What the documentation names is there: tests, findings, versions, files and functions.

use std::fs;

use sessions_tests::{repository, rust_sources};

/// A file of this repository.
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// What stands in backquotes in the last column of a table, but the files.
fn named(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    last.flat_map(|column| column.split('`').skip(1).step_by(2))
        .filter(|name| name.contains('_'))
        .filter(|name| name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_'))
        .collect()
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let folders = ["tests", "sessions/src", "examples/tests"];
    let files = folders.into_iter().flat_map(rust_sources);
    let text: String = files.map(|file| fs::read_to_string(file).expect("UTF-8")).collect();
    for (page, at_least) in
        [("concurrency", 20), ("security", 20), ("devices", 15), ("proxies", 5), ("surprises", 15)]
    {
        let page = read(&format!("sessions/docs/{page}.md"));
        let named = named(&page);
        assert!(named.len() >= at_least, "the tables are not read: {named:?}");
        for name in named {
            assert!(text.contains(&format!("fn {name}(")), "no test is called `{name}`");
        }
    }
}

/// A test that stands behind its file, as in "`http/ended.rs`: `this`, `that`", is in that file.
#[test]
fn a_test_that_the_documentation_names_is_in_the_file_that_it_names() {
    let repository = repository();
    let mut looked_at = 0;
    for page in ["concurrency", "security", "devices"] {
        let text = read(&format!("sessions/docs/{page}.md"));
        let rows = text.lines().filter_map(|row| row.strip_prefix("| ")?.strip_suffix(" |"));
        for column in rows.filter_map(|row| row.rsplit(" | ").next()) {
            let mut source: Option<(&str, String)> = None;
            for name in column.split('`').skip(1).step_by(2) {
                if name.ends_with(".rs") {
                    let places = ["tests", "sessions/src"];
                    let paths = places.map(|folder| repository.join(folder).join(name));
                    let found = paths.iter().find_map(|path| fs::read_to_string(path).ok());
                    let found =
                        found.unwrap_or_else(|| panic!("{page} names {name}: no such file"));
                    source = Some((name, found));
                } else if !name.contains('_') {
                    // A whole folder, as `stores`.
                    source = None;
                } else if let Some((file, source)) = &source {
                    let is_there = source.contains(&format!("fn {name}("));
                    assert!(is_there, "{page} says that `{name}` is in {file}");
                    looked_at += 1;
                }
            }
        }
    }
    assert!(looked_at > 150, "the tables are not read: {looked_at}");
}

#[test]
fn the_documentation_and_the_list_of_findings_name_the_scripts_that_are_there() {
    let (page, list) = (read("sessions/docs/surprises.md"), read("findings/README.md"));
    let files = fs::read_dir(repository().join("findings")).expect("the folder");
    let files = files.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"));
    let scripts: Vec<_> = files.filter(|name| name.ends_with(".sh")).collect();
    for script in &scripts {
        let name = script.trim_end_matches(".sh");
        assert!(list.contains(&format!("| `{name}` |")), "`{name}` is not in the list");
    }
    let last = page.lines().filter_map(|row| row.strip_suffix(" |")?.rsplit(" | ").next());
    let named = last.flat_map(|column| column.split('`').skip(1).step_by(2));
    let named: Vec<_> = named.filter(|name| name.contains('-')).collect();
    assert!(named.len() > 15, "the tables are not read: {named:?}");
    for name in named {
        assert!(scripts.contains(&format!("{name}.sh")), "no finding is called `{name}`");
    }
}

/// The versions of the clients' crates, as `sessions` asks for them.
#[test]
fn the_documentation_names_the_versions_of_the_clients_that_stores_take() {
    let manifest = read("Cargo.toml");
    let version = |name: &str| {
        let (_, rest) =
            manifest.split_once(&format!("\n{name} = {{ version = \"")).expect("a version");
        let parts: Vec<&str> = rest.split(['.', '"']).take(2).collect();
        // What may change without a new type.
        if parts[0] == "0" { parts.join(".") } else { parts[0].to_string() }
    };
    for page in ["sessions/docs/guide/stores.md", "sessions/src/adopt/mod.rs"] {
        let text = read(page);
        for name in ["redis", "sqlx"] {
            let named = format!("`{name}` {}", version(name));
            assert!(text.contains(&named), "{page} does not say {named}");
        }
    }
}

/// Names in the tables that are no tests, but parts of a test that each store runs.
const PARTS: [&str; 3] =
    ["create_never_overwrites", "expired_counts_as_absent", "logs_out_everywhere"];

#[test]
fn every_test_that_the_page_on_security_names_has_a_change_that_it_must_notice() {
    let (page, changes) = (read("sessions/docs/security.md"), read("tests/mutants/security.txt"));
    for name in named(&page).into_iter().filter(|name| !PARTS.contains(name)) {
        let is_run = changes.lines().any(|line| line.split([' ', ':']).next_back() == Some(name));
        assert!(is_run, "`tests/mutations` does not run `{name}`");
    }
}

/// Whether a source has an item of this name.
fn has_item(source: &str, name: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    ["fn ", "struct ", "enum "].iter().any(|kind| {
        let item = format!("{kind}{name}");
        source.match_indices(&item).any(|(at, _)| is_end(&source[at + item.len()..]))
    })
}

/// From the root of the repository, or from the folder that the paragraph is about.
#[test]
fn each_file_that_the_architecture_names_is_there() {
    let page = read("ARCHITECTURE.md");
    let names = page.split('`').skip(1).step_by(2);
    let is_path = |name: &&str| name.ends_with(".rs") || name.ends_with('/');
    let mut files = 0;
    for name in names.filter(is_path) {
        files += 1;
        let places = ["", "sessions/src", "sessions-derive/src", "tests"]
            .map(|place| repository().join(place).join(name));
        assert!(places.iter().any(|path| path.exists()), "there is no {name}");
    }
    assert!(files > 80, "the page is not read: {files}");
}

#[test]
fn what_the_architecture_names_is_there() {
    let page = read("ARCHITECTURE.md");
    let (_, promises) = page.split_once("## Who keeps which promise").expect("the table");
    let keepers = promises.lines().filter_map(|row| row.strip_suffix(" |")?.rsplit(" | ").next());
    let mut names = 0;
    for keeper in keepers {
        let (mut file, mut source) = ("", String::new());
        for name in keeper.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                let path = repository().join("sessions/src").join(name);
                assert!(path.exists(), "there is no {name}");
                (file, source) = (name, fs::read_to_string(path).unwrap_or_default());
                continue;
            }
            names += 1;
            for part in name.split("::") {
                assert!(has_item(&source, part), "{file} has no `{part}`");
            }
        }
    }
    assert!(names >= 15, "the table is not read: {names}");
}
