#!/usr/bin/env bash
# Chromium: three requests for one address run one after the other, although the server is idle and nothing may be cached.
#
# Version:   Chromium 156.0.8078.114 (Debian 12).
# Expected:  a browser has six connections to a server. Three tabs, or three `fetch`, that ask for the same address at the
#            same time are answered at the same time; that each answer says `no-store` makes sure that none waits for
#            another's.
# Seen:      the requests for one address stand in a line: the second is sent when the first has been answered, the third
#            after the second, so that three answers of a second each take three. It is the browser's cache, which cannot
#            know before the answer that it may not keep it. With another query each, with `cache: "no-store"` at the
#            `fetch`, or with POST, all three take one second.
# Matters:   who opens a slow page in two tabs, to see whether requests of one session wait for each other, sees that they
#            do, and looks for the lock in the session library, which has none in use. And two tabs that wait for news at
#            the same address (long polling) get it in turns. Ask with curl, or from two profiles; say `cache: "no-store"`.
# Source:    net/http/http_cache.cc, ActiveEntry: one transaction at a time writes an entry, the others wait; the page of
#            `Request.cache` at MDN does not mention it.
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

class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    running, most, lock = 0, 0, threading.Lock()

    def do_GET(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path != "/":
            with Shop.lock:
                Shop.running += 1
                Shop.most = max(Shop.most, Shop.running)
            time.sleep(1)
            with Shop.lock:
                Shop.running -= 1
        body = b"<link rel=icon href=data:,>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass

shop = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
threading.Thread(target=shop.serve_forever, daemon=True).start()

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
arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + sys.argv[2]]
session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

ASK = """const done = arguments[arguments.length - 1], asked = Date.now();
const three = [1, 2, 3].map((n) => fetch(FETCH).then((it) => it.text()));
Promise.all(three).then(() => done(Date.now() - asked));"""
described = {
    "'/slow'": 1,
    "'/slow?' + n": 3,
    "'/slow', {cache: 'no-store'}": 3,
    "'/slow', {method: 'POST'}": 3,
}
seen = {}
try:
    driver("POST", session + "/url", {"url": f"http://localhost:{shop.server_address[1]}/"})
    for what in described:
        Shop.most = 0
        script = ASK.replace("FETCH", what)
        took = driver("POST", session + "/execute/async", {"script": script, "args": []})
        seen[what] = Shop.most
        print(f"three times fetch({what + ')':30} {Shop.most} at a time, {took / 1000:.1f} seconds")
finally:
    driver("DELETE", session)
if seen == described:
    print("as described: requests for one address wait for each other")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
