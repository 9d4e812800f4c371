use sessions::Session;

#[derive(Session)]
struct Visitor {
    visits: u32 = 5,
}

fn main() {}
