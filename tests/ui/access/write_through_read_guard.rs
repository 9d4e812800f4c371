//! What the compiler says names the guard that is one for reading, and cannot be made to say `write()`:
//! E0596 shows no message of ours, neither that of a bound on `DerefMut` (`#[diagnostic::on_unimplemented]`
//! speaks in E0277 and E0599 alone), nor that of the setter, which is found. To be told in our words, a read
//! guard would have to deref to a type of its own, with a stub for each setter: twice the generated methods,
//! and no function could take `&VisitorFields` from both guards. `ReadGuard`'s documentation has this error.

use sessions::{ReadGuard, Session};

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    theme: String,
    visits: u32,
}

fn count(mut s: ReadGuard<Visitor>) {
    s.set_visits(3);
}

fn main() {}
