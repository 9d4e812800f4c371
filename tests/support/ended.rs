//! Logouts, and requests that wait for the end of their session, in two processes on one store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use sessions::{Keys, Session, SessionEnd, SessionLayer, Store};
use tokio::{task::JoinSet, time::timeout};

use crate::{Client, Server, eventually};

#[derive(Session)]
struct Waited {
    writes: u32,
}

/// How many wait.
type Waiting = Arc<AtomicUsize>;

async fn write(session: Session<Waited>) {
    *session.write().await.writes_mut() += 1;
}

async fn destroy(session: Session<Waited>) -> sessions::Result<()> {
    session.destroy().await
}

async fn renew(session: Session<Waited>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn wait(session: Session<Waited>, waiting: Waiting) -> String {
    if session.began_in_request() {
        return "there is no session".to_string();
    }
    let ended = session.ended();
    // As after the response: nothing of the request is kept.
    drop(session);
    waiting.fetch_add(1, SeqCst);
    format!("{:?}", ended.await)
}

async fn process(store: impl Store, keys: &Keys, interval: Duration) -> (Server, Waiting) {
    let waiting = Waiting::default();
    let builder = SessionLayer::<Waited>::builder(store, keys.clone());
    let layer = builder.with_end_check_interval(interval).in_another_process().build();
    let counted = waiting.clone();
    let routes = Router::new()
        .route("/write", get(write))
        .route("/destroy", get(destroy))
        .route("/renew", get(renew))
        .route("/wait", get(async move |session| wait(session, counted.clone()).await));
    (Server::start(routes.layer(layer.expect("possible settings"))).await, waiting)
}

/// Ends as many sessions as there are rounds, in either process, by a logout or a renewal; each has two
/// waiters in each process, which all hear of the end and of its kind, within five seconds. Waiters of a
/// session that lives, and is written to meanwhile, hear nothing.
///
/// # Panics
///
/// If a waiter does not, or hears something else.
pub async fn every_waiter_hears_of_the_end<S: Store>(
    stores: [S; 2],
    interval: Duration,
    rounds: usize,
) {
    const AT_ONCE: usize = 20;
    let keys = Keys::generate();
    let [one, other] = stores;
    let processes = [process(one, &keys, interval).await, process(other, &keys, interval).await];
    let clients = || processes.each_ref().map(|(server, _)| server.client());
    let waiting = || processes.iter().map(|(_, waiting)| waiting.load(SeqCst)).sum::<usize>();

    let [living, there] = clients();
    living.get("/write").await.text();
    share(&living, &there);
    let mut bystanders = JoinSet::new();
    for client in [&living, &there] {
        let client = client.copy();
        bystanders.spawn(async move { client.get("/wait").await.text().to_string() });
    }
    eventually("the bystanders wait", async || waiting() == 2).await;
    for first in (0..rounds).step_by(AT_ONCE) {
        let rounds: Vec<_> = (first..rounds.min(first + AT_ONCE)).collect();
        let mut waiters = JoinSet::new();
        let mut enders = Vec::new();
        let before = waiting();
        for round in &rounds {
            let clients = clients();
            clients[round % 2].get("/write").await.text();
            share(&clients[round % 2], &clients[(round + 1) % 2]);
            for client in [&clients[0], &clients[0], &clients[1], &clients[1]] {
                let (client, round) = (client.copy(), *round);
                waiters.spawn(async move { (round, client.get("/wait").await.text().to_string()) });
            }
            enders.push(clients);
        }
        eventually("all wait", async || waiting() - before == 4 * rounds.len()).await;
        assert!(waiters.try_join_next().is_none(), "none has ended");
        for (round, clients) in rounds.iter().zip(&enders) {
            let (path, _) = end(*round);
            let ender = &clients[round / 2 % 2];
            assert_eq!(ender.get(path).await.status, 200);
        }
        there.get("/write").await.text();
        let heard = timeout(Duration::from_secs(5), waiters.join_all()).await;
        for (round, how) in heard.expect("every waiter hears of the end") {
            assert_eq!(how, format!("{:?}", end(round).1), "round {round}");
        }
        assert!(bystanders.try_join_next().is_none(), "the session lives");
    }
}

/// How a round ends, and what its waiters hear.
fn end(round: usize) -> (&'static str, SessionEnd) {
    if round.is_multiple_of(5) {
        ("/renew", SessionEnd::Renewed)
    } else {
        ("/destroy", SessionEnd::Over)
    }
}

fn share(from: &Client, to: &Client) {
    to.set_cookie("__Host-id", from.cookie("__Host-id").as_deref());
}
