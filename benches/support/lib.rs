//! What the programs of this folder share.

pub mod client;
pub mod peers;
pub mod table;
pub mod valgrind;
