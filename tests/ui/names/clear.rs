use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: Option<String>,
    clear_theme: bool,
}

fn main() {}
