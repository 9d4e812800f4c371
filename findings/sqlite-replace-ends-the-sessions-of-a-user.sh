#!/usr/bin/env bash
# SQLite: `INSERT OR REPLACE` of a user deletes all sessions that refer to him, with the foreign keys that sqlx turns on;
# in clients that do not, nothing happens to them.
#
# Versions:  crate sqlx 0.9.0 (with the SQLite in it), SQLite 3.40.1 (Debian 12) by Python's sqlite3.
# Expected:  "insert, or else update", in a shorter form than ON CONFLICT … DO UPDATE. A row that refers to the user by
#            his number, which stays what it is, stays too.
# Seen:      the old row is deleted, and the new one inserted. With `REFERENCES person ON DELETE CASCADE` the sessions go
#            with the old one (without the CASCADE they stay, for the number is there again at the end of the statement),
#            and columns that it does not name have their defaults. `rows_affected()` is 1, as of any INSERT. SQLite
#            itself leaves foreign keys off, and so does Python: there the sessions stay. An upsert leaves them in any
#            case.
# Matters:   whoever changes his name in the profile is logged out everywhere, and has not confirmed his address; who
#            tries the statement by hand sees it do no such thing. Write ON CONFLICT (id) DO UPDATE SET.
# Source:    https://www.sqlite.org/lang_conflict.html;
#            https://docs.rs/sqlx/0.9.0/sqlx/sqlite/struct.SqliteConnectOptions.html (foreign_keys).
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
echo "crate sqlx 0.9.0"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "sqlite"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/tables.sql" <<'END'
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, is_confirmed BOOLEAN DEFAULT FALSE);
CREATE TABLE session (id TEXT PRIMARY KEY, person INTEGER REFERENCES person CASCADE);
INSERT INTO person VALUES (7, 'Ada Byron', TRUE);
INSERT INTO session VALUES ('laptop', 7), ('phone', 7);
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use sqlx::{Connection, SqliteConnection};

const TABLES: &str = include_str!("tables.sql");

/// Writes a user again who has logged in twice. How many rows that has affected, how many sessions are there then, and
/// whether the address still counts as confirmed.
async fn writes(cascade: &str, statement: &'static str) -> (u64, i64, bool) {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let tables = TABLES.replace("CASCADE", cascade);
    sqlx::raw_sql(sqlx::AssertSqlSafe(tables)).execute(&mut connection).await.unwrap();
    let done = sqlx::query(statement).execute(&mut connection).await.unwrap();
    let sessions = sqlx::query_scalar("SELECT count(*) FROM session").fetch_one(&mut connection).await.unwrap();
    let confirmed = sqlx::query_scalar("SELECT is_confirmed FROM person").fetch_one(&mut connection).await.unwrap();
    (done.rows_affected(), sessions, confirmed)
}

#[tokio::main]
async fn main() -> ExitCode {
    let replace = "INSERT OR REPLACE INTO person (id, name) VALUES (7, 'Ada King')";
    let upsert =
        "INSERT INTO person (id, name) VALUES (7, 'Ada King') ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    let seen = [
        ("INSERT OR REPLACE, ON DELETE CASCADE", writes("ON DELETE CASCADE", replace).await),
        ("INSERT OR REPLACE, without", writes("", replace).await),
        ("ON CONFLICT DO UPDATE, ON DELETE CASCADE", writes("ON DELETE CASCADE", upsert).await),
    ];
    for (what, (rows, sessions, confirmed)) in seen {
        println!("sqlx: {what}: rows affected {rows}, sessions left {sessions} of 2, confirmed {confirmed}");
    }
    let is_so = seen.map(|(_, seen)| seen) == [(1, 0, false), (1, 2, false), (1, 2, true)];
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
failed=0
cargo run --quiet --manifest-path "$T/Cargo.toml" || failed=1
python3 - "$T/src/tables.sql" <<'END' || failed=1
import sqlite3, sys
db = sqlite3.connect(":memory:")
db.executescript(open(sys.argv[1]).read().replace("CASCADE", "ON DELETE CASCADE"))
db.execute("INSERT OR REPLACE INTO person (id, name) VALUES (7, 'Ada King')")
sessions = db.execute("SELECT count(*) FROM session").fetchone()[0]
print(f"Python, SQLite {sqlite3.sqlite_version}: INSERT OR REPLACE, ON DELETE CASCADE: sessions left {sessions} of 2")
sys.exit(sessions != 2)
END
if [ "$failed" = 0 ]; then
    echo "as described: what is replaced was deleted, and its sessions with it"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
