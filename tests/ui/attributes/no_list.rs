use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session]
    theme: String,
    #[session = "th"]
    name: String,
}

fn main() {}
