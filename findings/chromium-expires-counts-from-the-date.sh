#!/usr/bin/env bash
# Chromium: an `Expires` in the past sets a cookie, and one in the future removes it, if the response's `Date` says so.
#
# Version:   Chromium 156.0.8078.114 (Debian 12). Firefox 153 ESR does the same.
# Expected:  `Expires` is a time. The browser compares it with its clock, as RFC 6265 has it: a cookie is over when its
#            "expiry date" is in the past. The response's `Date`, which a proxy or a cache may have written, is for caches.
# Seen:      the browser takes `Date` for the server's clock, and believes that its own is wrong by the difference: it moves
#            `Expires` by it. `Expires` an hour ago in a response whose `Date` is two hours ago sets a cookie that lives
#            for an hour. `Expires` in an hour, with a `Date` in two hours, removes the cookie that was there.
#            `Max-Age` is not moved. A removal by `Expires` in 1970 removes, unless `Date` is earlier.
# Matters:   it helps with a server whose clock is wrong, and is wrong where the two dates come from two clocks: a proxy in
#            front that writes its own `Date`, as nginx does for what it passes on, or a page from a cache, with the
#            `Date` of when it was stored. A logout by "Expires a minute ago" then leaves the cookie, and a login of a few
#            minutes is none. Say `Max-Age`, and remove with both, `Max-Age=0` and 1970.
# Source:    https://www.rfc-editor.org/rfc/rfc6265#section-5.3 does not say so; Chromium, net/cookies/canonical_cookie.cc,
#            `ParseExpiration`: "Adjust for clock skew between server and host".
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
import email.utils, http.server, json, sys, threading, time, urllib.request

MINUTE, HOUR = 60, 3600

def date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)

class Site(http.server.BaseHTTPRequestHandler):
    # What the next response says: how far its `Date` is from now, and its cookie.
    off, cookie, got = 0, None, None

    def do_GET(self):
        Site.got = self.headers["Cookie"]
        body = b"<link rel=icon href=data:,>"
        self.send_response_only(200)
        self.send_header("Date", date(Site.off))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if Site.cookie:
            self.send_header("Set-Cookie", Site.cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
at = f"http://localhost:{site.server_address[1]}/"

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

def visit(off=0, cookie=None):
    Site.off, Site.cookie = off, cookie
    driver("POST", session + "/url", {"url": at})

def outcome(off, attribute):
    """What becomes of a cookie that was there, after a response with that `Date` and attribute."""
    visit(cookie="id=old; Path=/; Max-Age=100000")
    visit(off, "id=new; Path=/; " + attribute)
    visit()
    kept = Site.got
    lives = [round((it["expiry"] - time.time()) / MINUTE) for it in driver("GET", session + "/cookie")]
    driver("DELETE", session + "/cookie")
    return (kept, *lives)

cases = [
    (0, "Expires=" + date(-HOUR), "Expires an hour ago", (None,)),
    (0, "Expires=" + date(HOUR), "Expires in an hour", ("id=new", 60)),
    (-2 * HOUR, "Expires=" + date(-HOUR), "Expires an hour ago", ("id=new", 60)),
    (2 * HOUR, "Expires=" + date(HOUR), "Expires in an hour", (None,)),
    (2 * HOUR, "Max-Age=3600", "Max-Age of an hour", ("id=new", 60)),
    (-2 * HOUR, "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Expires in 1970", (None,)),
]
seen = []
try:
    for off, attribute, what, _ in cases:
        seen.append(outcome(off, attribute))
        kept, *lives = seen[-1]
        outcome_in_words = f"{kept}, for {lives[0]} minutes" if kept else "no cookie"
        print(f"Date {off // HOUR:+} hours, {what:20} {outcome_in_words}")
finally:
    driver("DELETE", session)
if seen == [described for *_, described in cases]:
    print("as described: Expires is counted from the response's Date")
else:
    print("CHANGED: it no longer behaves as described:", seen)
    sys.exit(1)
END
