use sessions::{Secret, Session};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Token(String);

#[derive(Session)]
struct Visitor {
    #[session(secret)]
    token: Secret<Token>,
}

fn main() {}
