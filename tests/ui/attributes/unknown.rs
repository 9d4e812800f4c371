use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(renam = "th")]
    theme: String,
    #[session(flash)]
    note: String,
    #[session(defualt = 1)]
    visits: u32,
}

fn main() {}
