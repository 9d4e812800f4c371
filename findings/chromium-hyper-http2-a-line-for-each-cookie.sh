#!/usr/bin/env bash
# Chromium and hyper: over HTTP/2 each cookie comes in a `Cookie` line of its own, and `headers.get(COOKIE)` has the first.
#
# Versions:  Chromium 156.0.8078.114 (Debian 12); crates axum 0.8.9, hyper 1.12.0.
# Expected:  "the user agent MUST NOT attach more than one Cookie header field" (RFC 6265, 5.4): a request has one `Cookie`
#            line, and a handler finds its cookie in `headers.get(COOKIE)`.
# Seen:      HTTP/2 may split the line, so that its parts compress better, and Chromium does, at each cookie. RFC 9113 has
#            the receiver join them before it hands them on; h2 and hyper do not. With three cookies, axum's `HeaderMap`
#            has three `cookie` entries, and `get` returns the first alone. Over HTTP/1.1 the same handler gets all three.
# Matters:   in development, over plain HTTP, and behind most proxies there is one line; served with TLS by itself, or
#            behind a balancer that passes TLS or HTTP/2 through, the application finds a cookie if it is the first. With
#            one cookie it works; from the day on which a banner or a campaign sets another, older one, nobody is logged
#            in. Use `get_all`, and look through all of them; also in what forwards, logs or hashes cookies.
# Source:    https://www.rfc-editor.org/rfc/rfc9113#section-8.2.3, which has "MUST be concatenated" for whoever passes them
#            to "a generic HTTP server application"; https://docs.rs/h2/0.4 does not mention it.
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
for program in cargo openssl; do
    command -v $program >/dev/null || { echo "$program is missing: install Rust, apt-get install openssl"; exit 2; }
done
echo "crates axum 0.8.9, hyper 1.12.0"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = { version = "=0.8.9", features = ["http2"] }
hyper = "=1.12.0"
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use axum::{
    Router,
    http::{HeaderMap, Version, header::COOKIE},
    routing::get,
};
use tokio::net::TcpListener;

/// The version, how many lines there are, and what `get` has.
async fn page(version: Version, headers: HeaderMap) -> String {
    let lines = headers.get_all(COOKIE).iter().count();
    let first = headers.get(COOKIE).map_or("none", |line| line.to_str().unwrap());
    format!("{version:?}, {lines} lines, the first is {first}")
}

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    axum::serve(listener, Router::new().route("/", get(page))).await.unwrap();
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
"${CARGO_TARGET_DIR:-$T/target}/debug/finding" >"$T/back" &
P+=($!)
until [ -s "$T/back" ]; do sleep 0.1; done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout "$T/key" -out "$T/cert" \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null

python3 - "$port" "$T" "$(cat "$T/back")" <<'END'
import json, socket, ssl, sys, threading, time, urllib.request

# What ends TLS, and hands on all bytes as they are, as a balancer of connections does.
def front(protocol):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2] + "/cert", sys.argv[2] + "/key")
    tls.set_alpn_protocols([protocol])
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(reader, writer):
        try:
            while data := reader.recv(65536):
                writer.sendall(data)
        except OSError:
            pass

    def relay(client):
        try:
            client = tls.wrap_socket(client, server_side=True)
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        copy(server, client)

    def accept():
        while True:
            threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"https://localhost:{listener.getsockname()[1]}/"

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
arguments = ["--headless=new", "--no-sandbox", "--ignore-certificate-errors", f"--user-data-dir={sys.argv[2]}/profile"]
session = "/session/" + driver("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}})["sessionId"]

def run(script):
    return driver("POST", session + "/execute/sync", {"script": script, "args": []})

seen = []
try:
    for protocol in ("http/1.1", "h2"):
        at = front(protocol)
        driver("POST", session + "/url", {"url": at})
        run("for (const it of ['theme=dark', 'id=7', 'lang=en']) document.cookie = it")
        driver("POST", session + "/url", {"url": at})
        seen.append(run("return document.body.innerText"))
        print(seen[-1])
finally:
    driver("DELETE", session)
if seen == ["HTTP/1.1, 1 lines, the first is theme=dark; id=7; lang=en", "HTTP/2.0, 3 lines, the first is theme=dark"]:
    print("as described: over HTTP/2 a cookie is a line")
else:
    print("CHANGED: it no longer behaves as described")
    sys.exit(1)
END
