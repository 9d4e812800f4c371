use sessions::Session;

#[derive(Session)]
struct Visitor {
    take_theme: String,
    theme: bool,
}

fn main() {}
