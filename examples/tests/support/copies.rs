//! Recipes as a person takes them: each copied, as it is, into an empty project, with the dependencies that it says
//! it needs. `SESSIONS_TEST_COPIES=1` makes the tests run those; without it they run what the workspace has built.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{LazyLock, Mutex},
};

const SWITCH: &str = "SESSIONS_TEST_COPIES";

/// The program to run for one that the workspace has built.
pub(crate) fn program(built: &str) -> PathBuf {
    static COPIES: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    if env::var(SWITCH).as_deref() != Ok("1") {
        return built.into();
    }
    let name = Path::new(built).file_stem().and_then(|name| name.to_str()).expect("a name");
    // Locked while it is built: the copies share a folder for what is compiled.
    let mut copies = COPIES.lock().expect("no other copy has failed");
    copies.entry(name.to_string()).or_insert_with(|| build(name)).clone()
}

/// The `cargo add` lines of a recipe: in its own head, or on its page of the guide.
pub(crate) fn needs(name: &str) -> Vec<String> {
    let page = || fs::read_to_string(repository().join(format!("sessions/docs/guide/{name}.md")));
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim_start_matches("//! "));
        lines.filter(|line| line.starts_with("cargo add ")).map(String::from).collect()
    };
    let needs = lines(&source(name));
    if needs.is_empty() { page().map(|page| lines(&page)).unwrap_or_default() } else { needs }
}

fn source(name: &str) -> String {
    let paths = ["examples/recipes", "examples"].map(|at| repository().join(at).join(name));
    let sources = paths.iter().map(|path| fs::read_to_string(path.with_extension("rs")));
    sources.flatten().next().unwrap_or_else(|| panic!("`{name}` is no recipe"))
}

fn ancestor(holds: &str) -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let folder = folders.find(|folder| folder.join(holds).exists());
    folder.unwrap_or_else(|| panic!("there is no `{holds}` above the package")).to_path_buf()
}

fn repository() -> PathBuf {
    ancestor("sessions-derive")
}

fn build(name: &str) -> PathBuf {
    let project = env::temp_dir().join(format!("sessions-copy-{name}-{}", process::id()));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("copies");
    run(cargo(&["new", "--quiet", "--vcs", "none", "--name", name]).arg(&project));
    for line in needs(name) {
        add(&project, &line);
    }
    fs::write(project.join("src/main.rs"), source(name)).expect("the copy");
    // The same versions as in the workspace, which are on this machine.
    let lock = ancestor("Cargo.lock").join("Cargo.lock");
    fs::copy(lock, project.join("Cargo.lock")).expect("the versions");
    let mut building = cargo(&["build", "--quiet", "--offline"]);
    building.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(building.env("CARGO_INCREMENTAL", "0").current_dir(&project));
    fs::remove_dir_all(&project).expect("the project goes");
    target.join("debug").join(name)
}

/// As the line says, but that `sessions` is the one of this repository.
fn add(project: &Path, line: &str) {
    let words = line.strip_prefix("cargo add ").expect("such a line").split(' ');
    let words: Vec<_> = words.collect();
    let flags = words.iter().position(|word| word.starts_with("--")).unwrap_or(words.len());
    let (crates, flags) = words.split_at(flags);
    let (ours, others): (Vec<&str>, Vec<&str>) =
        crates.iter().partition(|name| **name == "sessions");
    if !others.is_empty() {
        let mut adding = cargo(&["add", "--quiet", "--offline"]);
        run(adding.args(others).args(flags).current_dir(project));
    }
    if !ours.is_empty() {
        let mut adding = cargo(&["add", "--quiet", "--offline", "--path"]);
        adding.arg(repository().join("sessions")).args(flags);
        run(adding.current_dir(project));
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").expect("cargo runs the tests"));
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
