use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    theme_mut: bool,
}

fn main() {}
