//! Requests of one session that overlap, on both workers of a server.

use std::time::Duration;

use actix_web::web;
use sessions::{ErrorKind, Keys, MemoryStore, Session, testing::SpyStore};
use sessions_tests::{Server, at_once};
use tokio::time::sleep;

use crate::{App, COOKIE, Steps, Visitor, axum_basics, build};

async fn slow_visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    let visits = s.visits();
    sleep(Duration::from_millis(2)).await;
    s.set_visits(visits + 1);
    String::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_count_to_two_hundred() {
    let app = App::start(|config| _ = config.route("/slow", web::get().to(slow_visit))).await;
    let client = app.visitor().await;
    at_once(200, |_| {
        let client = client.clone();
        async move { client.get("/slow").await.text().len() }
    })
    .await;
    assert_eq!(client.get("/visit").await.text(), "201");
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_requests_that_set_five_fields_all_count() {
    async fn set(path: web::Path<(u32, u32)>, session: Session<Visitor>) -> String {
        let (field, round) = *path;
        let mut s = session.write().await;
        tokio::task::yield_now().await;
        match field {
            0 => s.set_name(round.to_string()),
            1 => s.set_theme(round.to_string()),
            2 => s.set_visits(round),
            3 => s.set_seen([round]),
            _ => s.set_points(round.into()),
        };
        String::new()
    }
    async fn all(session: Session<Visitor>) -> String {
        let s = session.read().await;
        format!("{:?} {} {} {:?} {}", s.name(), s.theme(), s.visits(), s.seen(), s.points())
    }
    let app = App::start(|config| {
        config.route("/set/{field}/{round}", web::get().to(set)).route("/all", web::get().to(all));
    })
    .await;
    let client = app.visitor().await;
    for round in 1..=200 {
        at_once(5, |field| {
            let client = client.clone();
            async move { client.get(&format!("/set/{field}/{round}")).await.text().len() }
        })
        .await;
        let expected = format!("Some(\"{round}\") {round} {round} [{round}] {round}");
        assert_eq!(client.get("/all").await.text(), expected);
    }
}

/// Opens the session, waits to be let go on, writes.
async fn opens_waits_writes(steps: web::Data<Steps>, session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or_default();
    steps.stop().await;
    session.write().await.set_name("the slow one");
    match session.save().await {
        Ok(()) => "saved".to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[tokio::test]
async fn a_slow_request_does_not_undo_a_logout() {
    for end in ["/destroy", "/logout"] {
        for _ in 0..10 {
            let steps = Steps::default();
            let app = App::stepwise(&steps, |config| {
                config.route("/slow", web::get().to(opens_waits_writes));
            })
            .await;
            let client = app.visitor().await;
            client.get("/login").await.text();
            let slow = client.copy().spawn_get("/slow");
            steps.arrived.notified().await;
            client.get(end).await.text();
            steps.go_on.notify_one();
            let slow = slow.await.unwrap();
            assert_eq!(slow.text(), format!("{:?}", ErrorKind::Ended));
            assert_eq!(slow.set_cookies(), Vec::<String>::new());
            assert_eq!(client.get("/account").await.status, 401, "{end}");
            assert_ne!(client.get("/name").await.text(), "the slow one");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_count_exactly() {
    let app = App::start(|_| {}).await;
    let twin = app.twin();
    let client = app.visitor().await;
    let there = twin.client();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    at_once(60, |number| {
        let client = if number % 2 == 0 { client.clone() } else { there.clone() };
        async move { client.get("/update").await.text().len() }
    })
    .await;
    assert_eq!(client.get("/visit").await.text(), "61");
}

/// Half of an application has moved to the other framework, and has the same layer.
#[tokio::test(flavor = "multi_thread")]
async fn both_frameworks_share_the_sessions_of_one_layer() {
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let layer = build(&store, &keys, |builder| builder);
    let axum = Server::start(axum_basics().layer(layer.clone())).await;
    let actix = App::on(store, keys, layer, Steps::default(), |_| {});
    let client = actix.visitor().await;
    let there = axum.client();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    at_once(100, |number| {
        let client = if number % 2 == 0 { client.clone() } else { there.clone() };
        async move { client.get("/visit").await.text().len() }
    })
    .await;
    assert_eq!(there.get("/visit").await.text(), "101");
    there.get("/destroy").await.text();
    assert_eq!(client.get("/name").await.text(), "nobody");
}
