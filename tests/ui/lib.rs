//! What the compiler says to mistakes, and that what is natural to write compiles. With `TRYBUILD=overwrite`, `cargo test --package
//! sessions-ui-tests` writes what it says now.

#[test]
fn mistakes_are_explained() {
    let cases = trybuild::TestCases::new();
    for theme in [
        "access",
        "attributes",
        "fields",
        "keys",
        "many",
        "merge",
        "names",
        "shapes",
        "types",
        "user",
    ] {
        cases.compile_fail(format!("{theme}/*.rs"));
    }
    cases.pass("lints/*.rs");
    cases.pass("natural/*.rs");
}
