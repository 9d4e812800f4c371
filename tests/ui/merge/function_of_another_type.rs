use sessions::Session;

fn longest(_base: &str, _theirs: &str, ours: &str) -> String {
    ours.to_string()
}

#[derive(Session)]
struct Visitor {
    #[session(merge = longest)]
    visits: u32,
}

fn main() {}
