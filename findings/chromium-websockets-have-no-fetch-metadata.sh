#!/usr/bin/env bash
# Chromium: the handshake of a WebSocket says nothing of where its page is from, but for `Origin`.
#
# Version:   Chromium 156.0.8078.114 (Debian 12). Firefox 153 ESR sends `Sec-Fetch-Site` with it.
# Expected:  since 2019 each request to a trustworthy address has `Sec-Fetch-Site`: what the server decides by it for forms
#            and `fetch` it can decide for a WebSocket, whose handshake is a GET with the visitor's cookies, from whatever
#            page. Fetch Metadata has a `Sec-Fetch-Mode: websocket` for it.
# Seen:      a page's own GET, `fetch` and form say `same-origin`. The handshake has none of the `Sec-Fetch-…` headers,
#            to localhost as to a page over TLS; it has `Origin`.
# Matters:   a server that compares `Origin` with `Host` only where `Sec-Fetch-Site` is missing, which is in old browsers
#            or over plain HTTP, does so for each WebSocket of each Chromium: behind a proxy that does not hand on `Host`,
#            all forms over TLS are good, and no socket opens. In Firefox it does.
# Source:    https://www.w3.org/TR/fetch-metadata/#sec-fetch-mode-header; the behaviour.
set -euo pipefail

for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chromium --version 2>/dev/null

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
chromedriver --port="$port" >"$T/log" 2>&1 &
P+=($!)

python3 - "$port" "$T/profile" <<'END'
import http.server, json, os, ssl, subprocess, sys, threading, time, urllib.request

class Site(http.server.BaseHTTPRequestHandler):
    asked = {}

    def do_GET(self):
        Site.asked[self.path] = self.headers["Sec-Fetch-Site"], self.headers["Sec-Fetch-Mode"], self.headers["Origin"]
        is_socket = self.headers["Upgrade"] == "websocket"
        body = b"" if is_socket else b"<link rel=icon href=data:,><form method=post action=/form></form>"
        self.send_response(403 if is_socket else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass

folder = os.path.dirname(sys.argv[2])
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-keyout", folder + "/key", "-out", folder + "/cert", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder + "/cert", folder + "/key")

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
arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + sys.argv[2], "--ignore-certificate-errors"]
session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

def run(script):
    return driver("POST", session + "/execute/sync", {"script": script, "args": []})

def outcome(scheme):
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    if scheme == "https":
        site.socket = tls.wrap_socket(site.socket, server_side=True)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    at = f"{scheme}://localhost:{site.server_address[1]}"
    Site.asked = {}
    driver("POST", session + "/url", {"url": at + "/"})
    run("fetch('/fetch'); new WebSocket(location.origin.replace('http', 'ws') + '/socket')")
    until = time.monotonic() + 10
    while not {"/fetch", "/socket"} <= Site.asked.keys() and time.monotonic() < until:
        time.sleep(0.05)
    run("document.forms[0].submit()")
    while "/form" not in Site.asked and time.monotonic() < until:
        time.sleep(0.05)
    for path in ("/fetch", "/form", "/socket"):
        says, mode, origin = Site.asked[path]
        shown = origin and origin.replace(at, at.rsplit(":", 1)[0])
        print(f"{scheme:6} {path:8} Sec-Fetch-Site: {says!s:12} Sec-Fetch-Mode: {mode!s:9} Origin: {shown}")
    return [Site.asked[path] for path in ("/fetch", "/form", "/socket")] == [
        ("same-origin", "cors", None), ("same-origin", "navigate", at), (None, None, at)]

try:
    is_as_described = [outcome("http"), outcome("https")] == [True, True]
finally:
    driver("DELETE", session)
if is_as_described:
    print("as described: a WebSocket has an Origin alone")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
