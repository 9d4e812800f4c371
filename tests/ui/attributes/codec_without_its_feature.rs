use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(codec = messagepack)]
    theme: String,
    #[session(codec = json)]
    name: String,
}

fn main() {}
