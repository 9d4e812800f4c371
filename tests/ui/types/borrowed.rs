use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: &'static str,
}

fn main() {}
