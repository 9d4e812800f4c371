use sessions::Session;

#[derive(Session)]
#[session(name = "shop: customer")]
struct Customer {
    theme: String,
}

#[derive(Session)]
#[session(name = "")]
struct Visitor {
    theme: String,
}

#[derive(Session)]
struct Admin {
    #[session(name = "colours")]
    theme: String,
}

fn main() {}
