use sessions::{Session, WriteGuard};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn name(mut s: WriteGuard<Visitor>) {
    s.set_name(None);
}

fn main() {}
