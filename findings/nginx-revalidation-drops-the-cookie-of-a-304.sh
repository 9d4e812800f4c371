#!/usr/bin/env bash
# nginx: with `proxy_cache_revalidate on`, a cookie that the application sets in a 304 reaches nobody, and its
# `no-store` does not count.
#
# Version:   nginx 1.22.1 (Debian 12).
# Expected:  a cached page has become old, and nginx asks the application whether it has changed. The answer is a
#            304 with a new cookie for the visitor who came by, and `Cache-Control: no-store`. A response with
#            `Set-Cookie` is not for the cache, says the documentation: the visitor gets the cookie, and the page
#            is taken out of the cache, or its headers are replaced by the newer ones (RFC 9111, 4.3.4).
# Seen:      the visitor gets the page from the cache, with the headers of the first time: no cookie, and another
#            `Cache-Control`. For the cache it is as new for as long again, and the next visitors get it without a
#            question to the application. Of the 304, only a time to live counts. Without `proxy_cache_revalidate`,
#            the same application's 200 with the same headers is handed on, and is not kept.
# Matters:   the application has written the session, exchanged its id or prolonged its cookie, and thinks that the
#            browser knows. The visitor's browser never asked for a 304: nginx did, with an `If-None-Match` of its
#            own. A page that caches may keep must not be one that sets cookies, also not now and then; or whoever
#            sets a cookie answers in full.
# Source:    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_cache_revalidate does not mention it;
#            in src/http/ngx_http_upstream.c, ngx_http_upstream_test_next, the headers of the 304 are forgotten.
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
        location / {
            proxy_pass http://127.0.0.1:$back;
        }
        location /revalidate/ {
            proxy_pass http://127.0.0.1:$back;
            proxy_cache_revalidate on;
        }
    }
}
END
"$nginx" -e "$T/error.log" -c "$T/nginx.conf" &
P+=($!)

python3 - "$front" "$back" <<'END'
import http.client, http.server, socket, sys, threading, time

class Page(http.server.BaseHTTPRequestHandler):
    answered = []

    def do_GET(self):
        same = self.headers["If-None-Match"] == '"one"'
        status = 304 if same else 200
        is_first = not Page.answered
        Page.answered.append(status)
        self.send_response(status)
        self.send_header("ETag", '"one"')
        self.send_header("Vary", "Cookie")
        if is_first:
            self.send_header("Cache-Control", "public, max-age=3")
        else:
            self.send_header("Set-Cookie", "id=new")
            self.send_header("Cache-Control", "no-store")
        if not same:
            self.send_header("Content-Length", "4")
        self.end_headers()
        if not same:
            self.wfile.write(b"page")

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

def visit(path):
    client = http.client.HTTPConnection("127.0.0.1", front)
    client.request("GET", path, headers={"Cookie": "id=old"})
    reply = client.getresponse()
    assert (reply.status, reply.read()) == (200, b"page")
    return reply.getheader("Set-Cookie"), reply.getheader("Cache-Control")

seen = {}
for path in ["/page", "/revalidate/page"]:
    Page.answered = []
    assert visit(path) == (None, "public, max-age=3")
    time.sleep(5)   # The page has become old.
    seen[path] = visit(path), visit(path), Page.answered
    print(f"{path}: the application answered {seen[path][2]}")
    for which, (cookie, control) in zip(("second", "third"), seen[path]):
        print(f"    the {which} visit gets the cookie {cookie}, and Cache-Control: {control}")

new, old = ("id=new", "no-store"), (None, "public, max-age=3")
if seen == {"/page": (new, new, [200, 200, 200]), "/revalidate/page": (old, old, [200, 304])}:
    print("as described: what the 304 said is lost")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
