use sessions::Session;

#[derive(Session)]
struct Visitor {
    #[session(flash, skip)]
    skipped: Option<String>,
    #[session(flash, default = "welcome")]
    greeting: String,
    #[session(flash, merge = add)]
    sum: u32,
    #[session(flash = true)]
    notice: Option<String>,
}

fn main() {}
