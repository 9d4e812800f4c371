use sessions::{ReadGuard, Session};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn look(s: ReadGuard<Visitor>) -> String {
    s.visits()
}

fn main() {}
