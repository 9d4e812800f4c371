use sessions::Session;

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn count(session: Session<Visitor>) -> sessions::Result<()> {
    session.update(|s| s.set_visits(1)).await
}

fn main() {}
