#!/usr/bin/env bash
# HAProxy and Apache: when the application ends its connection without an answer, a browser gets 502 for the first
# request of its connection only; over HTTP/2, HAProxy says that the request was not processed.
#
# Versions:  HAProxy 2.6.12 and Apache 2.4.71 (Debian 12). nginx 1.22.1, Caddy 2.6.2, Varnish 7.1.1 and Squid 5.7 always
#            answered, with 502 or 503, and so did Apache over HTTP/2, with 500 (November 2026).
# Expected:  a proxy that has handed a request on, and gets no answer to it, answers itself: 502. That browsers send a POST
#            again when their connection ends, as Chromium does, is nothing to an application behind a proxy.
# Seen:      over HTTP/1.1 both end the browser's connection, without a byte, if there has been a request before on it.
#            Over HTTP/2, HAProxy ends the stream of each such request with REFUSED_STREAM, which by RFC 9113, 8.7, assures
#            the client that it has not been processed: the application has done it. It is meant so that the client tries
#            again. Chromium does: over HTTP/1.1 once, with another connection, where the request is the first; over
#            HTTP/2 twice.
# Matters:   a handler that panics, or a process that is ended under its requests, carries out one form two or three times,
#            in spite of the proxy; over HTTP/1.1 only for visitors who have looked at a page before, so never for `curl`.
#            Answer 500 when a handler panics; let a form know itself by a number.
# Source:    HAProxy, src/http_ana.c, http_wait_for_response, where it leads to abort_keep_alive; httpd,
#            modules/proxy/mod_proxy_http.c, ap_proxy_http_process_response, before it calls ap_proxy_backend_broke.
set -euo pipefail

haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy) || { echo "haproxy is missing: apt-get install haproxy"; exit 2; }
apache=$(PATH=$PATH:/usr/sbin command -v apache2) || { echo "apache2 is missing: apt-get install apache2"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$haproxy" -v | sed -n 1p
"$apache" -v | sed -n 1p

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
haproxy_port=$(free)
haproxy_h2_port=$(free)
apache_port=$(free)
back=$(free)
chmod 755 "$T"
cat >"$T/haproxy.cfg" <<END
defaults
    mode http
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend browsers
    bind 127.0.0.1:$haproxy_port
    bind 127.0.0.1:$haproxy_h2_port proto h2
    default_backend applications
backend applications
    server application 127.0.0.1:$back
END
modules=/usr/lib/apache2/modules
cat >"$T/apache.conf" <<END
ServerRoot $T
ServerName localhost
PidFile $T/pid
ErrorLog $T/error.log
User nobody
Group nogroup
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule proxy_module $modules/mod_proxy.so
LoadModule proxy_http_module $modules/mod_proxy_http.so
Listen 127.0.0.1:$apache_port
ProxyPass / http://127.0.0.1:$back/
END
"$haproxy" -db -f "$T/haproxy.cfg" 2>"$T/haproxy.log" &
P+=($!)
"$apache" -DFOREGROUND -f "$T/apache.conf" 2>"$T/apache.log" &
P+=($!)

python3 - "$back" "$haproxy_port" "$haproxy_h2_port" "$apache_port" <<'END'
import http.client, http.server, socket, struct, sys, threading, time

class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    orders = 0

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Application.orders += 1
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass

class Http1:
    def __init__(self, port):
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method, path, body=b""):
        try:
            self.client.request(method, path, body=body)
            reply = self.client.getresponse()
            reply.read()
            return reply.status
        except http.client.RemoteDisconnected:
            return "none, the connection is closed"

class Http2:
    """As much of it as this needs: one request at a time, and of its answer whether it is one."""
    DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
    ERRORS = {7: "REFUSED_STREAM", 8: "CANCEL"}

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.frames, self.stream = self.socket.makefile("rb"), -1
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS, 0, 0, b"")

    def send(self, kind, flags, stream, payload):
        self.socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def ask(self, method, path, body=b""):
        self.stream += 2
        fields = {":method": method, ":scheme": "http", ":authority": "localhost", ":path": path,
                  "content-length": str(len(body))}
        # Each as a literal that goes into no table.
        block = b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                         for name, value in fields.items())
        self.send(self.HEADERS, 4, self.stream, block)   # END_HEADERS
        self.send(self.DATA, 1, self.stream, body)       # END_STREAM
        answer = None
        while True:
            head = self.frames.read(9)
            length = int.from_bytes(head[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self.frames.read(length)
            if kind == self.SETTINGS and not flags:
                self.send(self.SETTINGS, 1, 0, b"")      # ACK
            if stream != self.stream:
                continue
            if kind == self.RST_STREAM:
                return answer or f"none, {self.ERRORS.get(struct.unpack('>I', payload)[0], payload)}"
            if kind == self.HEADERS:
                answer = 200 if b"\x88" in payload else "another status"   # The 8th of HPACK's table.
            if flags & 1:
                return answer

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {}
for name, port, client in zip(["HAProxy", "HAProxy, HTTP/2", "Apache"], sys.argv[2:], [Http1, Http2, Http1]):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", int(port))).close()
            break
        except OSError:
            time.sleep(0.05)
    for pages in [0, 1, 5]:
        browser = client(int(port))
        for _ in range(pages):
            assert browser.ask("GET", "/") == 200
        Application.orders = 0
        answer = browser.ask("POST", "/order", b"item=book")
        seen[name, pages] = Application.orders, answer
        print(f"{name:15} a POST after {pages} pages on the connection: {Application.orders} order, answer: {answer}")

closed, refused = (1, "none, the connection is closed"), (1, "none, REFUSED_STREAM")
if seen == {**{(name, pages): closed if pages else (1, 502) for name in ("HAProxy", "Apache") for pages in (0, 1, 5)},
            **{("HAProxy, HTTP/2", pages): refused for pages in (0, 1, 5)}}:
    print("as described: who has been there before gets no answer")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
