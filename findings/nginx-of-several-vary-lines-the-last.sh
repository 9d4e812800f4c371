#!/usr/bin/env bash
# nginx: of several `Vary` lines in a response its cache heeds the last alone.
#
# Version:   nginx 1.22.1 (Debian 12); the changes of nginx 1.23.0 say that several lines are joined.
# Expected:  two lines `Vary: Accept-Language` and `Vary: Accept-Encoding` mean the same as one line with both
#            (RFC 9110, 5.3): the page is cached for each language.
# Seen:      it is cached for each encoding only. A German visitor gets the English page out of the cache. With
#            the lines in the other order, or in one line, each gets the right one.
# Matters:   layers of a server append lines of their own (tower-http's CORS and compression layers do), so
#            `Vary: Cookie` of a session is correct, in the response, and without effect. Whoever sets `Vary`
#            has to do it last, and to join all lines into one.
# Source:    https://nginx.org/en/CHANGES, 1.23.0.
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
        location / {
            proxy_pass http://127.0.0.1:$back;
            proxy_cache pages;
            proxy_cache_valid 200 1m;
        }
    }
}
END
"$nginx" -e "$T/error.log" -c "$T/nginx.conf" &
P+=($!)

python3 - "$front" "$back" <<'END'
import http.client, http.server, sys, threading, time

VARY = {
    "/one-line": ["Accept-Language, Accept-Encoding"],
    "/language-last": ["Accept-Encoding", "Accept-Language"],
    "/encoding-last": ["Accept-Language", "Accept-Encoding"],
}

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers["Accept-Language"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for line in VARY[self.path]:
            self.send_header("Vary", line)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

front, back = map(int, sys.argv[1:])
server = http.server.ThreadingHTTPServer(("127.0.0.1", back), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()

def page(path, language):
    for _ in range(100):
        try:
            client = http.client.HTTPConnection("127.0.0.1", front)
            client.request("GET", path, headers={"Accept-Language": language, "Accept-Encoding": "gzip"})
            return client.getresponse().read().decode()
        except OSError:
            time.sleep(0.05)

wrong = []
for path, lines in VARY.items():
    first, second = page(path, "en"), page(path, "de")
    print(f"{' | '.join(lines):35} en gets {first}, de gets {second}")
    wrong.append(second != "de")
if wrong == [False, False, True]:
    print("as described: the last line alone counts")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
