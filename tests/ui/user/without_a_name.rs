use serde::{Deserialize, Serialize};
use sessions::Session;

#[derive(Serialize, Deserialize)]
struct Person {
    id: u64,
}

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<Person>,
}

#[derive(Session)]
struct Named {
    #[session(user = Person::number)]
    user: Option<Person>,
}

impl Person {
    fn number(&self) -> u64 {
        self.id
    }
}

fn main() {}
