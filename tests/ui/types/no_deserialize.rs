use sessions::Session;

#[derive(Default, serde::Serialize)]
struct Cart {
    items: Vec<u32>,
}

#[derive(Session)]
struct Visitor {
    cart: Cart,
}

async fn look(session: Session<Visitor>) -> usize {
    session.read().await.cart().items.len()
}

fn main() {}
