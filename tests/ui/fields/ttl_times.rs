use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(ttl = "ten minutes")]
    words: u32,
    #[session(ttl = "30m1h")]
    order: u32,
    #[session(ttl = "0s")]
    never: u32,
    #[session(ttl = 600)]
    seconds: u32,
    #[session(ttl)]
    nothing: u32,
}

fn main() {}
