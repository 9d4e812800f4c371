struct Visitor {
    visits: u32,
}

fn look(s: sessions::ReadGuard<Visitor>) -> u32 {
    s.visits
}

fn main() {}
