//! Two tasks of one request, each of which ends, renews or writes to its session: held in the middle, step by
//! step. Every other order is played in `tests/property/tasks.rs`.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Path, routing::get};
use sessions::{
    ErrorKind, Keys, Lifetime, MemoryStore, Session, SessionLayer, UserIndex,
    testing::{Fault, FaultyStore, Gate, Operation, SpyStore},
};
use sessions_tests::{Client, Server};
use tokio::task::yield_now;

use crate::COOKIE;

const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
}

type Spied = SpyStore<MemoryStore>;

/// A server whose `/tasks` is this handler, and a client that user 1 is logged in with.
async fn logged_in<F>(
    store: &Spied,
    handler: impl Fn(Session<Customer>, Spied) -> F + Clone + Send + Sync + 'static,
) -> (Server, Client)
where
    F: Future<Output = String> + Send + 'static,
{
    let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
    let own = store.clone();
    let tasks = async move |session: Session<Customer>| handler(session, own.clone()).await;
    let routes = Router::new()
        .route("/tasks", get(tasks))
        .route("/login/{user}", get(login))
        .route("/shows", get(shows));
    let server = Server::start(routes.layer(layer)).await;
    let client = server.client();
    client.get("/login/1").await.text();
    (server, client)
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.write().await.cart_mut().push(1);
    session.login(user).await
}

async fn shows(session: Session<Customer>) -> String {
    let is_long = session.lifetime() == long();
    let s = session.read().await;
    format!("{:?} {:?} {is_long}", s.user(), s.cart())
}

fn long() -> Lifetime {
    Lifetime::new().with_idle_timeout(5 * HOUR)
}

/// Lets all other tasks of this one thread do what they can.
async fn let_others_go_first() {
    for _ in 0..100 {
        yield_now().await;
    }
}

async fn users_sessions(store: &Spied) -> [usize; 2] {
    let of = async |user| store.store().sessions_of(user).await.unwrap().len();
    [of("Customer:1").await, of("Customer:2").await]
}

/// Ends the session, and has a login of user 2 wait for that; so far that it would be on its way to the store
/// if it did not see what the end has left.
async fn end_with_a_login_behind(session: &Session<Customer>, store: &Spied) -> Behind {
    let gate = store.hold(Operation::Delete);
    let (ends, logs_in) = (session.clone(), session.clone());
    let end = tokio::spawn(async move { ends.destroy().await });
    gate.wait_for_caller().await;
    let login = tokio::spawn(async move { logs_in.login(2).await });
    let_others_go_first().await;
    let creating = store.hold(Operation::Create);
    gate.release();
    end.await.unwrap().unwrap();
    Behind { login, creating }
}

struct Behind {
    login: tokio::task::JoinHandle<sessions::Result<()>>,
    creating: Gate,
}

#[tokio::test]
async fn what_is_written_between_an_end_and_a_login_that_waited_for_it_is_kept() {
    let store = Spied::new(MemoryStore::new());
    let tasks = async |session: Session<Customer>, store: Spied| {
        let Behind { login, creating } = end_with_a_login_behind(&session, &store).await;
        let writes = session.clone();
        let write = tokio::spawn(async move { writes.write().await.cart_mut().push(2) });
        let_others_go_first().await;
        creating.release();
        write.await.unwrap();
        login.await.unwrap().unwrap();
        String::new()
    };
    let (_server, client) = logged_in(&store, tasks).await;
    client.get("/tasks").await.text();
    assert_eq!(client.get("/shows").await.text(), "Some(2) [2] false");
    assert_eq!(users_sessions(&store).await, [0, 1]);
}

#[tokio::test]
async fn of_two_logins_around_an_end_the_first_leaves_no_session() {
    let store = Spied::new(MemoryStore::new());
    let tasks = async |session: Session<Customer>, store: Spied| {
        let Behind { login, creating } = end_with_a_login_behind(&session, &store).await;
        let logs_in = session.clone();
        let other = tokio::spawn(async move { logs_in.login(1).await });
        let_others_go_first().await;
        creating.release();
        other.await.unwrap().unwrap();
        login.await.unwrap().unwrap();
        let user = session.read().await.user();
        format!("{user:?}")
    };
    let (_server, client) = logged_in(&store, tasks).await;
    let user = client.get("/tasks").await.text().to_string();
    assert!(client.get("/shows").await.text().starts_with(&user));
    let expected = if user == "Some(1)" { [1, 0] } else { [0, 1] };
    assert_eq!(users_sessions(&store).await, expected, "{user} is logged in");
}

#[tokio::test]
async fn a_lifetime_that_is_set_while_the_same_user_logs_in_again_is_kept() {
    let store = Spied::new(MemoryStore::new());
    let tasks = async |session: Session<Customer>, store: Spied| {
        let gate = store.hold(Operation::Create);
        let logs_in = session.clone();
        let login = tokio::spawn(async move { logs_in.login(1).await });
        gate.wait_for_caller().await;
        session.set_lifetime(long());
        let saves = session.clone();
        let save = tokio::spawn(async move { saves.save().await });
        let_others_go_first().await;
        gate.release();
        login.await.unwrap().unwrap();
        save.await.unwrap().unwrap();
        // It is saved, says the one who has saved it.
        session.discard_request_changes();
        format!("{}", session.lifetime() == long())
    };
    let (_server, client) = logged_in(&store, tasks).await;
    assert_eq!(client.get("/tasks").await.text(), "true");
    assert_eq!(client.get("/shows").await.text(), "Some(1) [1] true");
}

#[tokio::test]
async fn a_login_of_the_same_user_keeps_the_lifetime_that_another_process_has_saved() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let process = || {
        let layer = SessionLayer::<Customer>::builder(store.clone(), keys.clone());
        layer.in_another_process().build().unwrap()
    };
    let lasts = async |session: Session<Customer>| session.set_lifetime(long());
    let other = Server::start(Router::new().route("/lasts", get(lasts)).layer(process())).await;
    let there = Arc::new(other.client());
    let asks = there.clone();
    let again = async move |session: Session<Customer>| {
        asks.get("/lasts").await.text();
        session.login(1).await
    };
    let routes = Router::new()
        .route("/login/{user}", get(login))
        .route("/again", get(again))
        .route("/shows", get(shows));
    let server = Server::start(routes.layer(process())).await;
    let client = server.client();
    client.get("/login/1").await.text();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    client.get("/again").await.text();
    assert_eq!(client.get("/shows").await.text(), "Some(1) [1] true");
}

/// What a save has on its way when it is discarded is stored, and all of it alike.
#[tokio::test]
async fn a_lifetime_that_is_discarded_while_it_is_saved_is_saved() {
    let store = Spied::new(MemoryStore::new());
    let tasks = async |session: Session<Customer>, store: Spied| {
        session.write().await.cart_mut().push(2);
        session.set_lifetime(long());
        let gate = store.hold(Operation::Replace);
        let saves = session.clone();
        let save = tokio::spawn(async move { saves.save().await });
        gate.wait_for_caller().await;
        session.discard_request_changes();
        gate.release();
        save.await.unwrap().unwrap();
        format!("{}", session.has_unsaved_changes())
    };
    let (_server, client) = logged_in(&store, tasks).await;
    assert_eq!(client.get("/tasks").await.text(), "false");
    assert_eq!(client.get("/shows").await.text(), "Some(1) [1, 2] true");
}

/// The layer's, that is, as before.
#[tokio::test]
async fn a_lifetime_that_is_set_back_while_it_is_saved_is_set_back() {
    let store = Spied::new(MemoryStore::new());
    let tasks = async |session: Session<Customer>, store: Spied| {
        session.set_lifetime(long());
        let gate = store.hold(Operation::Replace);
        let saves = session.clone();
        let save = tokio::spawn(async move { saves.save().await });
        gate.wait_for_caller().await;
        session.set_lifetime(Lifetime::new());
        gate.release();
        save.await.unwrap().unwrap();
        String::new()
    };
    let (_server, client) = logged_in(&store, tasks).await;
    client.get("/tasks").await.text();
    assert_eq!(client.get("/shows").await.text(), "Some(1) [1] false");
}

#[tokio::test]
async fn a_new_session_that_is_ended_leaves_nothing_also_if_its_first_save_was_not_answered() {
    for ends_by_login in [false, true] {
        let store = FaultyStore::new(MemoryStore::new(), 1).with_fault(Fault::AnswerLost, 1000);
        let faulty = store.clone();
        let tasks = async move |session: Session<Customer>| {
            session.write().await.cart_mut().push(1);
            let saved = session.save().await.map_err(|error| error.kind());
            assert_eq!(saved, Err(ErrorKind::Store));
            assert_eq!(faulty.store().len(), 1, "the store has it");
            faulty.heal();
            match ends_by_login {
                false => session.destroy().await.unwrap(),
                true => session.login(1).without_earlier_data().await.unwrap(),
            }
            assert_eq!(faulty.store().len(), usize::from(ends_by_login));
        };
        let layer = SessionLayer::<Customer>::new(store, Keys::generate());
        let server = Server::start(Router::new().route("/", get(tasks)).layer(layer)).await;
        assert_eq!(server.client().get("/").await.status, 200);
    }
}
