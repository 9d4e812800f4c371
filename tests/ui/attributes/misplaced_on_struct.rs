use sessions::Session;

#[derive(Session)]
#[session(skip, default = 3)]
struct Visitor {
    theme: String,
}

fn main() {}
