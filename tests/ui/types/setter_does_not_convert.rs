use sessions::Session;

#[derive(Default, serde::Deserialize, serde::Serialize)]
struct Theme(String);

impl From<&str> for Theme {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

#[derive(Session)]
struct Visitor {
    theme: Theme,
}

fn darken(mut s: sessions::WriteGuard<Visitor>) {
    s.set_theme("dark");
}

fn main() {}
