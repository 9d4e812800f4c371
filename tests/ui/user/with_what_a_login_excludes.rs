use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(user, default = Some(7), merge = add, skip, into)]
    user: Option<String>,
}

#[derive(Session)]
struct Admin {
    #[session(user = "name", user)]
    user: Option<String>,
}

fn main() {}
