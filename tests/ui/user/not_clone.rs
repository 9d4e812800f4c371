use sessions::{LoggedIn, Session};

#[derive(serde::Serialize, serde::Deserialize)]
struct Id(u64);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<Id>,
}

async fn account(user: LoggedIn<Visitor>) -> String {
    user.user.to_string()
}

fn main() {}
