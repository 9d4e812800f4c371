use sessions::Session;

struct Connection(u8);

#[derive(Session)]
struct Visitor {
    #[session(skip)]
    connection: Connection,
}

fn main() {}
