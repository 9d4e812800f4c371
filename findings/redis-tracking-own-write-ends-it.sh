#!/usr/bin/env bash
# Redis: with CLIENT TRACKING … NOLOOP, one's own write ends the tracking of the key without a word.
#
# Version:   Redis 7.0.15 (Debian 12); Redis 8.0.6 and Valkey 8.1.1, 9.1.2 did the same in November 2026.
# Expected:  NOLOOP is documented as leaving out the messages about one's own writes, and no more. A client
#            that has written through its cache keeps the value that it wrote, and hears of the next change
#            by anybody else, because it never stopped being interested in the key.
# Seen:      the client's own write removes the key from the table of what it has read, as every write
#            does, and only the message is left out. The next write of another client is not announced:
#            the cached value is stale for good. It is announced again once the client has read the key
#            after its write; a SET … GET, which returns a value, does not count as reading.
# Matters:   a cache of sessions that keeps what its own process has saved shows an ended session as alive.
#            Read the key again after a write (in the same script, after the write), or drop the entry.
# Source:    https://redis.io/docs/latest/commands/client-tracking/ says nothing of it.
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
        self.lines, self.pushes = self.socket.makefile("rb"), []
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
        while self.lines.peek(1)[:1] == b">":
            self.pushes.append(self.value())
        return self.value()

    def told(self):
        """What has been pushed up to now: pushes come before a later reply."""
        self.ask("PING")
        pushes, self.pushes = self.pushes, []
        return ["invalidate", ["key"]] in pushes

reader, other = Client(), Client()
assert reader.ask("CLIENT TRACKING ON NOLOOP") == "OK"
seen = []
for own in [["GET key"], ["GET key", "SET key own"], ["GET key", "SET key own GET"],
            ["GET key", "SET key own", "GET key"]]:
    other.ask("SET key old")
    reader.told()
    for command in own:
        reader.ask(command)
    assert not reader.told()
    other.ask("SET key new")
    seen.append(reader.told())
    print(f"reader: {', '.join(own):35} other: SET key new   reader is", "told" if seen[-1] else "NOT told")
if seen == [True, False, False, True]:
    print("as described: after its own write it hears of no other")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
