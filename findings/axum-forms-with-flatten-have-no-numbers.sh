#!/usr/bin/env bash
# axum: a form whose struct flattens another one has texts alone there: a number or a box that is ticked is an error 422,
# and an `Option` of a number is empty.
#
# Versions:  crates axum 0.8.9, serde 1.0.229.
# Expected:  `Form<Quantity>` reads quantity=5 as a u32, as `Form<WithToken<Quantity>>` does, which has a token and
#            flattens the rest: the fields are the same, and so is the form.
# Seen:      without `flatten`, each field is parsed as what its type asks for. What is flattened goes through a buffer
#            of serde's, which asks for nothing, and gets texts: a u32 or a bool is "invalid type: string". A field that
#            is an `Option` of a flattened struct is None, without an error. `Query` likewise (400). Texts come through.
# Matters:   a wrapper for the CSRF token, or for the page of a list, around all forms: it works for the login, where all
#            is text, and refuses the cart, where there is a number. Name the token in each form, send it in a header, or
#            write `#[serde(deserialize_with = …)]` for each number.
# Source:    https://github.com/tokio-rs/axum/issues/1753; https://github.com/serde-rs/serde/issues/1183
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates axum 0.8.9, serde 1.0.229"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = { version = "=0.8.9", default-features = false, features = ["form", "query"] }
serde = { version = "=1.0.229", features = ["derive"] }
tokio = { version = "=1.54.1", features = ["full"] }
tower = { version = "=0.5.3", features = ["util"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use axum::{
    Form, Router,
    body::{Body, to_bytes},
    extract::Query,
    http::{Request, header::CONTENT_TYPE},
    routing::{get, post},
};
use serde::Deserialize;
use tower::ServiceExt;

#[derive(Debug, Deserialize)]
struct WithToken<T> {
    #[expect(dead_code)]
    token: String,
    #[serde(flatten)]
    form: T,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[expect(dead_code)]
    token: String,
    quantity: u32,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Quantity {
    quantity: u32,
}

#[derive(Debug, Deserialize)]
struct Gift {
    gift: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let app = Router::new()
        .route("/named", post(|Form(form): Form<Named>| async move { form.quantity.to_string() }))
        .route("/name", post(|Form(it): Form<WithToken<Name>>| async move { it.form.name }))
        .route("/quantity", post(|Form(it): Form<WithToken<Quantity>>| async move { it.form.quantity.to_string() }))
        .route("/gift", post(|Form(it): Form<WithToken<Gift>>| async move { it.form.gift.to_string() }))
        .route(
            "/maybe",
            post(|Form(it): Form<WithToken<Option<Quantity>>>| async move {
                format!("{:?}", it.form.map(|it| it.quantity))
            }),
        )
        .route("/query", get(|Query(it): Query<WithToken<Quantity>>| async move { it.form.quantity.to_string() }));
    let mut is_so = true;
    for (path, form, status, answer) in [
        ("/named", "token=t&quantity=5", 200, "5"),
        ("/name", "token=t&name=ada", 200, "ada"),
        ("/quantity", "token=t&quantity=5", 422, "invalid type: string"),
        ("/gift", "token=t&gift=true", 422, "invalid type: string"),
        ("/maybe", "token=t&quantity=5", 200, "None"),
        ("/query", "token=t&quantity=5", 400, "invalid type: string"),
    ] {
        let request = if path == "/query" {
            Request::get(format!("{path}?{form}")).body(Body::empty())
        } else {
            Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(form))
        };
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        let seen = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        let body = String::from_utf8(body.into()).unwrap();
        println!("{path} {form}: {seen} {body}");
        is_so &= seen == status && body.contains(answer);
    }
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: what is flattened is text"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
