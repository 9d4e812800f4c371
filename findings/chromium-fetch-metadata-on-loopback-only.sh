#!/usr/bin/env bash
# Chromium: `Sec-Fetch-Site` is there over plain HTTP on localhost, and missing over plain HTTP elsewhere.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  a header that every request carried in development is there in production too, or is missing
#            because the browser is old. Its absence then means an old browser or a program.
# Seen:      http://localhost, http://127.0.0.1 and http://shop.localhost get all Sec-Fetch-* headers; the
#            same server under another name gets none, from the same browser, also for a POST by another
#            site's form. `Origin` is there in each case.
# Matters:   a check against forged requests that looks at Sec-Fetch-Site alone passes every test on localhost.
#            In an intranet without TLS it either refuses everybody, or, if a missing header passes, checks
#            nothing. Compare `Origin` with the host where the header is missing.
# Source:    W3C Fetch Metadata, 2: the headers are for potentially trustworthy URLs.
set -euo pipefail

for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chromium --version 2>/dev/null

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
chromedriver --port="$port" >"$T/log" 2>&1 &
P+=($!)

python3 - "$port" "$T/profile" <<'END'
import http.server, json, sys, threading, time, urllib.request

class Site(http.server.BaseHTTPRequestHandler):
    posts = {}

    def do_GET(self):
        target = f"http://{self.path.strip('/')}:{self.server.server_address[1]}/done"
        body = f"<form method=post action='{target}'><button>send</button></form>".encode()
        self.answer(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        host = self.headers["Host"].split(":")[0]
        Site.posts[host] = self.headers["Sec-Fetch-Site"], self.headers["Origin"]
        self.answer(b"done")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
there = site.server_address[1]

def driver(method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{sys.argv[1]}{path}", method=method,
        data=None if body is None else json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=60))["value"]

for _ in range(100):
    try:
        driver("GET", "/status")
        break
    except OSError:
        time.sleep(0.05)
# Names that lead to this machine, as a server's name in a local network would lead to it.
arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + sys.argv[2],
             "--host-resolver-rules=MAP *.example 127.0.0.1"]
session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]
hosts = ["localhost", "127.0.0.1", "shop.localhost", "shop.example"]
try:
    for host in hosts:
        # A page of another site has a form that posts to this one.
        driver("POST", session + "/url", {"url": f"http://other.example:{there}/{host}"})
        driver("POST", session + "/execute/sync", {"script": "document.forms[0].submit()", "args": []})
        for _ in range(100):
            if host in Site.posts:
                break
            time.sleep(0.05)
finally:
    driver("DELETE", session)

for host in hosts:
    site, origin = Site.posts.get(host, ("no request", None))
    print(f"POST from other.example to http://{host:15} Sec-Fetch-Site: {site or '(missing)':12} Origin: {origin}")
origin = f"http://other.example:{there}"
if Site.posts == {host: (None if host == "shop.example" else "cross-site", origin) for host in hosts}:
    print("as described: the header is there on loopback names only")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
