use sessions::Session;

#[derive(Session)]
struct Visitor {
    __tracked: String,
    __tracked_too: bool,
}

fn main() {}
