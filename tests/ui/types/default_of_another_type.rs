use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(default = 5)]
    theme: String,
    #[session(default = 5)]
    visits: Option<u32>,
    #[session(default = [1, 2])]
    items: Vec<u8>,
}

fn main() {}
