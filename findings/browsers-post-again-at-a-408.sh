#!/usr/bin/env bash
# Chromium and Firefox: a POST that is answered with 408, "Request Timeout", is sent again: two or three times, or ten.
#
# Versions:  Chromium 156.0.8078.114, Firefox 153.8.0 ESR (Debian 12).
# Expected:  a 408 is an answer. `fetch` sees a status of 408, a form shows its page, and the server has seen one POST.
# Seen:      both browsers take a 408 for a connection that the server was closing while it was idle, whose request nobody
#            has read, and send it again by themselves over another connection, over HTTP/1.1. Chromium does so for as long
#            as it has connections from before, two or three times in all, and shows the last answer. Firefox does so where
#            the answer took longer than a second: ten times, and then it is a network error, and no 408 is seen at all. A
#            503 is sent once by both.
# Matters:   tower-http's `TimeoutLayer` answers a handler that has taken too long with 408, in the example of its page
#            and in its `new`: the handler has been at work for all that time, and may have done everything but answer.
#            Ten orders come of one, ten mails, and ten times the load on a server that was too slow already.
#            `TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, …)` says what is meant, or 504.
# Source:    Chromium, net/http/http_network_transaction.cc, "HTTP_REQUEST_TIMEOUT"; RFC 9110, 15.5.9, has the 408 for a
#            server that "did not receive a complete request message", and allows to repeat it.
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
mkdir "$T/home" "$T/firefox"
HOME=$T/home firefox-esr --version

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free)
chromedriver --port="$port" >"$T/log" 2>&1 &
P+=($!)
marionette=$(free)
cat >"$T/firefox/user.js" <<END
user_pref("marionette.port", $marionette);
user_pref("app.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
END
HOME=$T/home firefox-esr --headless --no-remote --marionette --profile "$T/firefox" >"$T/log" 2>&1 &
P+=($!)

python3 - "$port" "$T/profile" "$marionette" <<'END'
import http.server, json, socket, sys, threading, time, urllib.request

class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status, orders = 408, 0

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"<link rel=icon href=data:,>a shop")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Shop.orders += 1
        time.sleep(1.2)
        self.answer(Shop.status, b"too late")

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A browser that sends its POST again closes the connection of the one before."""

shop = Server(("127.0.0.1", 0), Shop)
threading.Thread(target=shop.serve_forever, daemon=True).start()
PAGE = f"http://127.0.0.1:{shop.server_address[1]}/"
ORDER = """const done = arguments[0];
fetch("/order", {method: "POST", body: "book"}).then((it) => done(it.status), () => done("an error"));"""

def until_there(connect):
    for _ in range(600):
        try:
            return connect()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the browser did not start")

class Chromium:
    def __init__(self):
        until_there(lambda: self.ask("GET", "/status"))
        arguments = ["--headless=new", "--no-sandbox", "--user-data-dir=" + sys.argv[2]]
        self.session = "/session/" + self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{sys.argv[1]}{path}", method=method,
            data=None if body is None else json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    def order(self):
        self.ask("POST", self.session + "/url", {"url": PAGE})
        return self.ask("POST", self.session + "/execute/async", {"script": ORDER, "args": []})

    def end(self):
        self.ask("DELETE", self.session)

class Firefox:
    """Its Marionette: lists in JSON, each with its length before it."""

    def __init__(self):
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
        return result.get("value")

    def order(self):
        self.ask("WebDriver:Navigate", {"url": PAGE})
        return self.ask("WebDriver:ExecuteAsyncScript", {"script": ORDER, "args": []})

    def end(self):
        self.ask("Marionette:Quit", {"flags": ["eForceQuit"]})

seen = {}
for browser in (Chromium, Firefox):
    it = browser()
    try:
        for Shop.status in (503, 408):
            Shop.orders = 0
            said = it.order()
            seen[browser.__name__, Shop.status] = Shop.orders, said
            print(f"{browser.__name__:9} a POST that is answered with {Shop.status} after 1.2 seconds "
                  f"is sent {Shop.orders} times, and the page sees {said}")
    finally:
        it.end()

orders, said = seen.pop(("Chromium", 408))
described = {("Chromium", 503): (1, 503), ("Firefox", 503): (1, 503), ("Firefox", 408): (10, "an error")}
if seen == described and orders in (2, 3) and said == 408:
    print("as described: a 408 is no answer")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
