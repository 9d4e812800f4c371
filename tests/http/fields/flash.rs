//! `flash`: read once, then gone, whoever races for it.

use axum::{Extension, Router, extract::Path, routing::get};
use sessions::{
    Session,
    testing::{Fault, FaultyStore, Operation},
};
use sessions_tests::{Server, at_once};

use super::{Fleet, Process, Steps};
use crate::COOKIE;

#[derive(Session)]
struct Shop {
    #[session(flash)]
    notice: Option<String>,
    #[session(flash, merge = union)]
    messages: Vec<String>,
    visits: u32,
}

fn routes() -> Router {
    Router::new()
        .route("/set/{text}", get(set))
        .route("/push/{text}", get(push))
        .route("/take", get(take))
        .route("/update", get(update))
        .route("/swap/{text}", get(swap))
        .route("/messages", get(messages))
        .route("/answer/{text}", get(answer))
        .route("/visit", get(visit))
        .route("/discard", get(discard))
        .route("/late/{text}", get(late))
}

async fn set(Path(text): Path<String>, session: Session<Shop>) {
    session.write().await.set_notice(text);
}

async fn push(Path(text): Path<String>, session: Session<Shop>) {
    session.write().await.push_messages(text);
}

async fn take(session: Session<Shop>) -> String {
    session.write().await.take_notice().unwrap_or_default()
}

async fn update(session: Session<Shop>) -> sessions::Result<String> {
    Ok(session.update(|s| s.take_notice()).await?.unwrap_or_default())
}

/// Shows what is there and leaves something else.
async fn swap(Path(text): Path<String>, session: Session<Shop>) -> String {
    let shown = session.write().await.take_notice();
    // Under another guard, as by another piece of code.
    session.write().await.set_notice(text);
    shown.unwrap_or_default()
}

async fn messages(session: Session<Shop>) -> String {
    session.write().await.take_messages().join(" ")
}

/// The same with a list.
async fn answer(Path(text): Path<String>, session: Session<Shop>) -> String {
    let mut s = session.write().await;
    let shown = s.take_messages().join(" ");
    s.push_messages(text);
    shown
}

/// Shows what is there and, once it has heard what others have done meanwhile, leaves something else.
async fn late(Path(text): Path<String>, session: Session<Shop>, steps: Extension<Steps>) -> String {
    let shown = session.write().await.take_notice();
    steps.stop().await;
    session.reload().await.expect("a session");
    session.write().await.set_notice(text);
    *session.write().await.visits_mut() += 1;
    shown.unwrap_or_default()
}

async fn visit(session: Session<Shop>) {
    *session.write().await.visits_mut() += 1;
}

async fn discard(session: Session<Shop>) {
    drop(session.write().await.take_notice());
    session.discard_request_changes();
}

async fn fleet(processes: usize) -> Fleet<Shop> {
    Fleet::start(processes, routes(), "/visit").await
}

/// How many of fifty requests at once, over all processes, have got the message; and the statuses of
/// the others.
async fn race(fleet: &Fleet<Shop>, path: &'static str) -> (usize, Vec<u16>) {
    fleet.get(0, "/set/saved").await;
    let replies = at_once(50, |number| {
        let client = fleet.processes[number % fleet.processes.len()].client.copy();
        async move { client.get(path).await }
    })
    .await;
    let (got, others): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status.is_success() && reply.body == "saved");
    (got.len(), others.into_iter().map(|reply| reply.status.as_u16()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_fifty_requests_shows_a_message() {
    let fleet = fleet(1).await;
    for _ in 0..20 {
        assert_eq!(race(&fleet, "/take").await, (1, vec![200; 49]));
        assert_eq!(race(&fleet, "/update").await, (1, vec![200; 49]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_fifty_requests_to_two_processes_shows_a_message() {
    let fleet = fleet(2).await;
    for _ in 0..20 {
        assert_eq!(race(&fleet, "/update").await, (1, vec![200; 49]), "an update never fails");
        let (shown, others) = race(&fleet, "/take").await;
        assert_eq!(shown, 1);
        assert!(others.iter().all(|status| [200, 409].contains(status)), "{others:?}");
    }
}

#[tokio::test]
async fn the_process_that_takes_it_second_is_told() {
    let fleet = fleet(2).await;
    for (first, second) in [
        ("/take", "/take"),
        ("/take", "/update"),
        ("/swap/other", "/take"),
        ("/take", "/swap/other"),
    ] {
        fleet.get(0, "/set/saved").await;
        let late = fleet.overtaken(first, second).await;
        assert_eq!(late.status, 409, "{first}, {second}");
        let expected = if second == "/swap/other" { "other" } else { "" };
        assert_eq!(fleet.get(0, "/take").await, expected);
    }
}

/// Also when it learns of that before it saves, and sets the field to something else then.
#[tokio::test]
async fn the_process_that_takes_it_second_is_told_whatever_it_sets_the_field_to() {
    let fleet = fleet(2).await;
    fleet.get(0, "/set/saved").await;
    let Process { client, steps, .. } = &fleet.processes[0];
    let late = client.copy().spawn_get("/late/other");
    steps.arrived.notified().await;
    assert_eq!(fleet.get(1, "/take").await, "saved");
    steps.go_on.notify_one();
    assert_eq!(late.await.expect("no panic").status, 409);
    assert_eq!(fleet.get(0, "/take").await, "", "nothing of it is saved");
}

#[tokio::test]
async fn a_message_that_is_set_meanwhile_is_kept() {
    let fleet = fleet(2).await;
    fleet.get(0, "/set/first").await;
    let late = fleet.overtaken("/set/second", "/take").await;
    assert!(late.status.is_success());
    assert_eq!(fleet.get(1, "/take").await, "second");

    // What was replaced before we came to show it is not shown either: the client is told.
    fleet.get(0, "/set/first").await;
    assert_eq!(fleet.overtaken("/take", "/set/second").await.status, 409);
    assert_eq!(fleet.get(1, "/take").await, "second");

    // There was nothing to take.
    assert_eq!(fleet.overtaken("/take", "/set/third").await.text(), "");
    assert_eq!(fleet.overtaken("/swap/fifth", "/set/fourth").await.status, 409);
    assert_eq!(fleet.get(1, "/take").await, "fourth");
    assert_eq!(fleet.overtaken("/swap/fifth", "/set/sixth").await.text(), "");
    assert_eq!(fleet.get(1, "/take").await, "fifth", "the later save wins");
}

#[tokio::test]
async fn a_list_keeps_what_others_append() {
    let fleet = fleet(2).await;
    fleet.get(0, "/push/a").await;
    assert!(fleet.overtaken("/push/b", "/push/c").await.status.is_success());
    assert_eq!(fleet.overtaken("/messages", "/push/d").await.text(), "a c b");
    assert_eq!(fleet.overtaken("/answer/e", "/push/f").await.text(), "d");
    assert_eq!(fleet.overtaken("/messages", "/messages").await.status, 409);
    fleet.get(0, "/push/g").await;
    assert_eq!(fleet.overtaken("/answer/h", "/messages").await.status, 409);
    assert_eq!(fleet.overtaken("/answer/h", "/answer/i").await.text(), "");
    assert_eq!(fleet.get(1, "/messages").await, "i h");
}

#[tokio::test]
async fn a_request_that_is_not_saved_gives_the_message_back() {
    let fleet = fleet(1).await;
    fleet.get(0, "/set/saved").await;
    fleet.get(0, "/discard").await;
    let client = &fleet.processes[0].client;
    for path in ["/take", "/update", "/swap/other"] {
        fleet.store.fail_next(Operation::Replace, 1);
        assert_eq!(client.get(path).await.status, 503, "{path}");
    }
    assert_eq!(fleet.get(0, "/take").await, "saved");
    assert_eq!(fleet.get(0, "/take").await, "");
}

/// A request that was told 503 may have taken the message, if the store had carried out the save; no message is
/// shown twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_shows_no_message_twice() {
    for seed in 0..20 {
        let faults = FaultyStore::new(sessions::MemoryStore::new(), seed)
            .with_fault(Fault::Refused, 100)
            .with_fault(Fault::AnswerLost, 100)
            .with_fault(Fault::Slow, 300);
        let keys = sessions::Keys::generate();
        let layer = || sessions::SessionLayer::<Shop>::new(faults.clone(), keys.clone());
        let servers = [
            Server::start(routes().layer(layer())).await,
            Server::start(routes().layer(layer())).await,
        ];
        let first = servers[0].client();
        while first.cookie(COOKIE).is_none() || !first.get("/set/saved").await.status.is_success() {
            first.get("/visit").await;
        }
        let replies = at_once(20, |number| {
            let client = servers[number % 2].client();
            client.set_cookie(COOKIE, first.cookie(COOKIE).as_deref());
            let path = ["/take", "/update"][number / 2 % 2];
            async move { client.get(path).await }
        })
        .await;
        let shown = replies.iter().filter(|r| r.status.is_success() && r.body == "saved").count();
        assert!(shown <= 1, "seed {seed}: {shown} have shown it");
        let failed = replies.iter().filter(|reply| reply.status == 503).count();
        assert!(shown == 1 || failed > 0, "seed {seed}: it is lost, and everybody content");
    }
}

#[tokio::test]
async fn looking_for_messages_writes_nothing_when_there_are_none() {
    let fleet = fleet(1).await;
    for path in ["/take", "/messages", "/take"] {
        assert_eq!(fleet.get(0, path).await, "");
    }
    assert_eq!(fleet.store.calls().replace, 0);
    fleet.get(0, "/set/saved").await;
    fleet.get(0, "/take").await;
    fleet.store.reset();
    fleet.get(0, "/take").await;
    assert_eq!(fleet.store.calls().replace, 0);
    assert_eq!(fleet.processes[0].layer.sessions_in_use(), 0);
}
