use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(alias = "name")]
    full_name: String,
    #[session(alias = "style", alias = "look")]
    theme: String,
    name: String,
    #[session(alias = "look")]
    view: String,
}

fn main() {}
