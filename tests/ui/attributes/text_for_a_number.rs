use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(default = "5")]
    visits: u32,
    #[session(default = "true")]
    seen: Option<bool>,
}

fn main() {}
