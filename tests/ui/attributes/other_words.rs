use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(with = "hex")]
    colour: String,
    #[session(expires = "10m")]
    code: Option<u32>,
    #[session(encrypted)]
    token: Option<String>,
}

fn main() {}
