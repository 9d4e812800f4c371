use sessions::{Secret, Session};

#[derive(Session)]
struct Visitor {
    #[session(secret, skip)]
    skipped: Secret<String>,
    #[session(secret, into)]
    converted: Secret<String>,
    #[session(secret, user)]
    user: Option<u64>,
}

fn main() {}
