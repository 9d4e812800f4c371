use sessions::{Session, WriteGuard};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn count(mut s: WriteGuard<Visitor>) {
    s.set_visits("three");
    s.set_theme(3);
}

fn main() {}
