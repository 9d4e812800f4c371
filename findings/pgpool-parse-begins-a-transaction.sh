#!/usr/bin/env bash
# Pgpool-II: in raw mode a prepared INSERT is acknowledged and never committed.
#
# Versions:  Pgpool-II 4.3.5, PostgreSQL 15 (Debian 12); backend_clustering_mode = 'raw', one server.
# Expected:  raw mode neither replicates nor balances: one server, and its connections are pooled. So Parse,
#            Bind, Execute, Sync of an INSERT outside of a transaction commits at Sync, as it does directly.
# Seen:      already the Parse of a statement that writes is answered with ReadyForQuery 'T': Pgpool-II has
#            sent a BEGIN of its own. Execute answers "INSERT 0 1", and nobody sees the row. When the client
#            disconnects it is rolled back. The same INSERT as a simple query commits, and a prepared SELECT
#            begins nothing.
# Matters:   drivers prepare everything. Logins succeed, and are lost with the connection; every store test
#            that reads its own writes on the same connection passes. Look at the transaction's status after
#            the first write, or ask from another connection, and send COMMIT.
# Source:    the behaviour; sqlx, tokio-postgres and others use just these messages.
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
pgpool=$(PATH=$PATH:/usr/sbin command -v pgpool) || { echo "pgpool is missing: apt-get install pgpool2"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
# The pooler first, then its server; Pgpool-II ends its children when it is told to.
trap 'for p in "${P[@]}"; do kill "$p" 2>/dev/null || true; wait "$p" 2>/dev/null || true; done; rm -rf "$T"' EXIT
"$bin/postgres" --version
"$pgpool" --version 2>&1

as=()
mkdir "$T/db" "$T/pool"
# Neither runs as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/db" "$T/pool"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
direct=$(free)
pooled=$(free)
cd "$T/db"
"${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/db" -p "$direct" -k "$T/db" -c listen_addresses=127.0.0.1 \
    >"$T/postgres.log" 2>&1 &
P=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$direct" && break || sleep 0.1; done

cat >"$T/pgpool.conf" <<END
backend_clustering_mode = 'raw'
backend_hostname0 = '127.0.0.1'
backend_port0 = $direct
listen_addresses = '127.0.0.1'
port = $pooled
socket_dir = '$T/pool'
pcp_listen_addresses = ''
pcp_socket_dir = '$T/pool'
pid_file_name = '$T/pool/pid'
logdir = '$T/pool'
memqcache_oiddir = '$T/pool'
pool_passwd = ''
enable_pool_hba = off
num_init_children = 4
END
touch "$T/pcp.conf" "$T/hba.conf"
"${as[@]}" "$pgpool" -n -f "$T/pgpool.conf" -F "$T/pcp.conf" -a "$T/hba.conf" >"$T/pgpool.log" 2>&1 &
P=($! "${P[@]}")
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$pooled" && break || sleep 0.1; done

python3 - "$direct" "$pooled" <<'END'
import socket, struct, sys, time

class Client:
    """As much of PostgreSQL's protocol as this needs."""
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", int(port)), 20)
        self.lines = self.socket.makefile("rb")
        self.send(b"", struct.pack(">i", 196608) + b"user\0postgres\0database\0postgres\0\0")
        self.answer()

    def send(self, kind, body):
        self.socket.sendall(kind + struct.pack(">i", len(body) + 4) + body)

    def answer(self):
        """What commands and rows came back, and the transaction's status."""
        seen = []
        while True:
            kind = self.lines.read(1)
            body = self.lines.read(struct.unpack(">i", self.lines.read(4))[0] - 4)
            if kind == b"Z":
                return seen, body.decode()
            if kind in b"CE":
                seen.append(body.strip(b"\0").decode())
            if kind == b"D":
                seen.append(body[6:].decode())

    def simple(self, text):
        self.send(b"Q", text.encode() + b"\0")
        return self.answer()

    def prepare(self, text):
        self.send(b"P", b"\0" + text.encode() + b"\0\0\0")
        self.send(b"S", b"")
        return self.answer()

    def execute(self):
        self.send(b"B", b"\0\0" + b"\0\0" * 3)
        self.send(b"E", b"\0" + b"\0" * 4)
        self.send(b"S", b"")
        return self.answer()

    def leave(self):
        self.send(b"X", b"")
        self.lines.close(), self.socket.close()

direct, pooled = sys.argv[1:]
witness = Client(direct)
witness.simple("CREATE TABLE visits (path text)")

def rows():
    return witness.simple("SELECT count(*) FROM visits")[0][0]

seen = []
for name, port in [("directly", direct), ("through Pgpool-II", pooled)]:
    client = Client(port)
    select = client.prepare("SELECT 1")[1]
    simple = client.simple("INSERT INTO visits VALUES ('simple')"), rows()
    parsed = client.prepare("INSERT INTO visits VALUES ('prepared')")[1]
    executed = client.execute(), rows()
    client.leave()
    time.sleep(0.5)
    after = rows()
    print(f"{name}:")
    print(f"  status after Parse of SELECT, of INSERT:  {select}, {parsed}")
    print(f"  simple INSERT:    {simple[0]}, others see {simple[1]} row(s)")
    print(f"  prepared INSERT:  {executed[0]}, others see {executed[1]} row(s), {after} after the client has left")
    seen.append((select, simple, parsed, executed, after))
    witness.simple("TRUNCATE visits")

inserted = ["INSERT 0 1"]
expected = ("I", ((inserted, "I"), "1"), "I", ((inserted, "I"), "2"), "2")
described = ("I", ((inserted, "I"), "1"), "T", ((inserted, "T"), "1"), "1")
if seen == [expected, described]:
    print("as described: acknowledged, and lost")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
