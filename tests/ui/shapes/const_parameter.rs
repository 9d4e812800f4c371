use sessions::Session;

#[derive(Session)]
struct Visitor<const N: usize> {
    seen: [u8; N],
}

fn main() {}
