use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(merge = "add")]
    visits: u32,
    #[session(skip, merge = add)]
    clicks: u32,
}

fn main() {}
