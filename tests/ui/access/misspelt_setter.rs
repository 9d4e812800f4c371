use sessions::{Session, WriteGuard};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn count(mut s: WriteGuard<Visitor>) {
    s.set_visit(3);
}

fn main() {}
