use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    theme_is_dirty: bool,
}

fn main() {}
