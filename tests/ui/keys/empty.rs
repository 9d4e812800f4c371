use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(rename = "")]
    theme: String,
    #[session(alias = "")]
    name: String,
}

fn main() {}
