#!/usr/bin/env bash
# memcached: a value that is refused as too large takes the value before it along, even if the
# compare-and-swap would have failed.
#
# Version:   memcached 1.6.18 (Debian 12).
# Expected:  "SERVER_ERROR object too large for cache" means that nothing has been done: what was stored
#            before is still there. Above all where the command had a condition (`add`: only if there is
#            nothing; a number of the version: only if it is still that one).
# Seen:      `set` and the meta command `ms` delete the old value. So does `ms` in mode E (add), which may
#            never touch a value, and `ms` with a version (C…) that is not the stored one: a writer who has
#            lost the race, and is refused for its size too, deletes what the winner wrote. The old commands
#            `add`, `replace`, `append` and `cas` leave the value alone.
# Matters:   a session that has grown too large is not "not saved": it is gone, its user is logged out. With
#            the meta protocol an optimistic lock does not protect against it. Check the size before.
# Source:    proto_text.c, beside the comment "Avoid stale data persisting in cache because we failed alloc":
#            the old commands ask there whether it is a `set`; that of `ms` asks itself in a comment whether
#            it should.
set -euo pipefail

command -v memcached >/dev/null || { echo "memcached is missing: apt-get install memcached"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
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
lines = server.makefile("rwb")

def ask(command, value=None):
    lines.write(command.encode() + b"\r\n" + (b"" if value is None else value + b"\r\n"))
    lines.flush()
    return lines.readline().decode().strip()

large = b"x" * (1024 * 1024 + 1)
size = len(large)
gone = {}
for name, command in [
    ("set", f"set key 0 0 {size}"),
    ("add", f"add key 0 0 {size}"),
    ("replace", f"replace key 0 0 {size}"),
    ("append", f"append key 0 0 {size}"),
    ("cas, another version", f"cas key 0 0 {size} 999999"),
    ("ms", f"ms key {size}"),
    ("ms, mode add", f"ms key {size} ME"),
    ("ms, another version", f"ms key {size} C999999"),
]:
    assert ask("set key 0 0 3", b"old") == "STORED"
    if name.endswith("version"):
        small = command.replace(str(size), "1", 1)
        refused = ask(small, b"x")
        assert refused in ("EXISTS", "EX"), refused
    answer = ask(command, large)
    found = ask("mg key v")
    gone[name] = found == "EN"
    if not gone[name]:
        assert found == "VA 3" and lines.readline() == b"old\r\n"
    assert answer == "SERVER_ERROR object too large for cache", answer
    print(f"{name:22} {answer};  the old value is {'GONE' if gone[name] else 'there'}")

described = {"set", "ms", "ms, mode add", "ms, another version"}
if {name for name in gone if gone[name]} == described:
    print("as described: what was refused has deleted what was there")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
