use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(renam = "th")]
    theme: String,
    set_theme: bool,
}

fn main() {}
