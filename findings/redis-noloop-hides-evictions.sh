#!/usr/bin/env bash
# Redis: with CLIENT TRACKING … NOLOOP, a key that the server forgets to track, or evicts, in the middle of one's
# own command is not announced.
#
# Version:   Redis 7.0.15 (Debian 12).
# Expected:  NOLOOP leaves out the messages about keys that "this connection itself" has modified. When the table
#            of tracked keys is full (tracking-table-max-keys), the documentation says, clients are told to drop
#            a key as if it had been modified: whoever has cached it hears of it.
# Seen:      the server makes room at the beginning of the next command, and takes the client of that command for
#            the one who has modified the key. With NOLOOP the message is left out, and the key is not tracked any
#            more: the next change by another client is not announced either. Without NOLOOP every key that is
#            dropped is announced. The same for keys that `maxmemory` evicts to make room for one's own write.
# Matters:   a client-side cache on a busy connection keeps values for good that others have changed, as soon as
#            the server's table is full: sessions that have ended are shown. Do without NOLOOP, and tell the
#            messages about one's own writes apart by their order.
# Source:    https://redis.io/docs/latest/develop/reference/client-side-caching/ ("Limiting the amount of memory
#            used by Redis"); the check for NOLOOP in src/tracking.c, trackingInvalidateKey.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
redis-server --version

redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" &
P+=($!)

python3 - "$T/socket" <<'END'
import socket, sys, time

class Client:
    def __init__(self):
        for _ in range(100):
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(sys.argv[1])
                break
            except OSError:
                time.sleep(0.05)
        self.lines, self.told = self.socket.makefile("rb"), set()
        self.ask("HELLO 3")

    def value(self):
        line = self.lines.readline().strip()
        kind, rest = line[:1], line[1:].decode()
        if kind == b"$":
            return self.lines.read(int(rest) + 2)[:-2].decode()
        if kind in b"*>%":
            return [self.value() for _ in range(int(rest) * (2 if kind == b"%" else 1))]
        return None if kind == b"_" else rest

    def ask(self, command):
        self.socket.sendall(command.encode() + b"\r\n")
        while True:
            is_push = self.lines.peek(1)[:1] == b">"
            value = self.value()
            if not is_push:
                return value
            self.told.update(value[1] or [])

def missed(mode, keys=100):
    """Keys that the reader has read, another client has changed, and nobody has announced."""
    reader, other = Client(), Client()
    other.ask("FLUSHALL")
    other.ask("CONFIG SET tracking-table-max-keys 10")
    reader.ask(f"CLIENT TRACKING ON {mode}")
    for key in range(keys):
        other.ask(f"SET {key} old")
    for key in range(keys):
        assert reader.ask(f"GET {key}") == "old"
    # Those that were forgotten have been announced by now, and nothing was changed so far.
    for key in range(keys):
        other.ask(f"SET {key} new")
    reader.ask("PING")
    never = keys - len({int(key) for key in reader.told})
    print(f"CLIENT TRACKING ON {mode:7} {keys} keys read, room for 10, all changed: {never} never announced")
    return never

without, noloop = missed(""), missed("NOLOOP")
if without == 0 and noloop > 0:
    print("as described: with NOLOOP what the server forgets during one's own commands is kept back")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
