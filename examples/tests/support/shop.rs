//! How a test starts the shop.

use std::process::Command;

/// The shop, on a port of its own.
pub(crate) fn shop() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(["--port", "0"]).env_remove("SESSION_KEYS").env("RUST_LOG", "warn");
    command
}

/// What the shop says before its address.
pub(crate) const LISTENS: &str = "http://";
