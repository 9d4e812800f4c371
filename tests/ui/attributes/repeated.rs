use sessions::Session;

#[derive(Session)]
#[session(rename_all = "camelCase")]
#[session(rename_all = "lowercase")]
struct Visitor {
    #[session(rename = "a", rename = "b")]
    theme: String,
    #[session(skip)]
    #[session(skip)]
    scratch: u32,
    #[session(default = 1, default = 2)]
    visits: u32,
}

fn main() {}
