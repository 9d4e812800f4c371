//! What the compiler says to mistakes. `TRYBUILD=overwrite` writes what it says now.

#[test]
fn mistakes_are_explained() {
    let cases = trybuild::TestCases::new();
    for theme in ["access", "attributes", "keys", "many", "merge", "names", "shapes", "types"] {
        cases.compile_fail(format!("ui/{theme}/*.rs"));
    }
    cases.pass("ui/lints/*.rs");
}
