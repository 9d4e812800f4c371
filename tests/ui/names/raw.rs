use sessions::Session;

#[derive(Session)]
struct Visitor {
    r#type: String,
    #[session(rename = "set")]
    set_type: bool,
    #[session(skip)]
    type_mut: bool,
}

fn main() {}
