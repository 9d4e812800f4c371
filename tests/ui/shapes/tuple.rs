use sessions::Session;

#[derive(Session)]
struct Visitor(String, u32);

fn main() {}
