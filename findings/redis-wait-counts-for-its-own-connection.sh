#!/usr/bin/env bash
# Redis: `WAIT` on another connection than that of the write says that a replica has it, which has not.
#
# Version:   Redis 7.0.15 (Debian 12).
# Expected:  `WAIT 1 300` after a write answers 1 if a replica has all that the server has written so far, and 0 after
#            300 milliseconds if none has. Which connection asks does not matter: there is one stream to the replicas.
# Seen:      what is waited for is the place in the stream where this *connection's* last command was. A connection of
#            a pool that has been idle, or is new, has nothing to wait for: `WAIT` answers at once, and counts the
#            replica as having the write, while the replica stands still. On the connection of the write the answer is 0.
#            A mere `GET` brings a connection up to date: after it, the other one says 0 too.
# Matters:   "a logout counts when a replica has it": with a pool (bb8, deadpool) that gives `WAIT` another connection
#            than the write, each is confirmed at once, and after a failover the session is back. Send both on one
#            connection, best in one pipeline, without a transaction: within MULTI, `WAIT` does not wait.
# Source:    https://redis.io/docs/latest/commands/wait/ speaks of "the current client"; replication.c, waitCommand,
#            compares with `c->woff`, which server.c sets behind each command.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
# A process that stands still is ended when it goes on.
trap 'kill "${P[@]}" 2>/dev/null || true; kill -CONT "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
redis-server --version

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
master=$(free)
replica=$(free)
mkdir "$T/master" "$T/replica"
quiet=(--bind 127.0.0.1 --save "" --daemonize no --loglevel warning --repl-diskless-sync-delay 0)
redis-server --port "$master" --dir "$T/master" "${quiet[@]}" >"$T/master.log" &
P+=($!)
redis-server --port "$replica" --dir "$T/replica" --replicaof "127.0.0.1 $master" "${quiet[@]}" >"$T/replica.log" &
P+=($!)

python3 - "$master" "${P[1]}" <<'END'
import os, signal, socket, sys, time

class Client:
    def __init__(self):
        for _ in range(100):
            try:
                self.socket = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
                break
            except OSError:
                time.sleep(0.05)
        self.lines = self.socket.makefile("rwb")

    def ask(self, *words):
        self.lines.write(b"*%d\r\n" % len(words))
        for word in words:
            self.lines.write(b"$%d\r\n%s\r\n" % (len(word), word.encode()))
        self.lines.flush()
        line = self.lines.readline().decode().strip()
        return self.lines.read(int(line[1:]) + 2)[:-2].decode() if line[0] == "$" else line

writer, idle = Client(), Client()
idle.ask("PING")
writer.ask("SET", "session", "first")
while writer.ask("WAIT", "1", "100") != ":1":
    pass

# The replica stands still: it has nothing of what comes now.
os.kill(int(sys.argv[2]), signal.SIGSTOP)
writer.ask("SET", "session", "logged out")
seen = {}

def wait(who, client):
    begun = time.monotonic()
    answer = client.ask("WAIT", "1", "300")
    seen[who] = answer, time.monotonic() - begun > 0.25
    print(f"WAIT 1 300 on {who:36} {answer} {'after 300 ms' if seen[who][1] else 'at once'}")

wait("a connection that was idle", idle)
wait("a new connection", Client())
wait("the connection that has written", writer)
assert idle.ask("GET", "session") == "logged out"
wait("the idle one, after a GET", idle)

said = list(seen.values())
if said == [(":1", False), (":1", False), (":0", True), (":0", True)]:
    print("as described: another connection is told what is not so")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
