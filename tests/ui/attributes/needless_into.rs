use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(into)]
    theme: String,
    #[session(into)]
    items: Option<Vec<u8>>,
    #[session(into)]
    visits: u32,
}

fn main() {}
