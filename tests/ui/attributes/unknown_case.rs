use sessions::Session;

#[derive(Session)]
#[session(rename_all = "camelcase")]
struct Visitor {
    theme: String,
}

fn main() {}
