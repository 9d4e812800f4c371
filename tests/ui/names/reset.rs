use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    reset_theme: bool,
}

fn main() {}
