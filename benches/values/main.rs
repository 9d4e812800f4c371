//! Which types `sessions` can store with which codec, and what becomes of a stored value when its type
//! changes: `cargo run --manifest-path benches/values/Cargo.toml`. Ends with an error if any value was
//! read as another one, or was lost after it was stored.

mod evolution;
#[cfg(feature = "webauthn")]
mod passkeys;
mod table;
mod types;

use std::process::ExitCode;

use table::Table;

fn main() -> ExitCode {
    let (mut types, mut changes) = (Table::default(), Table::default());
    types::fill(&mut types);
    evolution::fill(&mut changes);
    types.print("type, value");
    changes.print("change, value");
    match types.has_bad() || changes.has_bad() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
