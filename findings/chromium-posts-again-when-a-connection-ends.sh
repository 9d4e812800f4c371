#!/usr/bin/env bash
# Chromium: a POST whose connection ends without an answer is sent again, by itself, three or four times in all.
#
# Version:   Chromium 156.0.8078.108 (Debian 12).
# Expected:  a GET is sent again when a kept connection turns out to be closed; a POST is not, because nobody knows
#            whether it has been carried out. Only a person repeats a form, and is asked before. RFC 9110, 9.2.2: a
#            client "SHOULD NOT automatically retry a request with a non-idempotent method", unless it knows that it may.
# Seen:      the server reads the whole POST, and ends the connection without an answer. The browser sends it again over
#            another one, without asking or telling, as long as that had been there before the request: kept from
#            another request, or opened in advance; and a last time over a new one. `fetch` and a form get the answer
#            to the second POST as if it were the first, and where each connection ends, an error after the third or
#            fourth. Once the first bytes of an answer have arrived it does not.
# Matters:   a connection ends like this where a handler panics under hyper (axum without a layer that catches panics:
#            the handler runs three times or more), and where a process is ended in the middle of a deploy. An order is
#            placed several times, a counter in the session counts three, a message that is shown once is gone. Answer
#            500 when a handler panics, and give each form a number that the session knows it by.
# Source:    the behaviour; in Chromium, net/http/http_network_transaction.cc, ShouldResendRequest asks whether the
#            connection was used before, and not for the method.
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

FORM = b"<form method=post action=/order><input name=item value=book><button>Order</button></form>"
PAGE = b"<link rel=icon href=data:,>" + FORM

class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    orders, unanswered, begins_to_answer = [], 0, False

    def answer(self, body):
        self.send_response(200)
        for header in [("Content-Type", "text/html"), ("Content-Length", str(len(body)))]:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(PAGE)

    def do_POST(self):
        Shop.orders.append(self.rfile.read(int(self.headers["Content-Length"])))
        if len(Shop.orders) > Shop.unanswered:
            return self.answer(b"thank you for order %d" % len(Shop.orders))
        if Shop.begins_to_answer:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass

shop = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
threading.Thread(target=shop.serve_forever, daemon=True).start()
at = f"http://localhost:{shop.server_address[1]}/"

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

def by_fetch():
    return script("return (await fetch('/order', {method: 'POST', body: 'item=book'})).text()")

def by_form():
    button = driver("POST", session + "/element", {"using": "css selector", "value": "button"})
    driver("POST", f"{session}/element/{list(button.values())[0]}/click", {})
    shown = PAGE
    for _ in range(100):
        shown = script("return document.body.innerText.trim()")
        if shown != "Order" and shown:
            break
        time.sleep(0.05)
    return shown.splitlines()[-1]

seen = {}
try:
    ends = [(0, False), (1, False), (9, False)]
    # A form whose answer has only begun leads to a page without a text.
    for by, order, ends in [("fetch", by_fetch, [*ends, (9, True)]), ("a form", by_form, ends)]:
        for unanswered, begins in ends:
            Shop.orders, Shop.unanswered, Shop.begins_to_answer = [], unanswered, begins
            driver("POST", session + "/url", {"url": at})
            shown = order()
            end = {0: "none", 1: "the first", 9: "each"}[unanswered] + (", after the first bytes" if begins else "")
            print(f"by {by:6}  connections that end: {end:29} POSTs: {len(Shop.orders)}  the browser: {shown}")
            assert set(Shop.orders) == {b"item=book"}
            seen[by, unanswered, begins] = len(Shop.orders), "thank you" in shown
finally:
    driver("DELETE", session)

same = [seen[by, 0, False] == (1, True) and seen[by, 1, False] == (2, True) for by in ("fetch", "a form")]
# As often as there are connections at hand, which may be one more or less.
again = [seen[by, 9, False][0] >= 2 and not seen[by, 9, False][1] for by in ("fetch", "a form")]
if all(same) and all(again) and seen["fetch", 9, True][0] == 1:
    print("as described: a POST is sent again")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
