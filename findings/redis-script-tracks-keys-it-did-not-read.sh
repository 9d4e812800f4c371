#!/usr/bin/env bash
# Redis: a script that reads one key is told of all that it was called with, each at every read.
#
# Version:   Redis 7.0.15 (Debian 12), November 2026.
# Expected:  with CLIENT TRACKING the server notes the keys that a client reads. A script that is called with
#            two keys and reads one of them, or reads one and writes the other, is told of changes to the first.
# Seen:      each command in the script that reads notes all keys that the script was called with, whichever of
#            them the command reads; also one that the script has only written. And it does so again at each
#            read: N keys, each read once, are N × N notes, which `INFO commandstats` shows as time of the
#            script: a script over many keys takes far longer on a connection that tracks.
# Matters:   a cache that saves many sessions with one script, to spare round trips, pays for it with the square
#            of their number, and is told of keys whose values it has never seen. Save them one script each, or
#            in a pipeline; or on a connection that does not track.
# Source:    https://redis.io/docs/latest/develop/reference/client-side-caching/ speaks of keys that were read.
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
import re, socket, sys, time

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
        self.ask("HELLO", "3")

    def value(self):
        line = self.lines.readline().strip()
        kind, rest = line[:1], line[1:].decode()
        if kind in b"$=":
            return self.lines.read(int(rest) + 2)[:-2].decode()
        if kind in b"*>%":
            return [self.value() for _ in range(int(rest) * (2 if kind == b"%" else 1))]
        return None if kind == b"_" else rest

    def ask(self, *words):
        words = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        while self.lines.peek(1)[:1] == b">":
            self.pushes.append(self.value())
        return self.value()

    def told_of(self):
        """The keys that have been pushed up to now: pushes come before a later reply."""
        self.ask("PING")
        pushes, self.pushes = self.pushes, []
        return sorted(key for _, keys in pushes for key in keys or [])

reader, other = Client(), Client()
assert reader.ask("CLIENT", "TRACKING", "ON") == "OK"
seen = []
for what, script in [
    ("reads the first", "return redis.call('GET', KEYS[1])"),
    ("reads neither", "return 1"),
    ("writes the second, then reads the first", "redis.call('SET', KEYS[2], 1) return redis.call('GET', KEYS[1])"),
]:
    other.ask("MSET", "first", 0, "second", 0)
    reader.told_of()
    reader.ask("EVAL", script, 2, "first", "second")
    reader.told_of()
    other.ask("SET", "second", 2)
    seen.append(reader.told_of())
    print(f"a script with two keys {what:40}; the second changes; told of {seen[-1]}")

def microseconds(client, keys):
    """What the server takes for one script that reads so many keys, each once."""
    script = "for _, key in ipairs(KEYS) do redis.call('GET', key) end"
    client.ask("EVAL", script, keys, *[f"key{n}" for n in range(keys)])
    other.ask("CONFIG", "RESETSTAT")
    for _ in range(20):
        client.ask("EVAL", script, keys, *[f"key{n}" for n in range(keys)])
    return float(re.search(r"cmdstat_eval:.*?usec_per_call=([\d.]+)", other.ask("INFO", "commandstats"))[1])

for keys in [10, 1000]:
    tracked, plain = microseconds(reader, keys), microseconds(other, keys)
    print(f"{keys:5} keys, each read once: {plain:9.0f} us, and {tracked:9.0f} us on a connection that tracks")
    seen.append(tracked > 20 * plain)
if seen == [["second"], [], ["second"], False, True]:
    print("as described: each read notes all keys of the script")
else:
    print("CHANGED: it no longer behaves as described:", seen)
    sys.exit(1)
END
