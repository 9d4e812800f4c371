use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(merge = add)]
    name: String,
}

fn main() {}
