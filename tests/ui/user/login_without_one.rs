use sessions::{RequireLogin, Session};

#[derive(Session)]
struct Visitor {
    user: Option<u64>,
}

async fn login(session: Session<Visitor>) -> sessions::Result<()> {
    session.login(7).await
}

fn main() {
    let _ = RequireLogin::<Visitor>::new();
}
