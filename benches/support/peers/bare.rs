//! axum alone.

use axum::{Router, routing::get};

use super::{NAME, ignore};

pub(super) fn app() -> Router {
    Router::new()
        .route("/", get(ignore))
        .route("/begin", get(nothing))
        .route("/fill", get(nothing))
        .route("/name", get(name))
        .route("/count", get(nothing))
}

async fn nothing() {}

async fn name() -> String {
    NAME.to_string()
}
