use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(flash)]
    notice: Option<String>,
}

async fn page(session: Session<Visitor>) {
    let mut s = session.write().await;
    s.notice();
    s.notice_mut().take();
    s.reset_notice();
}

fn main() {}
