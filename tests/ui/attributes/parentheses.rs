use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(default(5))]
    visits: u32,
    #[session(rename("th"))]
    theme: String,
}

fn main() {}
