#!/usr/bin/env bash
# SQLite: a process that reads its own database's file, to copy it, may lose all that it commits afterwards.
#
# Version:   SQLite 3.40.1 (Debian 12), in WAL mode.
# Expected:  a copy of the file beside a running program may lack the newest commits, or be of no use. The database
#            itself is only read, and stays what it was. What has been committed survives the process, however that ends.
# Seen:      SQLite's locks are those of POSIX, which belong to the process and not to the open file: when the process
#            closes the file that it has read, all its locks on that file are gone, also those of SQLite's connection,
#            which does not hear of it. The next other process that opens the database and leaves it, such as `sqlite3` in
#            a shell, finds no lock, takes itself for the last, writes the log back, and deletes the `-wal` file. The
#            connection goes on in the file that has no name any more: it commits, reads what it has committed, and no
#            error comes. Nobody else sees that, and when the process is killed it is gone. Without the reading, the same
#            look from the shell and the same kill lose nothing. (A connection that is closed in order writes back.)
# Matters:   `std::fs::copy("sessions.db", …)` in a task of the server is all that it takes, or a hash over the file, a
#            download of it. Every login and every logout since is lost with the process. Copy with `VACUUM INTO`, the
#            backup interface, or `sqlite3 FILE .backup`, a process of its own.
# Source:    https://www.sqlite.org/howtocorrupt.html, 2.2, warns of "POSIX advisory locks canceled by a separate thread
#            doing close()", for a file that two write at once.
set -euo pipefail

command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
command -v sqlite3 >/dev/null || { echo "sqlite3 is missing: apt-get install sqlite3"; exit 2; }
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
echo "SQLite $(python3 -c 'import sqlite3; print(sqlite3.sqlite_version)') in Python," \
    "$(sqlite3 --version | cut -d ' ' -f 1) in the shell"

cat >"$T/server.py" <<'END'
import sqlite3, sys

file, reads_the_file = sys.argv[1], sys.argv[2] == "reads"
server = sqlite3.connect(file, isolation_level=None)
server.execute("PRAGMA journal_mode = WAL")
server.execute("CREATE TABLE sessions (id TEXT)")
server.execute("INSERT INTO sessions VALUES ('first')")
if reads_the_file:
    with open(file, "rb") as read:
        read.read()
print("first", flush=True)
sys.stdin.readline()
server.execute("INSERT INTO sessions VALUES ('second')")
print(*(id for id, in server.execute("SELECT id FROM sessions")), flush=True)
sys.stdin.readline()
END

python3 - "$T" <<'END'
import os, subprocess, sys

folder = sys.argv[1]

def others_see(file):
    """What another process reads, which opens the database and closes it."""
    return subprocess.check_output(["sqlite3", file, "SELECT id FROM sessions"]).decode().split()

def outcome(what):
    file = f"{folder}/{what}.db"
    server = subprocess.Popen([sys.executable, folder + "/server.py", file, what],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "first\n"
        assert others_see(file) == ["first"]
        has_log = os.path.exists(file + "-wal")
        print("go on", file=server.stdin, flush=True)
        own = server.stdout.readline().split()
        others = others_see(file)
    finally:
        server.kill()
        server.wait()
    return has_log, own, others, others_see(file)

seen = []
for what in ("writes", "reads"):
    seen.append(outcome(what))
    has_log, own, others, afterwards = seen[-1]
    print("a process that reads its own file:" if what == "reads" else "a process that does not:")
    print(f"    after a look from the shell the log is {'there' if has_log else 'GONE'}")
    print(f"    of its next commit, the process sees {own}, others see {others}")
    print(f"    when it has been killed, there is {afterwards}")

both = ["first", "second"]
if seen == [(True, both, both, both), (False, both, ["first"], ["first"])]:
    print("as described: what was committed after the reading is lost")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
