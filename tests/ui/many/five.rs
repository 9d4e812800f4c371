use sessions::{Session, WriteGuard};

#[derive(Session)]
#[session(rename_all = "camelcase")]
struct Visitor {
    #[session(renam = "th")]
    theme: String,
    #[session(into, default = "5")]
    visits: u32,
    #[session(rename = "theme", skip)]
    scratch: Vec<u8>,
    name: Option<String>,
}

// None of what follows is wrong, and no error may come of it.
fn count(mut s: WriteGuard<Visitor>) -> u32 {
    s.set_theme("dark");
    s.set_visits(3);
    s.set_name("Ada");
    s.clear_name();
    s.scratch_mut().push(1);
    let _: (&str, Option<&str>, &Visitor) = (s.theme(), s.name(), &s);
    s.visits() + s.visits
}

fn main() {}
