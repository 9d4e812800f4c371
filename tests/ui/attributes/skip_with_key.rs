use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(skip, rename = "th", alias = "t", version = 2)]
    theme: String,
}

fn main() {}
