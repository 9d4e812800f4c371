use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(skip)]
    shared: std::rc::Rc<u8>,
}

fn main() {}
