#!/usr/bin/env bash
# PostgreSQL: a value that was stored as `jsonb` is another one when it is read: a float is an integer, -0.0 is 0.0, and
# fields come in another order; and some texts cannot be stored.
#
# Versions:  PostgreSQL 15 (Debian 12), crates sqlx 0.9.0, serde 1.0.229, serde_json 1.0.154, indexmap 2.14.2.
# Expected:  `jsonb` keeps the value and forgets the white space; what serde_json has written, it reads again, as from a
#            text.
# Seen:      numbers are kept as `numeric`, which has no exponent and no -0.0: 1e16 comes back as 10000000000000000,
#            which an `untagged` enum or a `Value` takes for an integer. Fields are sorted, by the length of their names
#            first: an `IndexMap`, whose order was the basket's, has another one. A text with U+0000, which any form can
#            send, is refused (22P05). `json`, which keeps what was written, takes and gives back all of it.
# Matters:   sessions and carts in a column that can be looked into: the list that a visitor has put in order is sorted,
#            a signature or an ETag over the JSON does not fit any more, and one byte in a search field makes each save
#            of that session an error. Store bytes, or `json`; where `jsonb` has to be, lists in place of ordered maps.
# Source:    https://www.postgresql.org/docs/15/datatype-json.html says so of the order, the names and U+0000.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
echo "crates sqlx 0.9.0, serde_json 1.0.154, indexmap 2.14.2; $("$bin/postgres" --version)"

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
indexmap = { version = "=2.14.2", features = ["serde"] }
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{fmt::Debug, process::ExitCode};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Amount {
    Pieces(i64),
    Litres(f64),
}

/// What comes back from a column of this type: as it is shown, since an `IndexMap` counts as equal in any order.
async fn stored<V: Serialize + DeserializeOwned + Debug>(
    connection: &mut PgConnection,
    kind: &str,
    value: &V,
) -> String {
    let made = format!("CREATE TEMPORARY TABLE IF NOT EXISTS {kind}_session (data {kind})");
    sqlx::query(AssertSqlSafe(made)).execute(&mut *connection).await.unwrap();
    let text = serde_json::to_string(value).unwrap();
    let insert = format!("INSERT INTO {kind}_session VALUES ($1::text::{kind}) RETURNING data::text");
    let stored = sqlx::query_scalar::<_, String>(AssertSqlSafe(insert)).bind(text).fetch_one(connection).await;
    match stored {
        Ok(text) => format!("{:?}", serde_json::from_str::<V>(&text).unwrap()),
        Err(error) => error.as_database_error().unwrap().code().unwrap().into_owned(),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", std::env::args().nth(1).unwrap());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut is_so = true;
    macro_rules! check {
        ($value:expr, $json:expr, $jsonb:expr) => {{
            let value = $value;
            let json = stored(&mut connection, "json", &value).await;
            let jsonb = stored(&mut connection, "jsonb", &value).await;
            println!("{value:?}: json {json}, jsonb {jsonb}");
            is_so &= json == $json && jsonb == $jsonb;
        }};
    }
    check!(Amount::Litres(1e15), "Litres(1000000000000000.0)", "Litres(1000000000000000.0)");
    check!(Amount::Litres(1e16), "Litres(1e16)", "Pieces(10000000000000000)");
    check!(-0.0_f64, "-0.0", "0.0");
    let basket =
        IndexMap::from([("teapot", 1), ("cup", 6), ("milk", 2)].map(|(name, count)| (name.to_string(), count)));
    check!(basket, r#"{"teapot": 1, "cup": 6, "milk": 2}"#, r#"{"cup": 6, "milk": 2, "teapot": 1}"#);
    check!("a\0b".to_string(), r#""a\0b""#, "22P05");
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: what comes back is not what was written"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
