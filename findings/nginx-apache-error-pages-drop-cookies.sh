#!/usr/bin/env bash
# nginx and Apache: with the proxy's own error page, the cookie of the application's error is gone, and its Cache-Control.
#
# Versions:  nginx 1.22.1, Apache 2.4.71 (Debian 12). A Caddy 2.6 with `handle_response` does the same.
# Expected:  `proxy_intercept_errors on` and `ProxyErrorOverride On` put a nicer page in the place of the application's
#            body. What the application has said in headers, to a browser and not to a reader, goes on with the status:
#            the cookies, `Cache-Control`, `Retry-After`.
# Seen:      of the response nothing but the status is left, and `WWW-Authenticate` at a 401. `Set-Cookie` is gone, the one
#            that sets and the one that removes, and `no-store` with them. A 200, and an error without its page at the
#            proxy, pass as they are.
# Matters:   a login that fails is a 401 or 422 whose handler has counted the try in a new session, a 403 removes a cookie
#            that is worth nothing, a 404 keeps a visitor's first message: the browser never hears of it, and comes
#            without a session the next time, and gets a new one again. It works on the developer's machine, without the
#            proxy. Do not have the proxy replace the errors of locations with sessions, or only 502, 503 and 504.
# Source:    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_intercept_errors and
#            https://httpd.apache.org/docs/2.4/mod/mod_proxy.html#proxyerroroverride do not mention it.
set -euo pipefail

nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "nginx is missing: apt-get install nginx"; exit 2; }
apache=$(PATH=$PATH:/usr/sbin command -v apache2) || { echo "apache2 is missing: apt-get install apache2"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$nginx" -v
"$apache" -v | sed -n 1p

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
back=$(free)
front=$(free)
other=$(free)
chmod 755 "$T"
mkdir "$T/pages"
echo "the proxy's own page" >"$T/pages/error.html"
cat >"$T/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $T/nginx.pid;
error_log $T/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $T/body;
    proxy_temp_path $T/proxy;
    fastcgi_temp_path $T/fastcgi;
    uwsgi_temp_path $T/uwsgi;
    scgi_temp_path $T/scgi;
    server {
        listen 127.0.0.1:$front;
        root $T/pages;
        location /plain/ {
            proxy_pass http://127.0.0.1:$back;
        }
        location /own/ {
            proxy_pass http://127.0.0.1:$back;
            proxy_intercept_errors on;
            error_page 401 403 404 422 /error.html;
        }
    }
}
END
cat >"$T/apache.conf" <<END
ServerRoot $T
ServerName localhost
PidFile $T/apache.pid
ErrorLog $T/apache.log
User nobody
Group nogroup
Listen 127.0.0.1:$other
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
DocumentRoot $T/pages
ErrorDocument 401 /error.html
ErrorDocument 403 /error.html
ErrorDocument 404 /error.html
ErrorDocument 422 /error.html
ProxyPass /plain/ http://127.0.0.1:$back/plain/
ProxyPass /own/ http://127.0.0.1:$back/own/
<Location /own/>
    ProxyErrorOverride On
</Location>
END
"$nginx" -e "$T/error.log" -c "$T/nginx.conf" &
P+=($!)
"$apache" -f "$T/apache.conf" -D FOREGROUND &
P+=($!)

python3 - "$back" "$front" "$other" <<'END'
import http.client, http.server, socket, sys, threading, time

back, *fronts = map(int, sys.argv[1:])

class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = int(self.path.rsplit("/", 1)[1])
        self.send_response(status)
        self.send_header("Set-Cookie", "id=new")
        self.send_header("Cache-Control", "no-store")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Length", "19")
        self.end_headers()
        self.wfile.write(b"the shop's own page")

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", back), Shop)
threading.Thread(target=server.serve_forever, daemon=True).start()

def visit(port, path):
    for _ in range(100):
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", path)
            break
        except OSError:
            time.sleep(0.05)
    reply = client.getresponse()
    whose = reply.read().decode().split("'")[0].removeprefix("the ")
    said = [reply.getheader(name) for name in ("Set-Cookie", "Cache-Control", "WWW-Authenticate")]
    return reply.status, whose, *said

changed = False
for name, port in zip(("nginx", "Apache"), fronts):
    for where in ("plain", "own"):
        for status in (200, 401, 403, 404, 422):
            seen = visit(port, f"/{where}/{status}")
            asks = "Bearer" if status == 401 else None
            is_replaced = where == "own" and status != 200
            whole, empty = ("shop", "id=new", "no-store"), ("proxy", None, None)
            changed |= seen != (status, *(empty if is_replaced else whole), asks)
            print(f"{name:6} /{where + '/':6} {status}, the {seen[1] + chr(39) + 's page,':13} Set-Cookie: {seen[2]}, "
                  f"Cache-Control: {seen[3]}, WWW-Authenticate: {seen[4]}")
if changed:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
print("as described: the cookie goes with the page that is replaced")
END
