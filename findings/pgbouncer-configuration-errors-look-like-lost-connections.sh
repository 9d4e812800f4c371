#!/usr/bin/env bash
# PgBouncer: whatever it refuses has the SQLSTATE of a protocol violation, class 08, "connection exception".
#
# Versions:  PgBouncer 1.18.0, PostgreSQL 15 (Debian 12).
# Expected:  PgBouncer refuses with the codes that PostgreSQL has for the same mistakes: 3D000 for a database
#            that does not exist, 42704 for a parameter that it does not know, 53300 when it is full.
# Seen:      all of them are 08P01, with the reason in the text alone; and `extra_float_digits`, which
#            PostgreSQL takes and sqlx sends by itself, is one of the refused parameters.
# Matters:   class 08 is "the connection is lost", which clients and stores repeat, with backoff, for a
#            configuration that will be wrong for ever; while "no more connections allowed", which does pass,
#            cannot be told from it by its code. The text has to be looked at.
# Source:    src/client.c and src/objects.c call `disconnect_client` with a text and no code; that one
#            fills in 08P01. `ignore_startup_parameters` is in https://www.pgbouncer.org/config.html
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
bouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || { echo "pgbouncer is missing: apt-get install pgbouncer"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$bin/postgres" --version
"$bouncer" --version | head -1

as=()
mkdir "$T/db"
# Neither runs as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/db"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
direct=$(free)
pooled=$(free)
cd "$T/db"
"${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/db" -p "$direct" -k "$T/db" -c listen_addresses=127.0.0.1 \
    -c max_connections=5 -c superuser_reserved_connections=1 >"$T/postgres.log" 2>&1 &
P+=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$direct" && break || sleep 0.1; done
"$bin/psql" -q -h 127.0.0.1 -p "$direct" -U postgres postgres -c "CREATE ROLE app LOGIN"

cat >"$T/bouncer.ini" <<END
[databases]
postgres = host=127.0.0.1 port=$direct user=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooled
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 5
END
"${as[@]}" "$bouncer" "$T/bouncer.ini" >"$T/bouncer.log" 2>&1 &
P+=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$pooled" && break || sleep 0.1; done

python3 - "$direct" "$pooled" <<'END'
import socket, struct, sys

def connect(port, **parameters):
    """None, and the connection; or the code and text of the refusal."""
    client = socket.create_connection(("127.0.0.1", int(port)), 20)
    lines = client.makefile("rb")
    words = {"user": "app", "database": "postgres", **parameters}
    body = struct.pack(">i", 196608) + b"".join(f"{a}\0{b}\0".encode() for a, b in words.items()) + b"\0"
    client.sendall(struct.pack(">i", len(body) + 4) + body)
    while kind := lines.read(1):
        body = lines.read(struct.unpack(">i", lines.read(4))[0] - 4)
        if kind == b"E":
            fields = {field[:1]: field[1:].decode() for field in body.split(b"\0") if field}
            return fields[b"C"], fields[b"M"]
        if kind == b"Z":
            return "ok", client

seen = []
for name, parameters in [
    ("a database that does not exist", {"database": "nowhere"}),
    ("an unknown parameter", {"no_such_parameter": "1"}),
    ("extra_float_digits", {"extra_float_digits": "2"}),
    ("no connection is left", None),
]:
    for where, port in zip(("PostgreSQL", "PgBouncer"), sys.argv[1:]):
        if parameters is None:
            held = []
            while (answer := connect(port))[0] == "ok" and len(held) < 20:
                held.append(answer[1])
            for client in held:
                client.close()
        else:
            answer = connect(port, **parameters)
        text = answer[1] if answer[0] != "ok" else ""
        print(f"{name:31} {where:11} {answer[0]:6} {text}")
        seen.append(answer[0])

if seen == ["3D000", "08P01", "42704", "08P01", "ok", "08P01", "53300", "08P01"]:
    print("as described: one code for all that it refuses")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
