use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: Option<&'static str>,
}

fn main() {}
