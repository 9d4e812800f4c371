//! A client that hangs up, a handler that panics, a server that stops.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use sessions::{Session, testing::Operation};
use sessions_tests::{Client, eventually};

use crate::{App, COOKIE, Steps, Visitor};

/// Writes, lets go of the guard, and does not come to an end.
async fn writes_and_hangs(steps: web::Data<Steps>, session: Session<Visitor>) -> String {
    session.write().await.set_name("before the hang-up");
    steps.stop().await;
    String::new()
}

/// The same, with the guard in its hand.
async fn hangs_with_a_guard(steps: web::Data<Steps>, session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    s.set_name("before the hang-up");
    steps.stop().await;
    String::new()
}

async fn panics(session: Session<Visitor>) -> String {
    session.write().await.set_name("before the panic");
    panic!("after the guard is gone");
}

async fn app(steps: &Steps) -> App {
    App::stepwise(steps, |config| {
        config
            .route("/hangs", web::get().to(writes_and_hangs))
            .route("/hangs-with-a-guard", web::get().to(hangs_with_a_guard))
            .route("/panics", web::get().to(panics))
            .route("/streams", web::get().to(streams));
    })
    .await
}

async fn hang_up(client: &Client, path: &'static str, steps: &Steps) {
    let hanging = client.spawn_get(path);
    steps.arrived.notified().await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn what_a_guard_wrote_stays_when_the_client_hangs_up() {
    for path in ["/hangs", "/hangs-with-a-guard"] {
        let steps = Steps::default();
        let app = app(&steps).await;
        let client = app.visitor().await;
        hang_up(&client, path, &steps).await;
        eventually("the handler is dropped", async || app.layer.sessions_in_use() == 0).await;
        app.layer.wait_for_background_saves().await;
        app.store.reset();
        // The lock is free at once.
        assert_eq!(client.get("/name").await.text(), "before the hang-up", "{path}");
    }
}

#[tokio::test]
async fn a_hang_up_while_the_store_is_slow_loses_nothing() {
    let app = app(&Steps::default()).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let hanging = client.spawn_get("/name/Ada");
    gate.wait_for_caller().await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    gate.release();
    eventually("it is saved", async || client.get("/name").await.text() == "Ada").await;
}

#[tokio::test]
async fn a_panic_loses_no_released_write() {
    let app = app(&Steps::default()).await;
    let client = app.visitor().await;
    let reply = client.spawn_get("/panics");
    assert!(reply.await.is_err(), "there is no response");
    eventually("the slot is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "before the panic");
}

/// As actix-web has it by default, a handler goes on when its client has hung up.
#[tokio::test]
async fn a_handler_that_does_not_hear_of_a_hang_up_comes_to_its_end() {
    async fn goes_on(steps: web::Data<Steps>, session: Session<Visitor>) -> String {
        let mut s = session.write().await;
        steps.stop().await;
        s.set_name("after the hang-up");
        String::new()
    }
    let (steps, app) = (Steps::default(), app(&Steps::default()).await);
    let (layer, data) = (app.layer.clone(), web::Data::new(steps.clone()));
    let deaf = move || {
        let app = actix_web::App::new().app_data(data.clone());
        app.route("/goes-on", web::get().to(goes_on)).wrap(layer.clone())
    };
    let server = actix_web::HttpServer::new(deaf).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let (client, deaf) = (app.visitor().await, Client::new(server.addrs()[0]));
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    deaf.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    hang_up(&deaf, "/goes-on", &steps).await;
    steps.go_on.notify_one();
    // It waits for the lock until then.
    assert_eq!(client.get("/name").await.text(), "after the hang-up");
    handle.stop(false).await;
}

/// The workers' runtimes end with the server, and the background save with them.
#[tokio::test]
async fn a_server_that_stops_loses_nothing_that_is_still_to_be_saved() {
    let steps = Steps::default();
    let app = app(&steps).await;
    let client = app.visitor().await;
    app.store.reset();
    let gate = app.store.hold(Operation::Replace);
    hang_up(&client, "/hangs", &steps).await;
    gate.wait_for_caller().await;
    app.server.stop(true).await;
    let begins_anew = async || app.store.calls().replace == 2;
    eventually("the save begins anew", begins_anew).await;
    gate.release();
    app.layer.wait_for_background_saves().await;
    let twin = app.twin();
    let there = twin.client();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    assert_eq!(there.get("/name").await.text(), "before the hang-up");
}

/// Writes and saves when the response has left, says how that went, and writes once more.
async fn streams(session: Session<Visitor>) -> HttpResponse {
    let stream = one_part(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        session.write().await.set_name("streamed");
        let saved = session.save().await.map_err(|error| error.kind());
        session.write().await.set_visits(77);
        format!("{saved:?}")
    });
    HttpResponse::Ok().streaming(stream)
}

fn one_part(
    part: impl Future<Output = String>,
) -> impl futures_core::Stream<Item = Result<web::Bytes, std::convert::Infallible>> {
    use tokio_stream::StreamExt;
    tokio_stream::once(Box::pin(part)).then(async |part| Ok(web::Bytes::from(part.await)))
}

#[tokio::test]
async fn a_streamed_body_saves_what_it_writes() {
    let app = app(&Steps::default()).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/streams").await.text(), "Ok(())");
    eventually("the last handle is gone", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "streamed");
    assert_eq!(client.get("/visit").await.text(), "78");
    // A session that is new has had no cookie.
    let reply = app.client().get("/streams").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("Err(NoCookie)", vec![]));
}
