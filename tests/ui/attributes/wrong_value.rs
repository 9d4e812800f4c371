use sessions::Session;

#[derive(Session)]
#[session(crate = "sessions", rename_all = camelCase)]
struct Visitor {
    #[session(rename = theme)]
    theme: String,
    #[session(version = "2")]
    visits: u32,
    #[session(version = -1)]
    views: u32,
    #[session(version = 4294967296)]
    clicks: u32,
    #[session(alias = 3)]
    name: String,
}

fn main() {}
