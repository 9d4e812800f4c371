use sessions::{RequireLogin, Session};

#[derive(Session)]
struct Visitor {
    user: Option<u64>,
}

async fn login(session: Session<Visitor>) -> sessions::Result<()> {
    session.login(7).await
}

async fn logout(session: Session<Visitor>) -> sessions::Result<()> {
    session.require_recent_login(std::time::Duration::from_secs(600))?;
    session.logout().await
}

fn main() {
    let _ = RequireLogin::<Visitor>::new();
}
