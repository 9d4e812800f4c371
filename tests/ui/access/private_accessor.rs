mod shop {
    #[derive(sessions::Session)]
    pub struct Visitor {
        pub visits: u32,
        secret: u32,
    }
}

fn look(mut s: sessions::WriteGuard<shop::Visitor>) -> u32 {
    s.set_visits(3);
    s.set_secret(4);
    s.secret()
}

fn main() {}
