use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(ttl = "10m", skip)]
    skipped: Option<String>,
    #[session(ttl = "10m", merge = add)]
    sum: u32,
    #[session(ttl = "10m", user)]
    user: Option<u64>,
}

fn main() {}
