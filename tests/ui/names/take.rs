use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    take_theme: bool,
}

fn main() {}
