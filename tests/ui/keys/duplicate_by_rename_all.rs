use sessions::Session;

#[derive(Session)]
#[session(rename_all = "camelCase")]
#[allow(non_snake_case)]
struct Visitor {
    first_name: String,
    firstName: String,
}

fn main() {}
