use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    set_theme: bool,
}

fn main() {}
