use sessions::Session;

#[derive(Session)]
#[session(rename_all = "shouting")]
struct Visitor {
    theme: String,
}

fn main() {}
