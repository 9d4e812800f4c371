#!/usr/bin/env bash
# Chromium: after a link from another site, F5 is another site's request too: a `SameSite=Strict` cookie stays away.
#
# Version:   Chromium 156.0.8078.114 (Debian 12). Firefox 153 ESR does the same, and also at `location.reload()`.
# Expected:  a visitor who follows a link from another site comes without the `Strict` cookie, and sees a page for strangers.
#            To press F5 is an act of the person, like typing the address, which brings the cookie: the page knows the
#            visitor again.
# Seen:      the reload says `Sec-Fetch-Site: cross-site`, as the first request did, and the `Strict` cookie stays away, as
#            often as one likes. A script's `location.reload()` is the page's own request, and has the cookie; so has the
#            same address when it is opened anew.
# Matters:   "log in again" after each link from a mail or a chat, and what every helper says first, "reload the page",
#            does not help. A page that cannot tell a stranger from a visitor whose cookie was kept back should lead on by
#            itself once (`<meta http-equiv="refresh" content="0">`), or the session's cookie is `Lax`.
# Source:    https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/, "Reload navigations": reloads "triggered
#            through user interface elements" are same-site only if the document "was originally navigated to via a
#            same-site request".
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
    asked = []

    def do_GET(self):
        Site.asked.append((self.headers["Sec-Fetch-Site"], self.headers["Cookie"]))
        # `localhost` and 127.0.0.1 are two sites.
        link = f"<a id=link href='http://127.0.0.1:{site.server_address[1]}/account'>to the shop</a>"
        body = b"<link rel=icon href=data:,>" + link.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.path == "/login":
            self.send_header("Set-Cookie", "strict=1; Path=/; SameSite=Strict")
            self.send_header("Set-Cookie", "lax=1; Path=/; SameSite=Lax")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
shop = f"http://127.0.0.1:{site.server_address[1]}"
mail = f"http://localhost:{site.server_address[1]}"

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

def open_page(address):
    driver("POST", session + "/url", {"url": address})

def run(script):
    driver("POST", session + "/execute/sync", {"script": script, "args": []})

seen = []

def see(what, act):
    """What the one request says that `act` causes."""
    Site.asked = []
    act()
    until = time.monotonic() + 10
    while not Site.asked and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(Site.asked) == 1, Site.asked
    seen.append(Site.asked[0])
    site_says, cookies = seen[-1]
    print(f"{what:30} Sec-Fetch-Site: {site_says:12} Cookie: {cookies}")

try:
    open_page(shop + "/login")
    open_page(mail)
    see("a link from another site", lambda: run("document.getElementById('link').click()"))
    for _ in range(2):
        see("F5", lambda: driver("POST", session + "/refresh", {}))
    see("location.reload()", lambda: run("location.reload()"))
    see("the address, opened anew", lambda: open_page(shop + "/account"))
finally:
    driver("DELETE", session)

foreign, both = ("cross-site", "lax=1"), "strict=1; lax=1"
if seen == [foreign, foreign, foreign, ("same-origin", both), ("none", both)]:
    print("as described: a reload comes from where the link was")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
