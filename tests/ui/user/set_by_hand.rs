use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
}

async fn login(session: Session<Visitor>) {
    session.write().await.set_user(7);
}

fn main() {}
