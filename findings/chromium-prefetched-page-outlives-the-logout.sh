#!/usr/bin/env bash
# Chromium: a page that was prefetched before a logout is shown after it, whatever it said of caches and cookies.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  a link to a page that has been prefetched (speculation rules) leads to that page if it can still be what the
#            server would say. With `Cache-Control: no-store` it is not to be kept at all, and with `Vary: Cookie` not for
#            another cookie: after a logout or a login, whose response replaces the cookie, the server is asked again.
# Seen:      neither counts. The page of the one who was logged in is shown after the logout, also if that was in another
#            tab; and who has logged in meanwhile sees the page for strangers. The server hears nothing of the click. So
#            it is with a page that was prerendered. `Clear-Site-Data: "prefetchCache", "prerenderCache"` in the
#            response that replaces the cookie takes effect in all tabs (so does "cache"; of the two words, one by
#            itself is not enough for what was prerendered, and "cookies" takes away neither).
# Matters:   the rules need not be the application's own: content delivery networks and shop systems put them into pages.
#            A session's library sees an ordinary GET, and has said `no-store`. Say `Clear-Site-Data` where a session
#            begins and ends, or leave pages that show whose they are out of the rules.
# Source:    https://developer.mozilla.org/docs/Web/API/Speculation_Rules_API, "Unsafe prefetching", says that a state that
#            changes is the application's concern.
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

COOKIE = "__Host-id=%s; Path=/; Secure; HttpOnly"
CLEAR = '"prefetchCache", "prerenderCache"'

class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = []

    def do_GET(self):
        path, _, query = self.path.partition("?")
        who = (self.headers["Cookie"] or "").removeprefix("__Host-id=") or "nobody"
        headers, body = [("Cache-Control", "no-store"), ("Vary", "Cookie")], f"page of {who}"
        if path == "/start":
            rules = json.dumps({query: [{"urls": ["/account"], "eagerness": "immediate"}]})
            body = f"<a href=/account>account</a><script type=speculationrules>{rules}</script>"
        elif path in ("/login", "/logout"):
            headers.append(("Set-Cookie", COOKIE % "ada" if path == "/login" else COOKIE % "" + "; Max-Age=0"))
            if query:
                headers.append(("Clear-Site-Data", CLEAR))
        elif path == "/account":
            Site.asked.append(self.headers["Sec-Purpose"])
        body = ("<link rel=icon href=data:,>" + body).encode()
        self.send_response(200)
        for header in [("Content-Type", "text/html"), ("Content-Length", str(len(body))), *headers]:
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

def page():
    return driver("POST", session + "/execute/sync", {"script": "return document.body.innerText.trim()", "args": []})

def visit(path):
    driver("POST", session + "/url", {"url": at + path})

def until(what):
    for _ in range(100):
        if what():
            return
        time.sleep(0.05)

def in_another_tab(path):
    first = driver("GET", session + "/window")
    other = driver("POST", session + "/window/new", {"type": "tab"})["handle"]
    driver("POST", session + "/window", {"handle": other})
    visit(path)
    driver("DELETE", session + "/window")
    driver("POST", session + "/window", {"handle": first})

def click():
    link = driver("POST", session + "/element", {"using": "css selector", "value": "a"})
    driver("POST", f"{session}/element/{list(link.values())[0]}/click", {})
    until(lambda: page().startswith("page of"))
    return page()

seen = {}
try:
    for kind in ["prefetch", "prerender"]:
        for before, then in [("/login", "/logout"), ("/logout", "/login"), ("/login", "/logout?clear")]:
            visit(before)
            Site.asked = []
            visit("/start?" + kind)
            until(lambda: Site.asked)
            time.sleep(0.5)   # The answer has arrived, and is ready.
            in_another_tab(then)
            seen[kind, then] = click(), len(Site.asked)
            print(f"{kind:9} then {then:13} in another tab, and a click: the {seen[kind, then][0]:14}",
                  "the server is asked again" if len(Site.asked) > 1 else "the server is not asked")
finally:
    driver("DELETE", session)

described = {(kind, then): result for kind in ["prefetch", "prerender"] for then, result in [
    ("/logout", ("page of ada", 1)), ("/login", ("page of nobody", 1)), ("/logout?clear", ("page of nobody", 2))]}
if seen == described:
    print("as described: it is the page of before")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
