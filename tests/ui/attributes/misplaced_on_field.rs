use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(rename_all = "camelCase")]
    theme: String,
    #[session(crate = sessions)]
    visits: u32,
}

fn main() {}
