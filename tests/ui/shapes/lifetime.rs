use sessions::Session;

#[derive(Session)]
struct Visitor<'a> {
    name: &'a str,
    theme: std::borrow::Cow<'a, str>,
}

fn main() {}
