use sessions::Session;

#[derive(Session)]
struct Visitor<T: Default> {
    visits: u32,
    cart: T,
}

fn count(mut s: sessions::WriteGuard<Visitor<u32>>) -> u32 {
    s.set_visits(3);
    s.set_cart(4);
    s.visits() + s.cart
}

fn main() {}
