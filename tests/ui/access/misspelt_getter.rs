use sessions::{ReadGuard, Session};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn look(s: ReadGuard<Visitor>) -> u32 {
    s.visit()
}

fn main() {}
