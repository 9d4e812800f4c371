#!/usr/bin/env bash
# memcached: a counter that `decr` has made shorter has a space behind it, and is no number to whoever reads it.
#
# Versions:  memcached 1.6.18 (Debian 12).
# Expected:  what `decr` answers is what is stored: 10 less 1 is 9, and a `get` says 9.
# Seen:      `decr` answers 9, and `get` says "9 ", of two bytes: the value keeps its length, and is filled up with
#            spaces. So does `mg`. `incr` and `decr` themselves take that for 9, and an `incr` to 10 takes the space away
#            again. `incr` on a value that has become longer, and all counters below ten, show nothing of it.
# Matters:   "teapots that are left", or "tries", which count down from 10: from then on what is read is `"9
#            ".parse::<u32>()`, an error, which is often taken for a counter that is not there, and begun anew. Languages
#            whose parsers take spaces show nothing. Read what `decr` itself answers, or count up.
# Source:    https://github.com/memcached/memcached/blob/master/doc/protocol.txt, at the end of "Increment/Decrement".
set -euo pipefail

command -v memcached >/dev/null || { echo "memcached is missing: apt-get install memcached"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait' EXIT
memcached --version

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
user=()
[ "$(id -u)" != 0 ] || user=(-u nobody)
memcached -l 127.0.0.1 -p "$port" -U 0 "${user[@]}" &
P+=($!)
python3 - "$port" <<'END'
import socket, sys, time

for _ in range(100):
    try:
        server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.05)
answers = server.makefile("rb")

def ask(line, rows=1):
    server.sendall(line.encode() + b"\r\n")
    return [answers.readline().removesuffix(b"\r\n").decode() for _ in range(rows)]

def counter():
    return ask("get tries", 3)[1], ask("mg tries v", 2)[1]

ask("set tries 0 0 2\r\n10")
seen = [(ask("decr tries 1")[0], *counter()), (ask("decr tries 4")[0], *counter()), (ask("incr tries 5")[0], *counter())]
for what, (answer, get, mg) in zip(("10, decr 1", "decr 4", "incr 5"), seen):
    print(f"{what}: answers {answer!r}; get says {get!r}, mg {mg!r}")
ask("set tries 0 0 1\r\n9")
short = (ask("decr tries 1")[0], *counter())
print(f"9, decr 1: answers {short[0]!r}; get says {short[1]!r}, mg {short[2]!r}")
is_so = seen == [("9", "9 ", "9 "), ("5", "5 ", "5 "), ("10", "10", "10")] and short == ("8", "8", "8")
print("as described: a number that is shorter than before has a space behind it" if is_so else "CHANGED: it no longer behaves as described")
sys.exit(not is_so)
END
