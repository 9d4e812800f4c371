use sessions::Session;

#[derive(Session)]
#[session(rename_all, crate)]
struct Visitor {
    #[session(rename)]
    theme: String,
    #[session(default, version)]
    visits: u32,
    #[session(alias)]
    name: String,
}

fn main() {}
