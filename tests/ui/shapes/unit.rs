use sessions::Session;

#[derive(Session)]
struct Visitor;

fn main() {}
