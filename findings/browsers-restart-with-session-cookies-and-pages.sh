#!/usr/bin/env bash
# Chromium and Firefox, set to open the tabs of last time: a cookie without a lifetime is back after a restart, and so is
# the page of a session that has ended, without a question to the server.
#
# Versions:  Chromium 156.0.8078.114, Firefox 153.8.0 ESR (Debian 12).
# Expected:  a cookie with neither `Max-Age` nor `Expires` ends with the browser: who closes it is logged out. And a
#            page that says `private, no-cache` is not shown without asking the server, the less in another run of the
#            browser.
# Seen:      without the setting it is so. With it ("Continue where you left off", "Open previous windows and tabs") both
#            browsers write such cookies to the disk, `HttpOnly` and `Secure` ones as well, and come back with them, after
#            an orderly end. The tabs are filled from the disk, as by Back, and however old they are: a page is as its
#            visitor left it, although its session has ended on the server meanwhile, whether it says `private`,
#            `no-cache` or `max-age=0`. One that says `no-store` is asked for.
# Matters:   "remember me", left unchecked, promises nothing on a machine that several people use: what ends a login
#            there is a logout, or a timeout on the server. And whoever opens a browser in the morning sees the page of
#            last night, with a name on it, and a form whose token is no longer good. `no-store` on such pages helps.
# Source:    RFC 6265, 5.3, leaves it to the browser when its "session" is over; MDN, Set-Cookie, says that browsers which
#            restore tabs restore cookies, too. RFC 9111, 6, has a history that shows pages which are no longer fresh.
set -euo pipefail

for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
command -v firefox-esr >/dev/null || { echo "firefox-esr is missing: apt-get install firefox-esr"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chromium --version 2>/dev/null
mkdir "$T/home"
export HOME=$T/home
firefox-esr --version

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free)
chromedriver --port="$port" >"$T/log" 2>&1 &
P+=($!)

python3 - "$port" "$T" "$(free)" <<'END'
import atexit, http.server, json, os, socket, subprocess, sys, threading, time, urllib.request

PAGES = ["private", "private, no-cache", "private, max-age=0", "no-store"]

class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked, over = [], False

    def do_GET(self):
        page = int(self.path[1:] or 0)
        cookie = self.headers["Cookie"]
        Site.asked.append((page, cookie))
        body = "a visitor" if Site.over or not cookie else "ada"
        body = b"<link rel=icon href=data:,>page of " + body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Vary", "Cookie")
        if page == 9:
            self.send_header("Set-Cookie", "__Host-id=ada; Path=/; Secure; HttpOnly; SameSite=Lax")
        self.send_header("Cache-Control", PAGES[page] if page < 9 else "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A browser that ends closes its connections."""

site = Server(("127.0.0.1", 0), Site)
threading.Thread(target=site.serve_forever, daemon=True).start()
AT = f"http://localhost:{site.server_address[1]}/"
TEXT = "return document.body.innerText.trim()"

def until_there(connect):
    for _ in range(600):
        try:
            return connect()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the browser did not start")

class Chromium:
    def __init__(self, profile, restores):
        until_there(lambda: self.ask("GET", "/status"))
        arguments = ["--headless=new", "--no-sandbox", f"--user-data-dir={profile}"]
        options = {"args": arguments, "prefs": {"session.restore_on_startup": 1 if restores else 5}}
        self.session = "/session/" + self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options}}})["sessionId"]

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{sys.argv[1]}{path}", method=method,
            data=None if body is None else json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    def visit(self, address):
        self.ask("POST", self.session + "/url", {"url": address})

    def tab(self):
        handles = self.ask("GET", self.session + "/window/handles")
        self.ask("POST", self.session + "/window", {"handle": handles[-1]})
        return self.ask("POST", self.session + "/execute/sync", {"script": TEXT, "args": []})

    def quit(self):
        self.ask("DELETE", self.session)
        time.sleep(1)

class Firefox:
    """Its Marionette: lists in JSON, each with its length before it."""

    def __init__(self, profile, restores):
        os.makedirs(profile, exist_ok=True)
        with open(f"{profile}/user.js", "w") as prefs:
            for name, value in [
                ("marionette.port", sys.argv[3]), ("browser.startup.page", 3 if restores else 0),
                ("app.update.enabled", "false"), ("datareporting.policy.dataSubmissionEnabled", "false"),
                ("network.captive-portal-service.enabled", "false"), ("network.connectivity-service.enabled", "false"),
            ]:
                prefs.write(f'user_pref("{name}", {value});\n')
        self.process = subprocess.Popen(
            ["firefox-esr", "--headless", "--no-remote", "--marionette", "--profile", profile],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        self.socket = until_there(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3]))))
        self.file, self.asked = self.socket.makefile("rb"), 0
        self.read()
        self.ask("WebDriver:NewSession", {})

    def read(self):
        length = b""
        while not length.endswith(b":"):
            length += self.file.read(1)
        return json.loads(self.file.read(int(length[:-1])))

    def ask(self, command, parameters):
        self.asked += 1
        text = json.dumps([0, self.asked, command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(text), text))
        _, _, error, result = self.read()
        if error:
            raise SystemExit(f"{command}: {error}")
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def visit(self, address):
        self.ask("WebDriver:Navigate", {"url": address})

    def tab(self):
        handles = self.ask("WebDriver:GetWindowHandles", {})
        self.ask("WebDriver:SwitchToWindow", {"handle": handles[-1]})
        return self.ask("WebDriver:ExecuteScript", {"script": TEXT, "args": []})

    def quit(self):
        self.ask("Marionette:Quit", {"flags": ["eAttemptQuit"]})
        self.process.wait(30)

def text(browser):
    """What the tab of last time shows, once it shows anything."""
    for _ in range(100):
        if shown := browser.tab():
            return shown
        time.sleep(0.1)

seen = {}
for kind in (Chromium, Firefox):
    for restores, page in [(False, 0), *((True, page) for page in range(len(PAGES)))]:
        profile = f"{sys.argv[2]}/{kind.__name__}-{restores}-{page}"
        Site.over = False
        browser = kind(profile, restores)
        browser.visit(AT + "9")
        browser.visit(AT + str(page))
        time.sleep(1.5)   # The list of tabs is written a second after a change.
        browser.quit()
        Site.asked, Site.over = [], True
        browser = kind(profile, restores)
        shown = text(browser) if restores else None
        asked = [it for it, _ in Site.asked]
        browser.visit(AT + "9")
        browser.quit()
        comes = bool(Site.asked[-1][1])
        seen[kind.__name__, restores, page] = comes, shown, bool(asked)
        print(f"{kind.__name__:9} {'opens the last tabs' if restores else 'begins with an empty page':26}",
              f"the cookie {'is there' if comes else 'is gone'}" + (
              f", and the tab that said {PAGES[page]:18} shows: {shown:18} the server was"
              f"{'' if asked else ' not'} asked" if restores else ""), flush=True)

described = {}
for name in ("Chromium", "Firefox"):
    described[name, False, 0] = False, None, False
    for page, said in enumerate(PAGES):
        described[name, True, page] = True, *(
            ("page of a visitor", True) if said == "no-store" else ("page of ada", False))
if seen == described:
    print("as described: cookies and pages outlive the browser")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
