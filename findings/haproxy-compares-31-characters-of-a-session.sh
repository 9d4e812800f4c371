#!/usr/bin/env bash
# HAProxy: a stick table of session cookies compares their first 31 characters, so that all who log in with a JWT are one.
#
# Version:   HAProxy 2.6.12 (Debian 12).
# Expected:  `stick-table type string` with `track-sc0 req.cook(id)` counts the requests of each session, to limit their
#            rate, and `stick on req.cook(id)` sends each session to its server: two cookies with different values are two
#            entries. And the cookie that is read is the one that applications read, the first of its name.
# Seen:      a string without `len` is cut after 31 characters, in the table and in the comparison. Cookies that differ
#            behind that are one entry: signed tokens begin with a header that is the same for all, a JWT's
#            `eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.` has 37 characters. `haproxy -c` says nothing. With `len 512` each has
#            its own. And of two cookies of one name `req.cook` has the last, the one with the shorter path.
# Matters:   the limit for one visitor is the limit for all together, and all stick to one server. It shows under load.
#            A cookie that begins at random is told apart: look at where the value begins to differ, and set `len`.
# Source:    https://docs.haproxy.org/2.6/configuration.html#4.2-stick-table has "automatically limited to 32 characters"
#            (with the end of the text); 7.3.6, req.cook: "the last occurrence".
set -euo pipefail

haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy) || { echo "haproxy is missing: apt-get install haproxy"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$haproxy" -v | sed -n 1p

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
short=$(free)
long=$(free)
cat >"$T/haproxy.cfg" <<END
defaults
    mode http
    timeout client 10s
    timeout connect 10s
    timeout server 10s
frontend short
    bind 127.0.0.1:$short
    stick-table type string size 1k expire 1m store http_req_cnt
    http-request track-sc0 req.cook(id)
    http-request return status 200 content-type text/plain lf-string "%[sc_http_req_cnt(0)] %[req.cook(id)]"
frontend long
    bind 127.0.0.1:$long
    stick-table type string len 512 size 1k expire 1m store http_req_cnt
    http-request track-sc0 req.cook(id)
    http-request return status 200 content-type text/plain lf-string "%[sc_http_req_cnt(0)] %[req.cook(id)]"
END
"$haproxy" -c -q -f "$T/haproxy.cfg"
"$haproxy" -f "$T/haproxy.cfg" &
P+=($!)

python3 - "$short" "$long" <<'END'
import base64, http.client, json, sys, time

def jwt(user):
    """A token as it is, but for a signature that says something."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": user, "exp": 1900000000}]
    texts = [json.dumps(part, separators=(",", ":")).encode() for part in parts] + [user.encode() * 8]
    return ".".join(base64.urlsafe_b64encode(text).decode().rstrip("=") for text in texts)

def visit(port, cookie):
    for _ in range(100):
        try:
            client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            client.request("GET", "/", headers={"Cookie": cookie})
            break
        except OSError:
            time.sleep(0.05)
    count, _, value = client.getresponse().read().decode().partition(" ")
    return int(count), value

users = ["alice", "bert", "carla"]
same, differ = "x" * 31, "y" * 30
cases = {
    "three users, each with a JWT": [jwt(user) for user in users],
    "31 characters alike, then others": [same + "1", same + "2", same + "3"],
    "30 characters alike, then others": [differ + "1", differ + "2", differ + "3"],
}
seen = {}
for what, values in cases.items():
    assert len(set(values)) == 3
    for name, port in (("no len", sys.argv[1]), ("len 512", sys.argv[2])):
        seen[what, name] = [visit(port, "id=" + value)[0] for value in values]
        print(f"{what:34} {name:8} the requests of each are counted as {seen[what, name]}")
_, read = visit(sys.argv[2], "id=of-the-shop; id=of-the-site")
print("Cookie: id=of-the-shop; id=of-the-site   is", read)

one, each = [1, 2, 3], [1, 1, 1]
if list(seen.values()) == [one, each, one, each, each, each] and read == "of-the-site":
    print("as described: sessions that begin alike are one")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
