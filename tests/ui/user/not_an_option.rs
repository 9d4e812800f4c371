use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: u64,
}

fn main() {}
