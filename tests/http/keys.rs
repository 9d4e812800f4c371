//! Keys that are replaced while requests are served.

use axum::{Router, http::StatusCode, routing::get};
use sessions::{Keys, MemoryStore, PrivateCookie, Session, SessionLayer};
use sessions_tests::{Server, at_once};

use super::{App, COOKIE};

#[tokio::test]
async fn a_key_is_rotated_without_a_restart() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    // Seen a moment ago: it must not be taken for good by that.
    assert_eq!(client.get("/name").await.text(), "Zoe");
    let before = client.cookie(COOKIE).unwrap();
    let copy = client.copy();

    let new = Keys::generate();
    app.layer.replace_keys(new.clone().with_previous(app.keys.clone())).unwrap();
    assert_eq!(client.get("/name").await.text(), "Zoe", "the old one still opens");
    let after = client.cookie(COOKIE).unwrap();
    assert_ne!(before, after, "and its cookie comes back signed by the new one");
    assert_eq!(client.get("/name").await.set_cookies(), [""; 0]);

    app.layer.clone().replace_keys(new).unwrap();
    assert_eq!(
        copy.get("/name").await.text(),
        "nobody",
        "what the old one signed is worth nothing"
    );
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn keys_of_another_tenant_or_layer_are_refused_and_nothing_changes() {
    #[derive(Session)]
    struct Other {
        visits: u32,
    }
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let tenant = app.keys.for_tenant("teapots.example");
    assert!(app.layer.replace_keys(tenant).unwrap_err().to_string().contains("tenant"));

    let others = Keys::generate();
    let _other = SessionLayer::<Other>::new(MemoryStore::new(), others.clone());
    let both = others.clone().with_previous(app.keys.clone());
    let error = app.layer.replace_keys(both).unwrap_err();
    assert!(error.to_string().contains("in common"), "{error}");
    assert_eq!(client.get("/name").await.set_cookies(), [""; 0], "it is signed by the first key");
    assert_eq!(client.get("/name").await.text(), "Zoe");

    // A key that the layer has no more is free for another.
    app.layer.replace_keys(Keys::generate()).unwrap();
    #[derive(Session)]
    struct Third {
        visits: u32,
    }
    let keys = app.keys.clone();
    assert!(SessionLayer::<Third>::builder(MemoryStore::new(), keys).build().is_ok());
}

/// The page's token, and whether a form with it is taken.
async fn csrf_app(layer: SessionLayer<super::Visitor>) -> Server {
    let token = async |session: Session<super::Visitor>| {
        session.write().await.set_visits(1);
        session.csrf_token().await.map(|token| token.to_string())
    };
    let routes = get(token).post(async || "taken");
    let csrf = super::Visitor::csrf_layer();
    Server::start(Router::new().route("/", routes).layer(csrf).layer(layer)).await
}

#[tokio::test]
async fn tokens_and_private_cookies_follow_the_keys() {
    let keys = Keys::generate();
    let layer = SessionLayer::<super::Visitor>::builder(PrivateCookie, keys.clone());
    let layer = layer.in_another_process().build().unwrap();
    let server = csrf_app(layer.clone()).await;
    let client = server.client();
    let token = client.get("/").await.text().to_string();
    let post = async || {
        let request = http::Request::post("/").header("x-csrf-token", &token);
        let body = http_body_util::Full::<axum::body::Bytes>::default();
        client.call(request.body(body).unwrap()).await.status
    };
    assert_eq!(post().await, StatusCode::OK);
    let new = Keys::generate();
    layer.replace_keys(new.clone().with_previous(keys)).unwrap();
    assert_eq!(post().await, StatusCode::OK);
    layer.replace_keys(Keys::generate().with_previous(new)).unwrap();
    assert_eq!(post().await, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_keys_are_rotated() {
    const REQUESTS: usize = 200;
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let layer = app.layer.clone();
    let keys = app.keys.clone();
    let rotation = tokio::spawn(async move {
        let mut ring = keys;
        for _ in 0..20 {
            ring = Keys::generate().with_previous(ring);
            layer.replace_keys(ring.clone()).unwrap();
            tokio::task::yield_now().await;
        }
    });
    let names = at_once(REQUESTS, |_| {
        let client = client.clone();
        async move { client.get("/name").await.text().to_string() }
    })
    .await;
    rotation.await.unwrap();
    assert!(names.iter().all(|name| name == "Zoe"));
    assert_eq!(client.get("/name").await.text(), "Zoe");
}
