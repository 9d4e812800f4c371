use sessions::Session;

#[derive(serde::Deserialize, serde::Serialize)]
enum Theme {
    Light,
    Dark,
}

#[derive(Session)]
struct Visitor {
    theme: Theme,
}

fn main() {}
