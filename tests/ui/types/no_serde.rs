use sessions::Session;

#[derive(Default)]
struct Cart {
    items: Vec<u32>,
}

#[derive(Session)]
struct Visitor {
    visits: u32,
    cart: Cart,
}

fn main() {}
