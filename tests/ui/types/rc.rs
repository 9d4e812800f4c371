use std::rc::Rc;

use sessions::Session;

#[derive(Session)]
struct Visitor {
    names: Rc<Vec<String>>,
    #[session(skip)]
    skipped: Option<std::rc::Rc<u8>>,
}

async fn look(session: Session<Visitor>) -> usize {
    session.read().await.names().len()
}

fn main() {}
