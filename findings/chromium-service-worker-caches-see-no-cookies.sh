#!/usr/bin/env bash
# Chromium: the caches of service workers heed `Vary`, and find that all visitors have the same cookies.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  a page with `Vary: Cookie` that a service worker has put into a cache (`caches.open`) is found there by
#            requests with the cookies that it was made for. `match` compares what `Vary` names, unless it is told
#            not to (`ignoreVary`), and the browser's own cache compares cookies, too.
# Seen:      `Vary: X-Tenant` is heeded, and `Vary: Cookie` is not: the page of the visitor before is found with another
#            cookie, and with none. The browser adds its cookies below the worker, so that the requests in the cache,
#            and those that are looked for, have no `Cookie` header, each like each other. The browser's own cache asks
#            the server again.
# Matters:   a library that says `Vary: Cookie` for the pages of a session is heeded by all caches but this one, which
#            also keeps what says `private`. With a service worker that keeps pages, the next visitor at this browser
#            sees those of the one before, after a logout and after another login. Keep no page that depends on a
#            session, or delete the caches together with it.
# Source:    https://w3c.github.io/ServiceWorker/, Request Matches Cached Item, compares the headers that a script sees;
#            https://developer.mozilla.org/docs/Web/API/Cache/match says nothing of cookies.
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

WORKER = b"""
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
    if (!new URL(event.request.url).pathname.startsWith("/kept/")) return;
    event.respondWith((async () => {
        const cache = await caches.open("pages");
        const found = await cache.match(event.request);
        if (found) return found;
        const response = await fetch(event.request);
        await cache.put(event.request, response.clone());
        return response;
    })());
});
"""

class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        name = path.split("/")[-1]
        kind, body, headers = "text/html", b"ok", [("Cache-Control", "no-store")]
        if name == "worker.js":
            kind, body = "text/javascript", WORKER
        elif name == "cookie":
            headers += [("Set-Cookie", f"{query}; Path=/; HttpOnly")]
        elif name in ("account", "shop"):
            vary = {"account": "Cookie", "shop": "X-Tenant"}[name]
            headers = [("Cache-Control", "private, max-age=60"), ("Vary", vary)]
            body = (self.headers[vary] or "nobody").encode()
        self.send_response(200)
        for header in [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
at = f"http://localhost:{site.server_address[1]}"

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

def script(text):
    text = f"const done = arguments[0]; (async () => {{ {text} }})().then(done, error => done(String(error)));"
    return driver("POST", session + "/execute/async", {"script": text, "args": []})

def page(path):
    driver("POST", session + "/url", {"url": at + path})
    return script("return document.body.innerText")

def shop(path, tenant):
    return script(f"return (await fetch('{path}', {{headers: {{'X-Tenant': '{tenant}'}}}})).text()")

try:
    page("/start")
    script("""
        const controlled = new Promise(done => navigator.serviceWorker.oncontrollerchange = done);
        await navigator.serviceWorker.register("/worker.js");
        await controlled;""")
    seen = {"Vary: Cookie": [], "Vary: X-Tenant": []}
    for cookie in ["id=ada", "id=zoe", "id=;Max-Age=0"]:
        page("/cookie?" + cookie)
        seen["Vary: Cookie"].append((page("/kept/account"), page("/account")))
    for tenant in ["one", "two"]:
        seen["Vary: X-Tenant"].append((shop("/kept/shop", tenant), shop("/shop", tenant)))
finally:
    driver("DELETE", session)

for vary, pages in seen.items():
    for who, (kept, plain) in zip(["id=ada", "id=zoe", "nobody"] if "Cookie" in vary else ["one", "two"], pages):
        print(f"{vary:15} {who:7} gets the page of {kept:7} from the worker, and that of {plain:7} without it")
if seen == {"Vary: Cookie": [("id=ada", "id=ada"), ("id=ada", "id=zoe"), ("id=ada", "nobody")],
            "Vary: X-Tenant": [("one", "one"), ("two", "two")]}:
    print("as described: Vary counts there, but not for cookies")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
