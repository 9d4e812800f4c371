use sessions::{ReadGuard, Session};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn count(mut s: ReadGuard<Visitor>) {
    s.set_visits(3);
}

fn main() {}
