use sessions::Session;

#[derive(Session)]
enum Visitor {
    Guest,
    User { name: String },
}

fn main() {}
