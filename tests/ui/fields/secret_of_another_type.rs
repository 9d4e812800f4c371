use sessions::{Secret, Session};

#[derive(Session)]
struct Visitor {
    #[session(secret)]
    token: String,
    #[session(secret)]
    maybe: Option<u64>,
    #[session(secret)]
    right: Option<Secret<String>>,
}

fn main() {}
