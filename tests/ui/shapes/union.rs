use sessions::Session;

#[derive(Session)]
union Visitor {
    number: u32,
    letter: char,
}

fn main() {}
