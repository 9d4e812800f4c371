#!/usr/bin/env bash
# memcached: an item that may live for one second can be gone after a twentieth of that.
#
# Version:   memcached 1.6.18 (Debian 12).
# Expected:  exptime 1 keeps an item for a second, as Redis's EX 1 does, or for a little longer.
# Seen:      memcached adds the number to a clock of whole seconds that ticks by itself, and an item ends
#            with that tick. Stored just before one, exptime 1 lasts for some hundredths of a second;
#            exptime n lasts between n - 1 and n seconds, never longer.
# Matters:   a lock of one second is no lock; a one-time message or the mark of a renewed session can be
#            gone before the redirect that needs it. Round up, and add one.
# Source:    memcached.c: `realtime(exptime)` is `exptime + current_time`, and `clock_handler` sets
#            `current_time` once a second.
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

def life(exptime):
    """For how long an item is to be had, by this process's clock."""
    lines.write(b"set key 0 %d 1\r\nx\r\n" % exptime)
    lines.flush()
    begun = time.monotonic()
    assert lines.readline() == b"STORED\r\n"
    while time.monotonic() - begun < exptime + 5:
        lines.write(b"get key\r\n")
        lines.flush()
        if lines.readline() == b"END\r\n":
            return time.monotonic() - begun
        lines.readline(), lines.readline()
        time.sleep(0.002)

# An item's end is a tick of the clock; the next one is stored shortly before the tick after it.
for exptime in (1, 3):
    lives = []
    for wait in (0.95, 0.9, 0.5, 0.1):
        life(1)
        time.sleep(wait)
        lives.append(life(exptime))
    print(f"exptime {exptime}: lived", ", ".join(f"{seen:.3f} s" for seen in lives))
    if exptime == 1:
        shortest, longest = min(lives), max(lives)
if shortest < 0.5 and longest < 1.2:
    print("as described: a second is at most one, and may be nearly none")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
