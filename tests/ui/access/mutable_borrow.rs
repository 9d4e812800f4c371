use sessions::{Session, WriteGuard};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn darken(mut s: WriteGuard<Visitor>) {
    s.theme.push_str("er");
    let theme = &mut s.theme;
    theme.clear();
}

fn main() {}
