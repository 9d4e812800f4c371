#!/usr/bin/env bash
# jiff: a time with a zone that was stored before its country changed the law cannot be read afterwards.
#
# Versions:  crates jiff 1.0.2 (`ZonedDateTime`; `Zoned` in 0.2 likewise), serde_json 1.0.154, zic of Debian 12's
#            libc-bin.
# Expected:  what `Serialize` has written, `Deserialize` reads: it is a moment, a time of day and a zone, and when the
#            rules of the zone change, one of the first two gives way.
# Seen:      a time next summer is written as 2027-07-01T09:00:00+02:00[Europe/Testland]. With rules by which Testland
#            has no summer time in 2027 any more, that is an error: the offset is not the zone's. So it is on a machine
#            that has no such zone, or no list of zones. What is past, and what is in a zone whose rules stay, is read.
# Matters:   "the appointment that this visitor is about to book" cannot be read from the day on which the system's
#            tzdata is updated, as it is several times a year, and with it whatever it is part of: a whole session. Store
#            a moment (`Timestamp`), or the time of day and the name of the zone, each for itself; or parse by
#            `temporal::DateTimeParser` with an `OffsetConflict` that says what gives way.
# Source:    https://docs.rs/jiff/1.0.2/jiff/tz/enum.OffsetConflict.html: it is meant so for texts that people write.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
zic=$(PATH=$PATH:/usr/sbin command -v zic) || { echo "zic is missing: apt-get install libc-bin"; exit 2; }
echo "crates jiff 1.0.2, serde_json 1.0.154"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
jiff = { version = "=1.0.2", features = ["serde"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use jiff::ZonedDateTime;

/// Each argument is a time to write, or JSON to read.
fn main() -> ExitCode {
    let mut is_read = true;
    for argument in std::env::args().skip(1) {
        if argument.starts_with('"') {
            let read = serde_json::from_str::<ZonedDateTime>(&argument);
            is_read &= read.is_ok();
            let read = read.map_or_else(|error| error.to_string(), |time| time.to_string());
            eprintln!("{argument}: {read}");
        } else {
            let time: ZonedDateTime = argument.parse().unwrap();
            println!("{}", serde_json::to_string(&time).unwrap());
        }
    }
    if is_read { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
run() { TZDIR=$T/$1 cargo run --quiet --manifest-path "$T/Cargo.toml" -- "${@:2}"; }

# Testland's rules, before and after its parliament has met.
rules() {
    cat <<END
Rule Land 2000 $1 - Mar lastSun 2:00 1:00 S
Rule Land 2000 $1 - Oct lastSun 3:00 0 -
Zone Europe/Testland 1:00 Land CE%sT
END
}
rules max >"$T/before.zone"
rules 2026 >"$T/after.zone"
for law in before after; do "$zic" -d "$T/$law" "$T/$law.zone"; done
mkdir "$T/none"

stored=$(run before '2027-07-01T09:00:00[Europe/Testland]')
past=$(run before '2025-07-01T09:00:00[Europe/Testland]')
echo "stored: $stored and $past"
failed=0
expect() { # which rules, what is stored, whether it is read
    local seen=read
    echo "rules $1:"
    run "$1" "$2" || seen=refused
    [ "$seen" = "$3" ] || failed=1
}
expect before "$stored" read
expect after "$stored" refused
expect after "$past" read
expect none "$stored" refused
if [ "$failed" = 0 ]; then
    echo "as described: it depends on the zone's rules of today whether a stored time can be read"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
