#!/usr/bin/env bash
# rkyv: whether stored bytes can be read depends on the address at which they lie: in a row from PostgreSQL, on the
# length of the columns, and the rows, before them.
#
# Versions:  crates rkyv 0.8.18, sqlx 0.9.0, PostgreSQL 15 (Debian 12).
# Expected:  `from_bytes` reads what `to_bytes` has written, from any `&[u8]`; the copy that it makes, in place of
#            looking at the bytes as they are, is what it costs.
# Seen:      bytes of a type with a `u64` in it are read at every eighth address, and are "unaligned pointer" at all
#            others, with and without the copy. What begins an allocation lies well: a `Vec<u8>`, and so all that a test
#            makes. A slice of a larger buffer lies anywhere: behind one byte that says the version, never; borrowed from
#            a row of sqlx, by what the connection has received before it.
# Matters:   a session is read or not by the length of its user's name beside it, and of what was asked before: most
#            visitors are strangers, and their sessions are said to be damaged. Turn on the feature `unaligned` before
#            anything is stored (it changes what is written), or copy into an `AlignedVec` first.
# Source:    https://docs.rs/rkyv/0.8.18/rkyv/#features names `unaligned`.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
echo "crates rkyv 0.8.18, sqlx 0.9.0; $("$bin/postgres" --version)"

as=()
mkdir "$T/db"
# PostgreSQL does not run as root.
[ "$(id -u)" != 0 ] || { chmod 755 "$T"; chown nobody "$T/db"; as=(setpriv --reuid=nobody --regid=nogroup --clear-groups); }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$T/db"
"${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/db" -p "$port" -k "$T/db" -c listen_addresses=127.0.0.1 >"$T/log" 2>&1 &
P+=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break || sleep 0.1; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
rkyv = "=0.8.18"
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};
use sqlx::{Connection, PgConnection, Row};

#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Session {
    user: u64,
    teapots: u32,
}

fn is_read(bytes: &[u8], session: &Session) -> bool {
    match (rkyv::from_bytes::<Session, Error>(bytes), rkyv::access::<ArchivedSession, Error>(bytes)) {
        (Ok(read), Ok(_)) => read == *session,
        (Err(error), Err(_)) if error.to_string().starts_with("unaligned pointer") => false,
        _ => panic!("read in one way alone, or refused for another reason"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let session = Session { user: 7, teapots: 1 };
    let bytes = rkyv::to_bytes::<Error>(&session).unwrap();
    let places: Vec<bool> = (0..8)
        .map(|place| {
            let mut buffer = AlignedVec::<16>::new();
            buffer.resize(place, 0);
            buffer.extend_from_slice(&bytes);
            is_read(&buffer[place..], &session)
        })
        .collect();
    println!("behind 0 to 7 bytes: {places:?}");

    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", std::env::args().nth(1).unwrap());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (mut borrowed, mut copied) = (Vec::new(), Vec::new());
    for length in 1..=8 {
        let name = &"Ada Byron"[..length];
        let row = sqlx::query("SELECT $1::text, $2::bytea").bind(name).bind(&bytes[..]);
        let row = row.fetch_one(&mut connection).await.unwrap();
        borrowed.push(is_read(row.get::<&[u8], _>(1), &session));
        copied.push(is_read(&row.get::<Vec<u8>, _>(1), &session));
    }
    println!("as &[u8] of a row, behind a name of 1 to 8 letters: {borrowed:?}");
    println!("as Vec<u8> of the same rows: {copied:?}");
    let well = |read: &[bool]| read.iter().filter(|is_read| **is_read).count();
    let is_so = places == [true, false, false, false, false, false, false, false]
        && (1..8).contains(&well(&borrowed))
        && well(&copied) == 8;
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: the same bytes are read in one place and refused in others"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
