#!/usr/bin/env bash
# chrono: a time whose offset has seconds is written with the offset in minutes, and read back as another moment.
#
# Versions:  crates chrono 0.4.45, chrono-tz 0.10.4, jiff 0.2.46, time 0.3.55, serde_json 1.0.154.
# Expected:  what serde writes of a `DateTime` is that moment: an offset that the format has no words for is an error, or
#            the time is written with another offset.
# Seen:      the local time is written to the second, and the offset beside it is rounded to a minute. Read back, the
#            moment is up to half a minute off, without an error; and what is read writes the same text again. Liberia
#            was 44 minutes and 30 seconds behind until January 1972, Ireland 25 minutes and 21 seconds behind until
#            1916, and every place of the tz database has such an offset before its first time zone. time refuses to
#            write it as RFC 3339; jiff writes the zone beside the rounded offset, and reads the right moment.
# Matters:   a date of birth, or the first day of Unix, in the visitor's time zone: saved in a session it is another moment
#            from the next request on, and a midnight can be the day before. A session store that reads back what it
#            writes, and compares the texts, does not see it. As `DateTime<Utc>` it is exact.
# Source:    https://github.com/chronotope/chrono/issues/1154 (the printing, closed), and
#            https://github.com/chronotope/chrono/pull/1035, whose author asks what to do about it.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates chrono 0.4.45, chrono-tz 0.10.4, jiff 0.2.46, time 0.3.55, serde_json 1.0.154"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
chrono = { version = "=0.4.45", features = ["serde"] }
chrono-tz = "=0.10.4"
jiff = { version = "=0.2.46", features = ["serde", "tzdb-bundle-always"] }
serde_json = "=1.0.154"
time = { version = "=0.3.55", features = ["formatting"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use chrono::{DateTime, FixedOffset, TimeZone, Utc};
use chrono_tz::Tz;

/// How many seconds later the moment is that comes back, and whether it is written as the same text.
fn moved(zone: Tz, year: i32) -> (i64, bool) {
    let written = zone.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap().fixed_offset();
    let text = serde_json::to_string(&written).unwrap();
    let read: DateTime<FixedOffset> = serde_json::from_str(&text).unwrap();
    let (before, after) = (written.with_timezone(&Utc), read.with_timezone(&Utc));
    println!("{zone}, {year}: {text}\n    written at {before}, read as {after}");
    ((after - before).num_seconds(), serde_json::to_string(&read).unwrap() == text)
}

fn main() -> ExitCode {
    let seen = [
        moved(Tz::Africa__Monrovia, 1970),
        moved(Tz::Europe__Dublin, 1900),
        moved(Tz::Europe__Berlin, 1890),
        moved(Tz::Africa__Monrovia, 1973),
    ];
    let as_utc = Tz::Africa__Monrovia.with_ymd_and_hms(1970, 1, 1, 0, 0, 0).unwrap().to_utc();
    let text = serde_json::to_string(&as_utc).unwrap();
    let is_exact = serde_json::from_str::<DateTime<Utc>>(&text).unwrap() == as_utc;
    println!("as DateTime<Utc>: {text}");

    let zoned = jiff::civil::date(1970, 1, 1).in_tz("Africa/Monrovia").unwrap();
    let text = serde_json::to_string(&zoned).unwrap();
    let jiff = serde_json::from_str::<jiff::Zoned>(&text).unwrap().timestamp() == zoned.timestamp();
    println!("jiff: {text}");

    let offset = time::UtcOffset::from_hms(0, -44, -30).unwrap();
    let time = time::OffsetDateTime::UNIX_EPOCH.to_offset(offset);
    let text = time.format(&time::format_description::well_known::Rfc3339);
    println!("time: {text:?}");

    let described = [(30, true), (-21, true), (28, true), (0, true)];
    match seen == described && is_exact && jiff && text.is_err() {
        true => ExitCode::SUCCESS,
        false => {
            println!("{seen:?} {is_exact} {jiff}");
            ExitCode::FAILURE
        }
    }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: an offset with seconds moves the time that it stands beside"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
