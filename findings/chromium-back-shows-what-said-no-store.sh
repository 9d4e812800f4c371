#!/usr/bin/env bash
# Chromium: the Back button shows a page that said `no-store`, and does not ask the server, while no cookie changes.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  `Cache-Control: no-store` is what one says so that, after the end of a session, Back asks the server again:
#            pages with it are not kept, and were left out of the back/forward cache, too. And what the cookie was for
#            is not shown after the cookie has gone.
# Seen:      a page with `no-store` comes back as it was, from memory (`pageshow` with `persisted`), unless a cookie that it
#            could see has been changed meanwhile: removed, set anew, or another one. A session that has ended at the
#            server (a timeout, a logout at another device) leaves its pages to whoever presses Back. A page that says
#            `private` comes back in any case, also after a logout that has removed the cookie; `Clear-Site-Data:
#            "cache"` does not change that.
# Matters:   what a logout does to the cookie decides what Back shows: a logout that ends the session at the server, and
#            leaves the cookie to be found invalid, leaves the pages, too. Pages that are nobody else's business need
#            both, `no-store` and a cookie that is removed; and a script that asks the server on `pageshow`, where a
#            session can end elsewhere.
# Source:    https://developer.chrome.com/docs/web-platform/bfcache-ccns; RFC 9111, 5.2.2.5, speaks of caches, and excepts
#            what a browser shows as history.
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

class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sessions, asked = set(), 0

    def do_GET(self):
        path, _, control = self.path.partition("?")
        who = "ada" if "__Host-id=ada" in (self.headers["Cookie"] or "") and "ada" in Site.sessions else "nobody"
        text, headers = "ok", [("Cache-Control", "no-store")]
        if path == "/login":
            Site.sessions.add("ada")
            headers.append(("Set-Cookie", COOKIE % "ada"))
        elif path == "/account":
            text, headers = f"page of {who}", [("Cache-Control", control), ("Vary", "Cookie")]
            Site.asked += 1
        elif path.startswith("/logout"):
            headers.append(("Set-Cookie", COOKIE % "" + "; Max-Age=0"))
            if path == "/logout-and-clear":
                headers.append(("Clear-Site-Data", '"cache"'))
        elif path == "/theme":
            headers.append(("Set-Cookie", "theme=dark; Path=/"))
        if path.startswith("/logout") or path == "/after-a-timeout":
            Site.sessions.clear()
        script = "addEventListener('pageshow', event => document.title = event.persisted)"
        body = f"<link rel=icon href=data:,><title>-</title><script>{script}</script>{text}".encode()
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

def back():
    """What is shown, and whether the server was asked for it."""
    before = Site.asked
    driver("POST", session + "/back", {})
    for _ in range(100):
        if driver("GET", session + "/title") in ["true", "false"] and page().startswith("page of"):
            break
        time.sleep(0.05)
    is_from_memory = driver("GET", session + "/title") == "true"
    assert is_from_memory == (Site.asked == before)
    return page(), is_from_memory

seen = {}
try:
    for control in ["no-store", "private"]:
        for between in ["/after-a-timeout", "/theme", "/logout", "/logout-and-clear"]:
            for path in ["/login", "/account?" + control, between]:
                visit(path)
            seen[control, between] = back()
            shown, is_from_memory = seen[control, between]
            print(f"{control:8} {between:17} Back shows the {shown:14}",
                  "and has asked nobody" if is_from_memory else "and has asked the server")
            driver("DELETE", session + "/cookie")
finally:
    driver("DELETE", session)

kept = ("page of ada", True)
described = {("no-store", "/after-a-timeout"): kept, ("no-store", "/theme"): ("page of ada", False),
             ("no-store", "/logout"): ("page of nobody", False),
             ("no-store", "/logout-and-clear"): ("page of nobody", False),
             **{("private", between): kept for _, between in seen if _ == "private"}}
if seen == described:
    print("as described: Back asks the server where a cookie has changed")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
