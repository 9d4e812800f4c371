use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(codec = jsn)]
    theme: String,
    #[session(codec = "json")]
    name: String,
    #[session(codec)]
    visits: u32,
}

fn main() {}
