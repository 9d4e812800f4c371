//! The source files of this repository, for tests that read them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the workspace is.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// All Rust files in `sessions/src`, and below.
pub fn sources_of_sessions() -> Vec<PathBuf> {
    let found = rust_sources("sessions/src");
    assert!(found.len() > 100, "the files are not read: {found:?}");
    found
}

/// All Rust files in this folder of the repository, and below.
pub fn rust_sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&repository().join(folder), &mut found);
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
