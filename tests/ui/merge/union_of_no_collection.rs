use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(merge = union)]
    visits: u32,
}

fn main() {}
