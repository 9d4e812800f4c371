use sessions::Session;

#[derive(Default, serde::Deserialize, serde::Serialize)]
struct Handle {
    #[serde(skip)]
    shared: std::rc::Rc<u8>,
}

#[derive(Session)]
struct Visitor {
    handle: Handle,
}

fn main() {}
