use sessions::Session;

#[derive(Session)]
struct Visitor
where
    String: Clone,
{
    name: String,
}

fn main() {}
