//! A change in all sessions of a user.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use sessions::{
    Created, ErrorKind, Keys, MemoryStore, Record, Replaced, Session, SessionLayer, Store,
    StoreError, StoreKey, UserIndex, UserSessions,
    store::DynUserIndex,
    testing::{Operation, SpyStore},
};
use sessions_tests::{Client, Server, at_once, hand_on};
use tokio::sync::Notify;

use crate::COOKIE;

#[derive(Session)]
struct Employee {
    #[session(user)]
    user: Option<u64>,
    is_admin: bool,
    #[session(merge = add)]
    visits: u32,
}

async fn hire(Path(user): Path<u64>, session: Session<Employee>) -> sessions::Result<()> {
    session.write().await.set_is_admin(true);
    session.login(user).await
}

async fn show(session: Session<Employee>) -> String {
    let s = session.read().await;
    format!("{} {}", s.is_admin, s.visits)
}

async fn count(session: Session<Employee>) {
    *session.write().await.visits_mut() += 1;
}

async fn renew(session: Session<Employee>) -> sessions::Result<()> {
    session.renew_id().await
}

/// Has a guard of the session for as long as nobody says otherwise.
async fn hold(State(gates): State<Arc<Gates>>, session: Session<Employee>) {
    let _guard = session.write().await;
    gates.held.notify_one();
    gates.goes_on.notified().await;
}

async fn dismiss(sessions: UserSessions<Employee>) -> sessions::Result<String> {
    let outcome = sessions.update_each(&7, |s| s.set_is_admin(false)).await?;
    let failed: Vec<ErrorKind> = outcome.failed.iter().map(|(_, error)| error.kind()).collect();
    Ok(format!("{} {failed:?}", outcome.updated))
}

#[derive(Default)]
struct Gates {
    held: Notify,
    goes_on: Notify,
}

async fn process(store: impl Store, keys: &Keys) -> (Server, Arc<Gates>) {
    let gates = Arc::new(Gates::default());
    let builder = SessionLayer::<Employee>::builder(store, keys.clone()).in_another_process();
    let layer = builder.with_lock_timeout(Duration::from_millis(200)).build().unwrap();
    let routes = Router::new()
        .route("/hire/{user}", get(hire))
        .route("/show", get(show))
        .route("/count", get(count))
        .route("/renew", get(renew))
        .route("/hold", get(hold))
        .route("/dismiss", get(dismiss))
        .with_state(gates.clone());
    (Server::start(routes.layer(layer)).await, gates)
}

async fn hired(server: &Server, user: u64) -> Client {
    let client = server.client();
    assert_eq!(client.get(&format!("/hire/{user}")).await.status, 200);
    client
}

#[tokio::test]
async fn every_session_of_the_user_is_changed_wherever_it_is_used_and_no_other() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let (one, _) = process(store.clone(), &keys).await;
    let (other, _) = process(store.clone(), &keys).await;
    let clients = [hired(&one, 7).await, hired(&one, 7).await, hired(&other, 7).await];
    let stranger = hired(&other, 8).await;
    for client in &clients {
        client.get("/count").await.text();
    }
    let before: Vec<_> = expiries(&store).await;
    assert_eq!(one.client().get("/dismiss").await.text(), "3 []");
    assert_eq!(expiries(&store).await, before, "it is no use of them");
    for client in &clients {
        assert_eq!(client.get("/show").await.text(), "false 1");
    }
    assert_eq!(stranger.get("/show").await.text(), "true 0");
    // There is nothing left to change, and that is no failure.
    assert_eq!(other.client().get("/dismiss").await.text(), "3 []");
}

async fn expiries(store: &MemoryStore) -> Vec<std::time::SystemTime> {
    let found = sessions::UserIndex::sessions_of(store, "Employee:7").await.unwrap();
    let mut expiries: Vec<_> = found.into_iter().map(|(_, record)| record.expires_at).collect();
    expiries.sort();
    expiries
}

/// Two processes count in the sessions, and exchange their ids, while a third one changes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_meanwhile_is_kept() {
    const ROUNDS: usize = 20;
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let servers = [
        process(store.clone(), &keys).await.0,
        process(store.clone(), &keys).await.0,
        process(store, &keys).await.0,
    ];
    for round in 0..ROUNDS {
        let client = hired(&servers[0], 7).await;
        let there = servers[1].client();
        there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        let third = servers[2].client();
        let clients = Arc::new([client, there, third]);
        let counted = clients.clone();
        at_once(9, move |number| {
            let clients = counted.clone();
            async move {
                let [client, there, third] = &*clients;
                match number {
                    0..4 => client.copy().get("/count").await.status,
                    4..8 => there.copy().get("/count").await.status,
                    _ => third.get("/dismiss").await.status,
                }
            }
        })
        .await;
        assert_eq!(clients[0].get("/show").await.text(), "false 8", "round {round}");
        let [client, _, third] = &*clients;
        let (client, third) = (client.copy(), third.copy());
        let (renewed, dismissed) = tokio::join!(client.get("/renew"), third.get("/dismiss"));
        assert_eq!((renewed.status.as_u16(), dismissed.status.as_u16()), (200, 200));
        assert_eq!(client.get("/show").await.text(), "false 8");
    }
}

#[tokio::test]
async fn what_was_not_reached_stands_in_the_result() {
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let (server, gates) = process(store.clone(), &keys).await;
    let (held, free) = (hired(&server, 7).await, hired(&server, 7).await);
    let holding = tokio::spawn({
        let held = held.copy();
        async move { held.get("/hold").await.status }
    });
    gates.held.notified().await;
    assert_eq!(server.client().get("/dismiss").await.text(), "1 [Locked]");
    gates.goes_on.notify_one();
    assert_eq!(holding.await.unwrap(), 200);
    assert_eq!(held.get("/show").await.text(), "true 0");
    assert_eq!(free.get("/show").await.text(), "false 0");

    store.fail(Operation::Replace);
    let told = server.client().get("/dismiss").await.text().to_string();
    assert_eq!(told, "1 [Store]", "one has nothing to save");
    store.heal(Operation::Replace);
    assert_eq!(server.client().get("/dismiss").await.text(), "2 []");
    assert_eq!(held.get("/show").await.text(), "false 0");
}

/// Whenever somebody looks one more session of the user begins.
struct Endless(MemoryStore);

impl Store for Endless {
    hand_on!(0: load, create, replace, touch, delete);

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for Endless {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let found = self.0.sessions_of(user).await?;
        if let Some((_, record)) = found.first() {
            let begins = StoreKey::from_bytes(std::array::from_fn(|_| found.len() as u8));
            assert_eq!(self.0.create(&begins, record).await?, Created::Done);
        }
        self.0.sessions_of(user).await
    }
}

#[tokio::test]
async fn sessions_that_go_on_to_begin_are_told_of_and_end_nothing() {
    let keys = Keys::generate();
    let store = MemoryStore::new();
    let (server, _) = process(Endless(store.clone()), &keys).await;
    let _client = hired(&server, 7).await;
    // Two in the first round and one more in each of the other nine; then the next one.
    assert_eq!(server.client().get("/dismiss").await.text(), "11 [Contended]");
    assert_eq!(UserIndex::sessions_of(&store, "Employee:7").await.unwrap().len(), 12);
}

/// What a later build has saved keeps its rights unless the caller is told.
#[tokio::test]
async fn a_session_that_only_a_later_build_can_read_was_not_reached() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let (server, _) = process(store.clone(), &keys).await;
    let _ours = hired(&server, 7).await;
    let _theirs = hired(&server, 7).await;
    let found = sessions::UserIndex::sessions_of(&store, "Employee:7").await.unwrap();
    let (key, mut record) = found[0].clone();
    // No format of a payload begins with this number so far.
    (record.version, record.payload) = (record.version + 1, [u8::MAX][..].into());
    let replaced = store.replace(&key, &record, record.version - 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    let (other, _) = process(store.clone(), &keys).await;
    assert_eq!(other.client().get("/dismiss").await.text(), "1 [Store]");
    assert_eq!(store.load(&key).await.unwrap(), Some(record), "and is left alone");
}
