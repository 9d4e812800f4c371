//! What a store that holds one record does with it.

use sessions::{Created, Record, Replaced};

pub(crate) fn create(held: &mut Option<Record>, record: &Record) -> Created {
    match held {
        Some(_) => Created::Exists,
        None => {
            *held = Some(record.clone());
            Created::Done
        }
    }
}

pub(crate) fn replace(held: &mut Option<Record>, record: &Record, based_on: u64) -> Replaced {
    match held {
        None => Replaced::Missing,
        Some(held) if held.version != based_on => Replaced::Changed,
        Some(held) => {
            *held = record.clone();
            Replaced::Done
        }
    }
}
