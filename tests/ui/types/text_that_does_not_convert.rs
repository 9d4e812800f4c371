use sessions::Session;

#[derive(serde::Deserialize, serde::Serialize)]
struct Theme(String);

#[derive(Session)]
struct Visitor {
    #[session(default = "light")]
    theme: Theme,
}

fn main() {}
