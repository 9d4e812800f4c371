use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(alias = "theme")]
    theme: String,
    #[session(alias = "a", alias = "a")]
    name: String,
}

fn main() {}
