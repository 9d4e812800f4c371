#!/usr/bin/env bash
# nginx: `$cookie___Host-id` is not the cookie `__Host-id`, but the text "-id", for everybody.
#
# Version:   nginx 1.22.1 (Debian 12).
# Expected:  `$cookie_name` is the cookie of that name. What nginx does not take as a name (a dash, which each cookie
#            with the prefix `__Host-` or `__Secure-` has) it refuses when it reads its configuration, as it refuses
#            a variable that it does not know; or an underscore stands for it, as in `$http_user_agent`.
# Seen:      the name ends at the dash. What is left, `$cookie___Host`, is a cookie that nobody has, and "-id" is text
#            behind it: `nginx -t` finds nothing wrong. An underscore in place of the dash finds no cookie. With
#            `hash $cookie___Host-id;` all visitors go to one server of several (with the underscore, each to the one
#            whose turn it is), `limit_req_zone` counts them as one visitor, and `proxy_cache_bypass` and `proxy_no_cache`, for which each text but "" and "0" is a yes, see
#            a session with everybody: nothing is ever answered from the cache. In braces, which other languages have
#            for this, it is an error.
# Matters:   the best names for the cookie of a session are those that this cannot say, and each use fails in another
#            way that looks like something else: one server that has all the load, 503 to all when one visitor is busy,
#            a cache without a hit. A `map` of `$http_cookie` has the value.
# Source:    https://nginx.org/en/docs/http/ngx_http_core_module.html#var_cookie_ says "the name cookie"; the letters,
#            digits and the underscore of a variable's name are in src/http/ngx_http_script.c, ngx_http_script_compile.
set -euo pipefail

nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "nginx is missing: apt-get install nginx"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$nginx" -v

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
front=$(free)
one=$(free)
two=$(free)
chmod 755 "$T"
cat >"$T/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $T/pid;
error_log $T/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $T/body;
    proxy_temp_path $T/proxy;
    fastcgi_temp_path $T/fastcgi;
    uwsgi_temp_path $T/uwsgi;
    scgi_temp_path $T/scgi;
    proxy_cache_path $T/cache keys_zone=pages:1m;
    map \$http_cookie \$session {
        "~(?:^|; )__Host-id=([^;]*)" \$1;
    }
    upstream by_dash { hash \$cookie___Host-id; server 127.0.0.1:$one; server 127.0.0.1:$two; }
    upstream by_underscore { hash \$cookie___Host_id; server 127.0.0.1:$one; server 127.0.0.1:$two; }
    upstream by_map { hash \$session; server 127.0.0.1:$one; server 127.0.0.1:$two; }
    upstream by_plain_name { hash \$cookie_id; server 127.0.0.1:$one; server 127.0.0.1:$two; }
    server { listen 127.0.0.1:$one; location / { add_header Cache-Control max-age=60; return 200 one; } }
    server { listen 127.0.0.1:$two; location / { add_header Cache-Control max-age=60; return 200 two; } }
    server {
        listen 127.0.0.1:$front;
        location /by_dash { add_header X-Value "\$cookie___Host-id"; proxy_pass http://by_dash; }
        location /by_underscore { add_header X-Value "\$cookie___Host_id"; proxy_pass http://by_underscore; }
        location /by_map { add_header X-Value "\$session"; proxy_pass http://by_map; }
        location /by_plain_name { add_header X-Value "\$cookie_id"; proxy_pass http://by_plain_name; }
        add_header X-Cache \$upstream_cache_status;
        location /bypass/by_dash { proxy_cache pages; proxy_cache_bypass \$cookie___Host-id; proxy_pass http://by_map; }
        location /bypass/by_map { proxy_cache pages; proxy_cache_bypass \$session; proxy_pass http://by_map; }
    }
}
END
"$nginx" -t -q -e "$T/error.log" -c "$T/nginx.conf" && [ ! -s "$T/error.log" ]
echo "nginx -t: nothing to say"
"$nginx" -e "$T/error.log" -c "$T/nginx.conf" &
P+=($!)

python3 - "$front" <<'END'
import http.client, socket, sys, time

front = int(sys.argv[1])
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", front)).close()
        break
    except OSError:
        time.sleep(0.05)

def visit(path, cookie):
    client = http.client.HTTPConnection("127.0.0.1", front)
    client.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    reply = client.getresponse()
    return reply.getheader("X-Value"), reply.read().decode(), reply.getheader("X-Cache")

seen = {}
VISITORS = [f"visitor-{number}" for number in range(41)]
for by, name in [("dash", "__Host-id"), ("underscore", "__Host-id"), ("map", "__Host-id"), ("plain_name", "id")]:
    first, second = ([visit(f"/by_{by}", f"theme=dark; {name}={visitor}")[:2] for visitor in VISITORS] for _ in range(2))
    servers = [sum(server == which for _, server in first) for which in ("one", "two")]
    values = [value for value, _ in first]
    print(f"by {by:10}, of a cookie {name:9}: the values are {values[0]}, {values[1]} and so on; "
          f"{servers[0]} visitors at one server, {servers[1]} at the other, "
          f"{'all' if first == second else 'not all'} at the same the next time")
    seen[by] = (values == VISITORS, set(values) == {"-id"}, 0 not in servers, first == second)
for by in ["dash", "map"]:
    seen["bypass", by] = [visit(f"/bypass/by_{by}", None)[2] for _ in range(2)]
    print(f"two visits without any cookie, proxy_cache_bypass by {by:4}: {' and '.join(seen['bypass', by])}")

RIGHT = (True, False, True, True)
if seen == {"dash": (False, True, False, True), "underscore": (False, False, True, False), "map": RIGHT,
            "plain_name": RIGHT, ("bypass", "dash"): ["BYPASS", "BYPASS"], ("bypass", "map"): ["MISS", "HIT"]}:
    print("as described: what stands behind the dash is text")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
