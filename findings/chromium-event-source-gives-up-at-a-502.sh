#!/usr/bin/env bash
# Chromium: an `EventSource` connects again when its connection ends, and gives up for good when the answer is a 502.
#
# Version:   Chromium 156.0.8078.114 (Debian 12). Firefox 153 ESR does the same.
# Expected:  an `EventSource` reconnects by itself, that is what it is for. A deploy ends its stream; the proxy answers 502
#            or 503 for some seconds; after that the browser has its stream again.
# Seen:      when a stream ends, the browser asks again after three seconds. If the answer is then a 502 or 503, also with
#            `Retry-After`, or a page (a redirect to the login), or a 204, it never asks again: one `error` event, and
#            `readyState` is 2, CLOSED. Only where there is no answer at all, a refused connection, it goes on asking.
# Matters:   a page that waits for the end of its session, or for orders, is deaf after a deploy, if it has asked in the
#            seconds in which the proxy had nobody behind it; the person sees nothing of that, and what is on the page
#            stays there after a logout elsewhere. In `onerror`, where `readyState` is CLOSED, make a new `EventSource`
#            after some seconds, or have the page ask the server.
# Source:    https://html.spec.whatwg.org/multipage/server-sent-events.html: "if res's status is not 200 … then fail the
#            connection", and "once the user agent has failed the connection, it does not attempt to reconnect".
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
import http.server, json, socket, sys, threading, time, urllib.request

class Shop(http.server.BaseHTTPRequestHandler):
    # What the stream's address answers, one after the other; the last one again and again.
    answers, asked = [], 0

    def do_GET(self):
        if self.path != "/live":
            return self.answer(200, "text/html", b"<link rel=icon href=data:,>")
        kind = Shop.answers[min(Shop.asked, len(Shop.answers) - 1)]
        Shop.asked += 1
        if kind == "stream that ends":
            self.answer(200, "text/event-stream", b"retry: 500\n\ndata: hello\n\n")
        elif kind == "a page":
            self.answer(200, "text/html", b"Who are you?")
        elif kind == "no answer":
            self.close_connection = True
        else:
            self.answer(kind, "text/html", b"")

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status >= 500:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

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

def run(script):
    return driver("POST", session + "/execute/sync", {"script": script, "args": []})

def outcome(failure):
    """Whether the browser has its stream again after that answer, and in what state it is."""
    Shop.answers, Shop.asked = ["stream that ends", failure, "stream that ends"], 0
    driver("POST", session + "/url", {"url": f"http://localhost:{shop.server_address[1]}/"})
    run("window.source = new EventSource('/live')")
    time.sleep(6)
    state = run("return source.readyState")
    run("source.close()")
    return Shop.asked > 2, state == 2

described = {
    "stream that ends": (True, False), "no answer": (True, False),
    502: (False, True), 503: (False, True), 204: (False, True), "a page": (False, True),
}
seen = {}
try:
    for failure in described:
        seen[failure] = outcome(failure)
        goes_on, is_closed = seen[failure]
        print(f"connects again, and gets: {failure!s:18} {'asks again' if goes_on else 'never asks again'}"
              f"{', readyState is CLOSED' if is_closed else ''}")
finally:
    driver("DELETE", session)
if seen == described:
    print("as described: an answer ends it, and a lost connection does not")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
