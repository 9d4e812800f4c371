use sessions::Session;

#[derive(Session)]
struct Visitor {
    theme: String,
    #[session(rename = "theme")]
    style: String,
}

fn main() {}
