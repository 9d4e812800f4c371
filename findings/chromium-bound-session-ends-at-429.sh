#!/usr/bin/env bash
# Chromium, Device Bound Session Credentials: one 429 at the refresh ends the binding for good.
#
# Version:   Chromium 156.0.8078.108 (Debian 12), with software keys.
# Expected:  429 is "later": the browser keeps the session, sends this request without the bound cookie and with
#            `Secure-Session-Skipped`, as it does at 503, and refreshes at the next occasion. The specification
#            (W3C editor's draft of February 2026) counts 429 among the answers that pass.
# Seen:      at 503 it does so. At 429 the browser forgets session and key: the request goes out without the
#            cookie and without a word, and no refresh is ever tried again, whatever `Retry-After` said.
# Matters:   a rate limiter in front of the application, which knows nothing of that path, quietly unbinds the
#            sessions of whoever meets it; the user looks logged out. Exempt the refresh address from rate
#            limits, or let the limiter answer 503 there.
# Source:    https://w3c.github.io/webappsec-dbsc/ and the behaviour.
set -euo pipefail

for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
for program in python3 openssl; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install $program"; exit 2; }
done
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chromium --version 2>/dev/null

# The feature wants a certificate without errors; the browser is told to take this key.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$T/key.pem" -out "$T/cert.pem" 2>/dev/null
spki=$(openssl x509 -in "$T/cert.pem" -pubkey -noout | openssl pkey -pubin -outform der |
    openssl dgst -sha256 -binary | base64)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
chromedriver --port="$port" >"$T/log" 2>&1 &
P+=($!)

python3 - "$port" "$T" "$spki" <<'END'
import http.server, json, ssl, sys, threading, time, urllib.request

port, folder, spki = sys.argv[1:]
BOUND = "Path=/; Secure; HttpOnly; SameSite=Lax"

class Site(http.server.BaseHTTPRequestHandler):
    seen, refusal, refreshes, registered = [], None, 0, 0

    def do_GET(self):
        if self.path.startswith("/page"):
            bound = "bound=1" in (self.headers["Cookie"] or "")
            Site.seen.append((bound, self.headers["Secure-Session-Skipped"]))
        self.answer(200, "text/html", b"ok", {
            "/login": [("Secure-Session-Registration", '(ES256);path="/register";challenge="first"')],
        }.get(self.path, []))

    def do_POST(self):
        # Whoever wants to know that the signature is good would check it here.
        assert self.path in ("/register", "/refresh")
        if self.path == "/register":
            Site.registered += 1
        else:
            Site.refreshes += 1
            if Site.refusal:
                return self.answer(Site.refusal, "text/plain", b"", [("Retry-After", "1")])
        body = {"session_identifier": "s1", "refresh_url": "/refresh",
                "scope": {"origin": at, "include_site": False},
                "credentials": [{"type": "cookie", "name": "bound", "attributes": BOUND}]}
        self.answer(200, "application/json", json.dumps(body).encode(), [
            ("Set-Cookie", f"bound=1; Max-Age=2; {BOUND}"),
            ("Secure-Session-Challenge", '"next";id="s1"')])

    def answer(self, status, kind, body, headers):
        self.send_response(status)
        for header in [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
site.socket = tls.wrap_socket(site.socket, server_side=True)
threading.Thread(target=site.serve_forever, daemon=True).start()
at = f"https://localhost:{site.server_address[1]}"

def driver(method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method,
        data=None if body is None else json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=60))["value"]

for _ in range(100):
    try:
        driver("GET", "/status")
        break
    except OSError:
        time.sleep(0.05)

def life(status):
    """A session whose refreshes fail with that status during one page; what the server then saw."""
    Site.seen, Site.refusal, Site.refreshes, Site.registered = [], None, 0, 0
    arguments = ["--headless=new", "--no-sandbox", f"--user-data-dir={folder}/profile-{status}",
                 "--enable-features=DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting",
                 "--ignore-certificate-errors-spki-list=" + spki]
    session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
        "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]
    def go(path):
        driver("POST", session + "/url", {"url": at + path})
    try:
        go("/login")
        for _ in range(100):
            if Site.registered:
                break
            time.sleep(0.05)
        time.sleep(3)   # The bound cookie has expired.
        go("/page/1")
        before = Site.refreshes
        time.sleep(3)
        Site.refusal = status
        go("/page/2")
        refused = Site.refreshes - before
        Site.refusal = None
        time.sleep(3)
        go("/page/3")
        after = Site.refreshes - before - refused
    finally:
        driver("DELETE", session)
    if not Site.registered:
        print("this browser does not register bound sessions here: nothing to see")
        sys.exit(1)
    return before, refused, after, Site.seen

seen = {}
for status in (503, 429):
    before, refused, after, pages = life(status)
    print(f"{status}: refreshes: {before} before, {refused} answered {status}, {after} after it")
    for what, (bound, skipped) in zip(("a good refresh", f"a {status}", "the next page"), pages):
        print(f"     {what:15} cookie: {'yes' if bound else 'NO':4} Secure-Session-Skipped: {skipped}")
    seen[status] = [bound for bound, _ in pages], bool(pages[1][1]), after > 0

if seen == {503: ([True, False, True], True, True), 429: ([True, False, False], False, False)}:
    print("as described: 503 passes, 429 ends it")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
