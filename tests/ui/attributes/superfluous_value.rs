use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(skip = true)]
    scratch: u32,
    #[session(into = "String")]
    name: Box<str>,
}

fn main() {}
