use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    #[session(user)]
    admin: Option<u64>,
}

fn main() {}
