#!/usr/bin/env bash
# Chromium: a cookie's `Path` with a `?` is kept and never sent, and one that is too long becomes another path.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  a `Path` that cannot be used is refused, together with its cookie, as a `Domain` is; or the part
#            after the `?` is not counted.
# Seen:      `Path=/shop?tab=1` is stored, and compared with the path of a request, which never has a `?`: the
#            cookie goes nowhere, not even to that address. A `Path` of more than 1024 bytes is ignored, and the
#            cookie gets the folder of the page that set it in its place, and is sent there.
# Matters:   a path taken from the address of a request, with its query, makes every visitor log in again and
#            again, while the developer tools show the cookie in its place. A cookie meant for one long path
#            is sent to all pages beside the one that set it. Validate `Path` where the cookie is built.
# Source:    the draft RFC 6265bis, 5.7: a value of more than 1024 octets is to be ignored.
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
    seen = {}

    def do_GET(self):
        Site.seen[self.path] = self.headers["Cookie"] or ""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if self.path == "/folder/set":
            for line in COOKIES:
                self.send_header("Set-Cookie", line)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
at = f"http://127.0.0.1:{site.server_address[1]}"

def driver(method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{sys.argv[1]}{path}", method=method,
        data=None if body is None else json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=60))["value"]

fits, long = "/" + "f" * 1023, "/" + "l" * 1024
COOKIES = ["query=1; Path=/shop?tab=1", f"fits=1; Path={fits}", f"long=1; Path={long}"]

for _ in range(100):
    try:
        driver("GET", "/status")
        break
    except OSError:
        time.sleep(0.05)
arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + sys.argv[2]]
session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]
try:
    for path in ["/folder/set", "/folder/page", "/shop?tab=1", "/shop", "/shop/page", fits, long]:
        driver("POST", session + "/url", {"url": at + path})
    stored = driver("POST", session + "/goog/cdp/execute", {"cmd": "Storage.getCookies", "params": {}})
finally:
    driver("DELETE", session)

kept = {cookie["name"]: cookie["path"] for cookie in stored["cookies"]}
short = lambda path: path if len(path) < 20 else f"{path[:3]}… ({len(path)} bytes)"
for name, asked in [("query", "/shop?tab=1"), ("fits", fits), ("long", long)]:
    got = [short(path) for path, cookies in Site.seen.items() if f"{name}=1" in cookies]
    print(f"Path={short(asked):20} stored with {short(kept.get(name, 'nothing')):20} sent to {got}")

sent = lambda name: {path for path, cookies in Site.seen.items() if f"{name}=1" in cookies}
if (kept == {"query": "/shop?tab=1", "fits": fits, "long": "/folder"}
        and sent("query") == set() and sent("fits") == {fits} and sent("long") == {"/folder/page"}):
    print("as described: one goes nowhere, one elsewhere")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
