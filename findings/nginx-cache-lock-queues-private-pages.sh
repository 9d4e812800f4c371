#!/usr/bin/env bash
# nginx: with `proxy_cache_lock on`, the visitors of a page that is never cached stand in a queue, and each of
# them waits half a second for the one before.
#
# Version:   nginx 1.22.1 (Debian 12).
# Expected:  the lock is for pages that are being put into the cache: of many visitors one asks the application,
#            the others get its answer. A page with `Cache-Control: private` or `Set-Cookie` is not cached, so that
#            its visitors have nothing to wait for; at the latest once nginx has seen the first answer.
# Seen:      all requests of one address go to the application one after another, and nginx looks only every 500 ms
#            whether the one before is done: six visitors of a page that takes a twentieth of a second are served
#            within two or three seconds. Nginx does not remember that the page was not cacheable, and begins anew
#            with the next crowd. Those who have waited for `proxy_cache_lock_timeout` (5 s) go all at once.
# Matters:   the pages of a session (an account, a login form that sets its first cookie) become slower by half a
#            second for each visitor who comes at the same time; the application is idle, and its own measurements
#            show nothing. `proxy_cache_bypass $http_cookie` helps those who have a cookie, and nobody else:
#            addresses whose answers are not for the cache need a location without `proxy_cache_lock`.
# Source:    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_cache_lock speaks of new elements of the
#            cache; the 500 ms are in src/http/ngx_http_file_cache.c, ngx_http_file_cache_lock.
set -euo pipefail

nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "nginx is missing: apt-get install nginx"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$nginx" -v

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
front=$(free)
back=$(free)
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
    server {
        listen 127.0.0.1:$front;
        proxy_cache pages;
        location /free/ {
            proxy_pass http://127.0.0.1:$back;
        }
        location /lock/ {
            proxy_pass http://127.0.0.1:$back;
            proxy_cache_lock on;
        }
        location /bypass/ {
            proxy_pass http://127.0.0.1:$back;
            proxy_cache_lock on;
            proxy_cache_bypass \$http_cookie;
            proxy_no_cache \$http_cookie;
        }
    }
}
END
"$nginx" -e "$T/error.log" -c "$T/nginx.conf" &
P+=($!)

python3 - "$front" "$back" <<'END'
import http.client, http.server, socket, sys, threading, time

TAKES, VISITORS = 0.05, 6
HEADERS = {
    "shared": ("Cache-Control", "max-age=60"),
    "private": ("Cache-Control", "private"),
    "login": ("Set-Cookie", "id=1; HttpOnly"),
}

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(TAKES)
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header(*HEADERS[self.path.split("/")[2]])
        self.end_headers()

    def log_message(self, *_):
        pass

front, back = map(int, sys.argv[1:])
server = http.server.ThreadingHTTPServer(("127.0.0.1", back), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", front)).close()
        break
    except OSError:
        time.sleep(0.05)

def visit(path, cookie, seconds):
    begin = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", front)
    client.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    client.getresponse().read()
    seconds.append(time.monotonic() - begin)

queued = []
for path, has_cookie, what in [
    ("/free/private", True, "private, without the lock"),
    ("/lock/shared", True, "may be cached"),
    ("/lock/private", True, "private"),
    ("/lock/private", True, "private, the next crowd"),
    ("/bypass/private", True, "private, bypassed by cookie"),
    ("/bypass/login", False, "the same, and they have no cookie yet"),
]:
    asked, seconds = [], []
    crowd = [threading.Thread(target=visit, args=(path, f"id={n}" if has_cookie else "", seconds))
             for n in range(VISITORS)]
    for visitor in crowd:
        visitor.start()
    for visitor in crowd:
        visitor.join()
    print(f"{what:38} {len(asked)} requests to the application, the last visitor waits {max(seconds):.2f} s")
    # Far longer than they take one after another. Who waits for one page to be cached waits for half a second.
    queued.append((len(asked), max(seconds) > 4 * VISITORS * TAKES))
if queued == [(6, False), (1, False), (6, True), (6, True), (6, False), (6, True)]:
    print("as described: what is not cached is queued for")
else:
    print("CHANGED: it no longer behaves as described:", queued)
    sys.exit(1)
END
