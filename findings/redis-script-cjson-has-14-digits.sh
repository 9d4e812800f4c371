#!/usr/bin/env bash
# Redis: a script that decodes a JSON or MessagePack value and encodes it again, as it is, changes it: numbers of more
# than 14 digits, empty lists or empty maps, floats, nothings.
#
# Versions:  Redis 7.0.15 (Debian 12). 14 digits are also the largest that cjson.encode_number_precision takes.
# Expected:  Lua's numbers are doubles: what is above 2^53 (16 digits) may be rounded, all else comes back; an empty list
#            stays a list.
# Seen:      cjson.encode writes a number with 14 digits: 1234567890123456, which a double holds, becomes
#            1.2345678901235e+15, which no integer type reads. An empty list becomes {}. cmsgpack keeps 53 bits, and
#            makes an empty map, or one whose values are all nil, an empty list; 1.0 the integer 1; and a `bin` value is
#            an error. Nothing says so; what the script did not touch is changed as well.
# Matters:   "set one field of a session in the server, atomically": the script sets `seen`, and the user's number (a
#            snowflake id has 18 digits) is another one or unreadable, and an empty cart is no list any more, so that the
#            whole session cannot be read. Change whole values in a script, and let the client encode; or keep numbers as
#            texts, and fields as fields of a hash.
# Source:    https://github.com/redis/redis/issues/7520; https://github.com/sidekiq/sidekiq/issues/2478 met it.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
redis-server --version

redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" &
P+=($!)
for _ in $(seq 100); do redis-cli -s "$T/socket" PING >/dev/null 2>&1 && break || sleep 0.05; done

python3 - "$T/socket" <<'END'
import struct, subprocess, sys

def run(script, value):
    command = ["redis-cli", "-s", sys.argv[1], "--raw", "-x", "EVAL", script, "0"]
    return subprocess.run(command, input=value, capture_output=True).stdout.removesuffix(b"\n")

failed = 0
def check(library, name, value, encode, expected):
    global failed
    seen = run(f"return {library}.{encode[0]}({library}.{encode[1]}(ARGV[1]))", value)
    shown = [it.decode() if library == "cjson" or it.startswith(b"ERR") else it.hex() for it in (value, seen)]
    print(f"{library} {name}: {shown[0]} -> {shown[1].splitlines()[0]}")
    failed |= not (seen.startswith(expected) if expected == b"ERR" else seen == expected)

json = lambda name, value, expected: check("cjson", name, value, ("encode", "decode"), expected)
json("14 digits", b'{"user":12345678901234}', b'{"user":12345678901234}')
json("16 digits", b'{"user":1234567890123456}', b'{"user":1.2345678901235e+15}')
json("18 digits", b'{"user":123456789012345678}', b'{"user":1.2345678901235e+17}')
json("a float", b'{"price":0.30000000000000004}', b'{"price":0.3}')
json("an empty list", b'{"cart":[]}', b'{"cart":{}}')

pack = lambda name, value, expected: check("cmsgpack", name, value, ("pack", "unpack"), expected)
pack("16 digits", b"\xcf" + struct.pack(">Q", 1234567890123456), b"\xcf" + struct.pack(">Q", 1234567890123456))
pack("18 digits", b"\xcf" + struct.pack(">Q", 123456789012345678), b"\xcf" + struct.pack(">Q", 123456789012345680))
pack("1.0", b"\xcb" + struct.pack(">d", 1.0), b"\x01")
pack("an empty list", b"\x90", b"\x90")
pack("an empty map", b"\x80", b"\x90")
pack("a map of nil", b"\x81\xa1n\xc0", b"\x90")
pack("bytes", b"\xc4\x02\xff\xfe", b"ERR")
print("CHANGED: it no longer behaves as described" if failed else "as described: what a script hands on is not what it was given")
sys.exit(failed)
END
