use sessions::Session;

#[derive(Default, serde::Serialize)]
struct Cart {
    items: Vec<u32>,
}

#[derive(Session)]
struct Visitor {
    cart: Option<Cart>,
}

fn main() {}
