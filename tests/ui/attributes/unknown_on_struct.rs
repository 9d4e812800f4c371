use sessions::Session;

#[derive(Session)]
#[session(rename_al = "camelCase", store = "memory")]
struct Visitor {
    theme: String,
}

fn main() {}
