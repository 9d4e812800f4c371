use sessions::Session;

#[derive(Session)]
struct Visitor {
    visits: std::cell::Cell<u32>,
}

fn main() {}
