use sessions::{Session, WriteGuard};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn count(mut s: WriteGuard<Visitor>) {
    s.visits = 3;
    s.visits += 1;
}

fn main() {}
