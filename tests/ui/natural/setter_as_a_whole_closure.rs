//! A setter alone is a closure's whole body, wherever one is taken: it lends nothing out.

use sessions::{Session, UserSessions};

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    name: Option<String>,
    visits: u32,
    seen: Vec<u64>,
    #[session(flash)]
    notices: Vec<String>,
    #[session(skip)]
    scratch: u32,
}

async fn update(session: Session<Visitor>) -> sessions::Result<()> {
    session.update(|s| s.set_name("Ada")).await?;
    session.update(|s| s.clear_name()).await?;
    session.update(|s| s.reset_seen()).await?;
    session.update(|s| s.push_notices("saved")).await?;
    session.update(|s| s.set_scratch(1)).await?;
    session.update(|s| s.set_visits(s.visits() + 1)).await
}

async fn transaction(session: Session<Visitor>) -> sessions::Result<()> {
    session.transaction(|s| Ok(s.set_visits(1))).await
}

async fn update_each(sessions: UserSessions<Visitor>) -> sessions::Result<()> {
    sessions.update_each(&7, |s| s.set_visits(0)).await.map(drop)
}

async fn write(session: Session<Visitor>) {
    session.write().await.set_visits(1)
}

fn main() {}
