#!/usr/bin/env bash
# SQLite: a column of type STRING makes numbers of texts that look like one: "007123" is 7123, and two different ids are
# one.
#
# Versions:  SQLite 3.40.1 (Debian 12), by Python's sqlite3.
# Expected:  SQLite takes any name for a type, and stores what it is given; STRING is TEXT, as VARCHAR and CHARACTER are.
# Seen:      a name that has none of INT, CHAR, CLOB, TEXT, BLOB, REAL, FLOA and DOUB in it makes the column numeric. A
#            text that can be read as a number becomes one when it is stored: zeros and a plus sign in front of it are
#            gone, what has an e in it is multiplied out, and what has more than 19 digits is rounded. Where the column
#            is the key, "12300" and "123e2" are the same, and so are ids of 20 digits that differ in the last. In a
#            STRICT table the type is an error.
# Matters:   `code STRING` for the code that is sent by mail: each tenth begins with 0, is stored as another text, and a
#            comparison in the program, or a driver that wants a text, refuses the right answer; all others work, and so
#            does `WHERE code = ?`, which makes a number of its parameter too. Telephone numbers lose their +, and users
#            with ids of digits alone are each other. Write TEXT, and STRICT behind the table.
# Source:    https://www.sqlite.org/datatype3.html#determination_of_column_affinity says so, and of STRING by name.
set -euo pipefail

command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }

python3 - <<'END'
import sqlite3, sys

print("SQLite", sqlite3.sqlite_version)
db = sqlite3.connect(":memory:")

def stored(kind, text):
    db.execute("DROP TABLE IF EXISTS codes")
    db.execute(f"CREATE TABLE codes (code {kind} PRIMARY KEY)")
    db.execute("INSERT INTO codes VALUES (?)", (text,))
    return db.execute("SELECT code FROM codes").fetchone()[0]

def is_taken(kind, text, other):
    stored(kind, text)
    try:
        db.execute("INSERT INTO codes VALUES (?)", (other,))
    except sqlite3.IntegrityError:
        return True
    return False

failed = False
for text, as_string in [("471123", 471123), ("007123", 7123), ("+4930123456", 4930123456), ("123e2", 12300), ("deadbeef", "deadbeef")]:
    seen = [stored(kind, text) for kind in ("TEXT", "VARCHAR", "STRING")]
    print(f"{text!r}: TEXT {seen[0]!r}, VARCHAR {seen[1]!r}, STRING {seen[2]!r}")
    failed |= seen != [text, text, as_string]
for text, other in [("123e2", "12300"), ("12345678901234567890", "12345678901234567891")]:
    seen = [is_taken(kind, text, other) for kind in ("TEXT", "VARCHAR", "STRING")]
    print(f"{text!r} and {other!r} are the same key: TEXT {seen[0]}, VARCHAR {seen[1]}, STRING {seen[2]}")
    failed |= seen != [False, False, True]
try:
    db.execute("CREATE TABLE strict (code STRING PRIMARY KEY) STRICT")
    failed = True
except sqlite3.OperationalError as error:
    print("STRICT:", error)
print("CHANGED: it no longer behaves as described" if failed else "as described: STRING is a number wherever that can be")
sys.exit(failed)
END
