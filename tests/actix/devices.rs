//! Sessions that are bound to a device: what the layer says to browsers by itself.

use http::Method;
use http_body_util::Full;
use hyper::body::Bytes;
use sessions::DeviceBinding;

use crate::Both;

#[tokio::test]
async fn the_layer_offers_a_binding_and_answers_its_paths() {
    let bind = |builder: sessions::SessionLayerBuilder<_>| {
        builder.bind_to_device(DeviceBinding::new().with_path("/device"))
    };
    let both = Both::start(axum::Router::new(), |_| {}, bind).await;
    let mut answers = Vec::new();
    for client in &both.clients {
        let mut seen = Vec::new();
        let reply = client.get("/login").await;
        let offer = reply.header("secure-session-registration");
        assert!(offer.contains("path=\"/device"), "{offer}");
        let path = offer.split("path=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
        for (method, path, name, value) in [
            (Method::POST, &*path, "x", "x"),
            (Method::POST, &*path, "secure-session-response", "no.proof.atall"),
            (Method::GET, &*path, "x", "x"),
            (Method::POST, "/device/refresh", "x", "x"),
            (Method::POST, "/device/refresh", "sec-secure-session-id", "unknown"),
        ] {
            let request = http::Request::builder().method(method.clone()).uri(path);
            let request = request.header(name, value).body(Full::<Bytes>::default()).unwrap();
            let reply = client.call(request).await;
            seen.push(format!(
                "{method} {path} {name}: {} {} {}",
                reply.status,
                reply.header("cache-control"),
                reply.body
            ));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[1][0].contains("400") && answers[1][1].contains("403"), "{:?}", answers[1]);
}
