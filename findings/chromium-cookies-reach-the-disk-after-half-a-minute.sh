#!/usr/bin/env bash
# Chromium: a cookie reaches the disk half a minute late: after a crash the browser comes with the one before it.
#
# Version:   Chromium 156.0.8078.114 (Debian 12), on Linux.
# Expected:  a cookie with `Max-Age` is kept in a database, and written when it is set. Who loses the power a few seconds
#            after a login is logged in afterwards, or has to log in again; a cookie that was replaced ten seconds ago does
#            not come back.
# Seen:      changes are collected, and written together after thirty seconds, or five hundred of them. If the browser is
#            ended in that time (SIGKILL here; a lost power supply, a phone that takes its memory), the next one has the
#            value from before, as if the server's last answers had never come: here the cookie that was replaced twenty
#            seconds ago. One that was replaced 35 seconds ago is the new one.
# Matters:   who exchanges a session's id, and takes the old one for dead or for stolen from then on, meets honest browsers
#            that bring the old one back: their users are logged out, or a "theft" is reported. And after a logout the
#            old cookie returns: that the browser was told to remove it ends nothing, the server has to.
# Source:    net/extras/sqlite/sqlite_persistent_cookie_store.cc, BatchOperation: "Commit every 30 seconds".
set -euo pipefail

for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chromium --version 2>/dev/null

python3 - "$T" <<'END'
import concurrent.futures, http.server, json, os, signal, socket, subprocess, sys, threading, time, urllib.request

def shop():
    """A server of its own for each browser: both run at the same time."""

    class Shop(http.server.BaseHTTPRequestHandler):
        cookie, got = None, None

        def do_GET(self):
            Shop.got = self.headers["Cookie"]
            body = b"<link rel=icon href=data:,>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            if Shop.cookie:
                self.send_header("Set-Cookie", Shop.cookie + "; Path=/; Max-Age=100000")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Shop, f"http://localhost:{server.server_address[1]}/"

def children(parent):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [child for it in found.split() for child in (int(it), *children(int(it)))]

class Browser:
    def __init__(self, profile, shop, address):
        self.shop, self.address = shop, address
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.ask("GET", "/status")
                break
            except OSError:
                time.sleep(0.05)
        arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + profile]
        self.session = "/session/" + self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method,
            data=None if body is None else json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    def visit(self, cookie=None):
        """What cookie the browser brings; it is given `cookie`."""
        self.shop.cookie = cookie
        self.ask("POST", self.session + "/url", {"url": self.address})
        return self.shop.got

    def kill(self):
        """At once, as without power."""
        for process in (*children(self.driver.pid), self.driver.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.driver.wait()

def outcome(seconds):
    """What a browser brings that was ended so long after its cookie was replaced."""
    profile, at = f"{sys.argv[1]}/profile-{seconds}", shop()
    browser = Browser(profile, *at)
    try:
        browser.visit("id=old")
        time.sleep(35)
        assert browser.visit("id=new") == "id=old"
        time.sleep(seconds)
    finally:
        browser.kill()
    # What tells the next browser that this one is running.
    for name in os.listdir(profile):
        if name.startswith("Singleton"):
            os.remove(os.path.join(profile, name))
    browser = Browser(profile, *at)
    try:
        return browser.visit()
    finally:
        browser.ask("DELETE", browser.session)
        browser.driver.terminate()
        browser.driver.wait()

with concurrent.futures.ThreadPoolExecutor() as threads:
    seen = list(threads.map(outcome, (20, 35)))
for seconds, cookie in zip((20, 35), seen):
    print(f"ended {seconds} seconds after its cookie was replaced, the browser comes with {cookie}")
if seen == ["id=old", "id=new"]:
    print("as described: what was set in the last half a minute is not there")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
