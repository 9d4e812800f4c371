use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(rename = "a" alias = "b")]
    theme: String,
    #[session(default = )]
    visits: u32,
    #[session("th")]
    name: String,
}

fn main() {}
