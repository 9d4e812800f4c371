#!/usr/bin/env bash
# serde: a binary format gives a socket address back without the interface that it is on; JSON keeps that, and loses the
# flow.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2.
# Expected:  `SocketAddr` is four numbers at most; what is written of one is all of it, as it is for `IpAddr`.
# Seen:      a format that people do not read gets address and port alone: the scope of a link-local address, which says
#            on which interface the neighbour is, comes back as 0, and so does the flow. Formats that people read get what
#            `Display` prints, which has the scope and no flow. Neither is an error, and the value that comes back is not
#            equal to the one that was written; written again, it is the same bytes, so that no comparison of what is
#            written finds it.
# Matters:   "the address of this login's peer" is saved in a session as `fe80::1%3` and is `fe80::1` from the next request
#            on: nobody can be reached there, and two machines on two networks are one. A test on JSON does not show what
#            a binary codec does.
# Source:    https://github.com/serde-rs/serde/issues/2618.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
ciborium = "=0.2.2"
rmp-serde = "=1.3.1"
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    process::ExitCode,
};

/// Interface and flow of an address.
fn parts(address: &SocketAddr) -> (u32, u32) {
    match address {
        SocketAddr::V6(address) => (address.scope_id(), address.flowinfo()),
        SocketAddr::V4(_) => (0, 0),
    }
}

/// What comes back from JSON, MessagePack and CBOR, and whether that is written as the same bytes.
fn come_back(address: &SocketAddr) -> [((u32, u32), bool); 3] {
    let json = |it: &SocketAddr| serde_json::to_vec(it).unwrap();
    let pack = |it: &SocketAddr| rmp_serde::to_vec_named(it).unwrap();
    let cbor = |it: &SocketAddr| {
        let mut bytes = Vec::new();
        ciborium::into_writer(it, &mut bytes).unwrap();
        bytes
    };
    let from_json: SocketAddr = serde_json::from_slice(&json(address)).unwrap();
    let from_pack: SocketAddr = rmp_serde::from_slice(&pack(address)).unwrap();
    let from_cbor: SocketAddr = ciborium::from_reader(&cbor(address)[..]).unwrap();
    println!("{address}: JSON {from_json}, MessagePack {from_pack}, CBOR {from_cbor}");
    [
        (parts(&from_json), json(&from_json) == json(address)),
        (parts(&from_pack), pack(&from_pack) == pack(address)),
        (parts(&from_cbor), cbor(&from_cbor) == cbor(address)),
    ]
}

fn main() -> ExitCode {
    let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let address = |scope, flow| SocketAddr::from(SocketAddrV6::new(neighbour, 443, flow, scope));
    let seen = [
        (come_back(&address(0, 0)), [((0, 0), true); 3]),
        (come_back(&address(3, 0)), [((3, 0), true), ((0, 0), true), ((0, 0), true)]),
        (come_back(&address(3, 7)), [((3, 0), true), ((0, 0), true), ((0, 0), true)]),
    ];
    if seen.iter().all(|(seen, described)| seen == described) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: a binary format forgets the interface of an address, and JSON the flow"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
