//! Several processes on one store: for sessions, a layer each.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use sessions::{
    Conflict, Created, Keys, MemoryStore, Session, SessionLayer, SessionLayerBuilder, Store,
    store::AllSessions,
    testing::{Operation, SpyStore},
};
use sessions_tests::{Client, Server, Steps, at_once, eventually};

const COOKIE: &str = "__Host-id";

#[derive(Session)]
struct Shared {
    #[session(merge = add)]
    visits: u32,
    #[session(merge = union)]
    tags: BTreeSet<String>,
    #[session(merge = union)]
    log: Vec<u32>,
    #[session(merge = longest)]
    motto: String,
    plain: u32,
    others: [u32; 4],
}

fn longest(_base: &str, theirs: &str, ours: &str) -> String {
    if theirs.len() > ours.len() { theirs } else { ours }.to_string()
}

struct Process {
    server: Server,
    layer: SessionLayer<Shared>,
    steps: Steps,
}

/// Processes on one store, and a client for each that all have the same session.
struct Fleet {
    processes: Vec<Process>,
    clients: Vec<Client>,
    store: SpyStore<MemoryStore>,
}

type Builder = SessionLayerBuilder<Shared>;

impl Fleet {
    async fn start(processes: usize) -> Self {
        Self::with(processes, |builder| builder).await
    }

    async fn with(count: usize, settings: impl Fn(Builder) -> Builder) -> Self {
        let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
        let mut processes = Vec::new();
        for _ in 0..count {
            let layer = settings(SessionLayer::builder(store.clone(), keys.clone())).build();
            let (layer, steps) = (layer.expect("possible settings"), Steps::default());
            let app = routes().with_state(steps.clone()).layer(layer.clone());
            processes.push(Process { server: Server::start(app).await, layer, steps });
        }
        let mut fleet = Self { processes, clients: Vec::new(), store };
        fleet.begin().await;
        fleet
    }

    /// A new session.
    async fn begin(&mut self) {
        let first = self.processes[0].server.client();
        first.get("/plain/1").await.text();
        self.clients = self.processes.iter().map(|process| process.server.client()).collect();
        for client in &self.clients {
            client.set_cookie(COOKIE, first.cookie(COOKIE).as_deref());
        }
        self.store.reset();
    }

    async fn get(&self, process: usize, path: &str) -> String {
        self.clients[process].get(path).await.text().to_string()
    }

    /// Requests `here` in the first process, which reads the session, waits for the end of `there`
    /// in the second, and writes then.
    async fn overtaken(&self, here: &str, there: &str) -> sessions_tests::Reply {
        let slow = self.clients[0].copy().spawn_get(&format!("/slow{here}"));
        self.processes[0].steps.arrived.notified().await;
        self.get(1, there).await;
        self.processes[0].steps.go_on.notify_one();
        slow.await.expect("no panic")
    }

    async fn all_quiet(&self) {
        for process in &self.processes {
            process.layer.wait_for_background_saves().await;
            eventually("no session is in use", async || process.layer.sessions_in_use() == 0).await;
        }
    }
}

fn routes() -> Router<Steps> {
    Router::new()
        .route("/show", get(show))
        .route("/visit", get(visit))
        .route("/update", get(update))
        .route("/lock", get(lock))
        .route("/destroy", get(destroy))
        .route("/renew", get(renew))
        .route("/{field}/{value}", get(set))
        .route("/other/{index}/{value}", get(other))
        .route("/slow/{field}/{value}", get(slow))
        .route("/hold", get(hold))
}

async fn show(session: Session<Shared>) -> String {
    let s = session.read().await;
    format!("{} {:?} {:?} {} {}", s.visits(), s.tags(), s.log(), s.motto(), s.plain())
}

async fn visit(session: Session<Shared>) {
    let mut s = session.write().await;
    let visits = s.visits();
    tokio::task::yield_now().await;
    s.set_visits(visits + 1);
}

async fn update(session: Session<Shared>) -> sessions::Result<()> {
    session.update(|s| *s.plain_mut() += 1).await
}

async fn lock(session: Session<Shared>) -> sessions::Result<String> {
    let mut s = session.lock().await?;
    let plain = s.plain();
    tokio::task::yield_now().await;
    s.set_plain(plain + 1);
    Ok(sessions::LockGuard::fencing_token(&s).expect("a stored session").to_string())
}

async fn destroy(session: Session<Shared>) -> sessions::Result<()> {
    session.destroy().await
}

async fn renew(session: Session<Shared>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn write(session: &Session<Shared>, field: &str, value: u32) {
    let mut s = session.write().await;
    match field {
        "visits" => s.set_visits(value),
        "tag" => _ = s.tags_mut().insert(value.to_string()),
        "log" => s.log_mut().push(value),
        "motto" => s.set_motto("x".repeat(value as usize)),
        _ => s.set_plain(value),
    };
}

async fn set(Path((field, value)): Path<(String, u32)>, session: Session<Shared>) {
    write(&session, &field, value).await;
}

async fn other(Path((index, value)): Path<(usize, u32)>, session: Session<Shared>) {
    let mut s = session.write().await;
    s.others_mut()[index] = value;
}

/// Reads, waits to be let go on, and writes.
async fn slow(
    State(steps): State<Steps>,
    Path((field, value)): Path<(String, u32)>,
    session: Session<Shared>,
) -> String {
    session.read().await.visits();
    steps.stop().await;
    write(&session, &field, value).await;
    format!("{:?}", session.save().await.map_err(|error| error.kind()))
}

/// What a holder would have handed to others last.
static LOCK_VERSION: AtomicU64 = AtomicU64::new(0);

/// Takes the lock and writes, waits to be let go on, and lets go of it.
async fn hold(State(steps): State<Steps>, session: Session<Shared>) -> String {
    let locked = session.lock().await;
    let Ok(mut s) = locked else { return format!("{:?}", locked.map(drop)) };
    s.set_plain(100);
    let token = |s| sessions::LockGuard::fencing_token(s).expect("a stored session");
    let version = token(&s);
    steps.stop().await;
    // Renewed or lost: never a token that another request was given.
    let later = token(&s);
    assert!(version <= later);
    LOCK_VERSION.store(later, Ordering::SeqCst);
    let plain = s.plain() + 1;
    s.set_plain(plain);
    drop(s);
    format!("{:?}", session.save().await.map_err(|error| error.kind()))
}

#[tokio::test]
async fn a_field_that_says_how_is_merged() {
    let fleet = Fleet::start(2).await;
    fleet.get(0, "/visits/10").await;
    assert_eq!(fleet.overtaken("/visits/15", "/visits/12").await.text(), "Ok(())");
    fleet.overtaken("/tag/1", "/tag/2").await.text();
    fleet.overtaken("/log/1", "/log/2").await.text();
    fleet.overtaken("/motto/3", "/motto/5").await.text();
    fleet.overtaken("/motto/4", "/plain/9").await.text();
    for process in [0, 1] {
        assert_eq!(fleet.get(process, "/show").await, r#"17 {"1", "2"} [2, 1] xxxx 9"#);
    }
}

#[tokio::test]
async fn without_a_merge_the_later_save_wins_or_is_refused() {
    let fleet = Fleet::start(2).await;
    assert_eq!(fleet.overtaken("/plain/5", "/plain/6").await.text(), "Ok(())");
    assert_eq!(fleet.get(1, "/show").await, "0 {} []  5");

    let strict = Fleet::with(2, |builder| builder.with_conflict_policy(Conflict::Reject)).await;
    let reply = strict.overtaken("/plain/5", "/plain/6").await;
    assert_eq!(reply.status, 409);
    assert_eq!(strict.get(0, "/show").await, "0 {} []  6");
    assert_eq!(strict.overtaken("/plain/7", "/plain/7").await.text(), "Ok(())", "no conflict");
    assert_eq!(strict.overtaken("/visits/2", "/visits/3").await.text(), "Ok(())", "merged");
    assert_eq!(strict.get(0, "/show").await, "5 {} []  7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_updates_from_eight_processes_add_a_thousand() {
    let fleet = Arc::new(Fleet::start(8).await);
    let statuses = at_once(1_000, |number| {
        let client = fleet.clients[number % 8].copy();
        async move { client.get("/update").await.status.as_u16() }
    });
    assert_eq!(statuses.await, vec![200; 1_000]);
    assert_eq!(fleet.get(3, "/show").await, "0 {} []  1001");
    fleet.all_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_plain_increments_from_eight_processes_add_a_thousand() {
    let fleet = Arc::new(Fleet::start(8).await);
    let statuses = at_once(1_000, |number| {
        let client = fleet.clients[number % 8].copy();
        async move { client.get("/visit").await.status.as_u16() }
    });
    assert_eq!(statuses.await, vec![200; 1_000]);
    assert_eq!(fleet.get(5, "/show").await, "1000 {} []  1");
    fleet.all_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_increments_under_lock_from_eight_processes_add_a_thousand() {
    let fleet = Arc::new(Fleet::start(8).await);
    let statuses = at_once(1_000, |number| {
        let client = fleet.clients[number % 8].copy();
        async move { client.get("/lock").await.status.as_u16() }
    });
    assert_eq!(statuses.await, vec![200; 1_000]);
    assert_eq!(fleet.get(7, "/show").await, "0 {} []  1001");
    fleet.all_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_set_different_fields_keep_both_in_a_thousand_rounds() {
    let fleet = Arc::new(Fleet::start(2).await);
    for round in 2..1_002_u32 {
        at_once(2, |process| {
            let client = fleet.clients[process].copy();
            let field = ["plain", "motto"][process];
            async move { client.get(&format!("/{field}/{}", round % 50)).await.text().len() }
        })
        .await;
        let shown = fleet.get(round as usize % 2, "/show").await;
        let motto = "x".repeat(round as usize % 50);
        assert_eq!(
            shown,
            format!("0 {{}} []  {}", round % 50).replace("[] ", &format!("[] {motto}"))
        );
    }
}

#[tokio::test]
async fn a_request_that_is_refused_is_refused_whole() {
    async fn both(State(steps): State<Steps>, session: Session<Shared>) {
        {
            let mut s = session.write().await;
            s.set_plain(5);
            s.set_motto("half");
        }
        steps.stop().await;
    }
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let steps = Steps::default();
    let app = || {
        let builder = SessionLayer::<Shared>::builder(store.clone(), keys.clone());
        let layer =
            builder.with_conflict_policy(Conflict::Reject).build().expect("possible settings");
        routes().route("/both", get(both)).with_state(steps.clone()).layer(layer)
    };
    let (one, two) = (Server::start(app()).await, Server::start(app()).await);
    let (here, there) = (one.client(), two.client());
    here.get("/plain/1").await.text();
    there.set_cookie(COOKIE, here.cookie(COOKIE).as_deref());
    let slow = here.copy().spawn_get("/both");
    steps.arrived.notified().await;
    there.get("/plain/6").await.text();
    // Another request of the same process meets the conflict first, and saves its own.
    here.get("/visits/3").await.text();
    steps.go_on.notify_one();
    assert_eq!(slow.await.unwrap().status, 409);
    assert_eq!(there.get("/show").await.text(), "3 {} []  6");
}

#[tokio::test]
async fn an_update_that_fails_leaves_no_trace() {
    async fn refuses(session: Session<Shared>) -> String {
        let refused = session
            .transaction(|s| {
                s.set_plain(77);
                s.set_visits(77);
                Err::<(), Box<dyn std::error::Error + Send + Sync>>("not now".into())
            })
            .await;
        assert_eq!(refused.unwrap_err().to_string(), "not now");
        let s = session.read().await;
        format!("{} {} {}", s.plain(), s.visits(), session.has_unsaved_changes())
    }
    let store = SpyStore::new(MemoryStore::new());
    let layer = SessionLayer::<Shared>::new(store.clone(), Keys::generate());
    let app = Router::new()
        .route("/refuses", get(refuses))
        .merge(routes().with_state(Steps::default()))
        .layer(layer);
    let server = Server::start(app).await;
    let client = server.client();
    assert_eq!(client.get("/refuses").await.text(), "0 0 false");
    assert_eq!(client.cookie(COOKIE), None, "nothing begins");
    client.get("/update").await.text();
    assert!(client.cookie(COOKIE).is_some(), "an update begins a session");
    store.reset();
    assert_eq!(client.get("/refuses").await.text(), "1 0 false");
    assert_eq!(store.calls().replace, 0);
    assert_eq!(client.get("/show").await.text(), "0 {} []  1");
}

#[tokio::test]
async fn an_update_runs_again_on_what_another_process_has_saved() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    async fn counts(State(steps): State<Steps>, session: Session<Shared>) -> String {
        session.read().await.plain();
        steps.stop().await;
        let seen = session
            .update(|s| {
                RUNS.fetch_add(1, Ordering::SeqCst);
                s.set_motto("updated");
                s.plain()
            })
            .await;
        let unchanged = session.update(|s| s.plain()).await;
        format!("{seen:?} {unchanged:?}")
    }
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let steps = Steps::default();
    let app = || {
        let layer = SessionLayer::<Shared>::new(store.clone(), keys.clone());
        routes().route("/counts", get(counts)).with_state(steps.clone()).layer(layer)
    };
    let (one, two) = (Server::start(app()).await, Server::start(app()).await);
    let (here, there) = (one.client(), two.client());
    here.get("/plain/1").await.text();
    there.set_cookie(COOKIE, here.cookie(COOKIE).as_deref());
    let counting = here.spawn_get("/counts");
    steps.arrived.notified().await;
    there.get("/plain/2").await.text();
    steps.go_on.notify_one();
    assert_eq!(counting.await.unwrap().text(), "Ok(2) Ok(2)");
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
    assert_eq!(there.get("/show").await.text(), "0 {} [] updated 2");
}

#[tokio::test]
async fn an_update_after_the_end_is_told_so() {
    let fleet = Fleet::start(2).await;
    let slow = fleet.overtaken("/plain/5", "/destroy").await;
    assert_eq!(slow.text(), "Err(Ended)");
    let other = fleet.clients[0].get("/update").await;
    other.text();
    assert!(other.set_cookies().len() == 1, "it began a session of its own");
}

#[tokio::test]
async fn nothing_that_collides_costs_nothing() {
    let fleet = Fleet::start(2).await;
    let calls = |path| {
        let fleet = &fleet;
        async move {
            fleet.store.reset();
            fleet.get(0, path).await;
            fleet.all_quiet().await;
            let calls = fleet.store.calls();
            (calls.load, calls.create, calls.replace, calls.touch, calls.delete)
        }
    };
    assert_eq!(calls("/show").await, (1, 0, 0, 0, 0));
    assert_eq!(calls("/visit").await, (1, 0, 1, 0, 0));
    assert_eq!(calls("/update").await, (1, 0, 1, 0, 0));
    assert_eq!(calls("/lock").await, (1, 0, 2, 0, 0));
}

#[tokio::test]
async fn while_one_process_has_the_lock_no_other_saves_and_all_read() {
    let fleet = Fleet::start(3).await;
    let holding = tokio::spawn({
        let client = fleet.clients[0].copy();
        async move { client.get("/hold").await }
    });
    fleet.processes[0].steps.arrived.notified().await;
    assert_eq!(fleet.get(1, "/show").await, "0 {} []  1", "the lock's writes are not out yet");
    let waiting = ["/plain/7", "/update", "/lock"].map(|path| {
        let client = fleet.clients[1].copy();
        client.spawn_get(path)
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(waiting.iter().all(|request| !request.is_finished()), "one got in");
    fleet.processes[0].steps.go_on.notify_one();
    assert_eq!(holding.await.unwrap().text(), "Ok(())");
    for request in waiting {
        request.await.unwrap().text();
    }
    // Whatever the order of the three was, the two that add one have added it.
    let plain: u32 = fleet.get(2, "/show").await.rsplit(' ').next().unwrap().parse().unwrap();
    assert!([7, 8, 9, 103].contains(&plain), "{plain}");
    fleet.all_quiet().await;
}

#[tokio::test]
async fn a_logout_does_not_wait_for_a_lock_and_is_not_undone_by_it() {
    let fleet = Fleet::start(2).await;
    let holding = tokio::spawn({
        let client = fleet.clients[0].copy();
        async move { client.get("/hold").await }
    });
    fleet.processes[0].steps.arrived.notified().await;
    fleet.get(1, "/destroy").await;
    fleet.processes[0].steps.go_on.notify_one();
    assert_eq!(holding.await.unwrap().text(), "Err(Ended)");
    assert!(fleet.store.store().is_empty());
    fleet.all_quiet().await;
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_taken_over_and_its_holder_fenced_off() {
    let lease = Duration::from_millis(60);
    let fleet = Fleet::with(2, |builder| builder.with_lease_time(lease)).await;
    let holding = tokio::spawn({
        let client = fleet.clients[0].copy();
        async move { client.get("/hold").await }
    });
    fleet.processes[0].steps.arrived.notified().await;
    // It lives on for longer than the lease time, because it is renewed.
    let renewed = fleet.store.calls().replace;
    eventually("the lease is renewed", async || fleet.store.calls().replace > renewed + 4).await;
    // From now on the first process is cut off; the second is not.
    fleet.store.fail(Operation::Replace);
    tokio::time::sleep(lease * 2).await;
    fleet.store.heal(Operation::Replace);
    let taken_over = tokio::spawn({
        let client = fleet.clients[1].copy();
        async move { client.get("/lock").await }
    });
    // The renewals go on now, and may be first; then the second one waits for the end.
    let taken_over = tokio::time::timeout(lease * 3, taken_over).await;
    fleet.processes[0].steps.go_on.notify_one();
    let outcome = holding.await.unwrap();
    match taken_over {
        Ok(reply) => {
            let version: u64 = reply.unwrap().text().parse().unwrap();
            assert_eq!(outcome.status, 409);
            assert_eq!(fleet.get(1, "/show").await, "0 {} []  2");
            assert!(LOCK_VERSION.load(Ordering::SeqCst) < version, "the late one had its token");
        }
        Err(_) => {
            assert_eq!(outcome.text(), "Ok(())");
        }
    }
    fleet.all_quiet().await;
}

#[tokio::test]
async fn the_others_go_on_when_a_process_dies_with_the_lock() {
    let lease = Duration::from_millis(90);
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let steps = Steps::default();
    let app = || {
        let builder = SessionLayer::<Shared>::builder(store.clone(), keys.clone());
        let layer = builder.with_lease_time(lease).build().expect("possible settings");
        routes().with_state(steps.clone()).layer(layer)
    };
    let dying = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // Built in there too, or what is left to be saved would be saved where the layer was built.
    let dying_app = {
        let _inside = dying.enter();
        app()
    };
    let dead = dying.spawn(Server::start(dying_app)).await.unwrap();
    let living = Server::start(app()).await;
    let (here, there) = (dead.client(), living.client());
    there.get("/plain/1").await.text();
    here.set_cookie(COOKIE, there.cookie(COOKIE).as_deref());
    let hanging = here.spawn_get("/hold");
    steps.arrived.notified().await;
    // All of its tasks are gone, and none is left to give anything back.
    dying.shutdown_background();
    hanging.abort();
    there.get("/update").await.text();
    assert_eq!(there.get("/show").await.text(), "0 {} []  2");
    there.get("/lock").await.text();
    assert_eq!(there.get("/show").await.text(), "0 {} []  3");
}

/// Plays a slow request in the first process around something in the second, a thousand times;
/// `check` gets the slow one's answer.
async fn a_thousand_rounds(
    path: &str,
    check: impl AsyncFn(&Fleet, &sessions_tests::Client, sessions_tests::Reply),
) {
    let mut fleet = Fleet::start(2).await;
    fleet.get(0, "/destroy").await;
    for _ in 0..1_000 {
        fleet.begin().await;
        let slow = tokio::spawn({
            let client = fleet.clients[0].copy();
            async move { client.get("/slow/plain/5").await }
        });
        fleet.processes[0].steps.arrived.notified().await;
        // At the same time: now the one is first, now the other.
        let there = fleet.clients[1].clone();
        let (reply, ()) = tokio::join!(there.get(path), async {
            fleet.processes[0].steps.go_on.notify_one();
        });
        let slow = slow.await.unwrap();
        assert!(reply.status.is_success(), "{reply:?}");
        assert_eq!(slow.set_cookies(), Vec::<String>::new(), "it was handed a cookie");
        check(&fleet, &there, slow).await;
    }
    fleet.all_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_in_one_process_is_not_undone_by_a_slow_request_in_another() {
    a_thousand_rounds("/destroy", async |fleet, client, slow| {
        assert!(["Ok(())", "Err(Ended)"].contains(&slow.text()), "{slow:?}");
        assert!(fleet.store.store().is_empty(), "a session is back");
        assert_eq!(client.cookie(COOKIE), None);
        assert_eq!(fleet.get(0, "/show").await, "0 {} []  0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_in_one_process_and_a_slow_request_in_another_lose_nothing() {
    a_thousand_rounds("/renew", async |_, client, slow| {
        // What it was told is true: the successor has it, or it was refused.
        let shown = client.get("/show").await;
        match slow.text() {
            "Ok(())" => assert_eq!(shown.text(), "0 {} []  5"),
            "Err(Ended)" => assert_eq!(shown.text(), "0 {} []  1"),
            other => panic!("{other}"),
        }
        client.get("/destroy").await.text();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_in_one_process_never_undoes_a_logout_in_another() {
    let mut fleet = Fleet::start(2).await;
    fleet.get(0, "/destroy").await;
    // What renewals leave under the old ids. A logout of one that is over may take that along.
    let mut left = 0;
    for _ in 0..1_000 {
        fleet.begin().await;
        let (renewing, ending) = (fleet.clients[0].copy(), fleet.clients[1].copy());
        let (renewed, ended) = tokio::join!(renewing.get("/renew"), ending.get("/destroy"));
        assert!(ended.status.is_success());
        match (renewed.status.as_u16(), renewed.set_cookies().len()) {
            // It was first: then the logout was one of an id that was over.
            (200, 1) => {
                renewing.get("/destroy").await.text();
                let more = fleet.store.store().len() - left;
                assert!(more <= 1, "{more} records are left");
                left += more;
            }
            // It came too late, or just in the middle.
            (200 | 409, 0) => assert_eq!(fleet.store.store().len(), left, "a session is back"),
            _ => panic!("{renewed:?}"),
        }
    }
}

/// A failover to a replica that lacks the last save; and another process goes on from there, up to the version that
/// this one has in use.
#[tokio::test]
async fn a_store_that_went_back_and_came_to_the_same_version_again_is_believed() {
    let fleet = Fleet::start(2).await;
    let store = fleet.store.store();
    let mut at_first = None;
    let keep = |key, record| {
        at_first = Some((key, record));
        ControlFlow::Break(())
    };
    store.for_each(keep).await.unwrap();
    let (key, at_first) = at_first.expect("a session");
    let slow = tokio::spawn({
        let client = fleet.clients[0].copy();
        async move { client.get("/slow/motto/2").await }
    });
    fleet.processes[0].steps.arrived.notified().await;
    fleet.get(0, "/visits/5").await;

    assert!(store.delete(&key).await.unwrap());
    assert_eq!(store.create(&key, &at_first).await.unwrap(), Created::Done);
    fleet.get(1, "/log/7").await;
    assert_eq!(fleet.get(0, "/show").await, "0 {} [7]  1");
    fleet.get(0, "/tag/3").await;
    for process in [0, 1] {
        assert_eq!(fleet.get(process, "/show").await, "0 {\"3\"} [7]  1");
    }
    fleet.processes[0].steps.go_on.notify_one();
    assert_eq!(slow.await.unwrap().text(), "Ok(())");
    assert_eq!(fleet.get(1, "/show").await, "0 {\"3\"} [7] xx 1");
}

/// While a save is on its way others save so often that its mark is gone from the record: that must
/// not be taken for a save whose answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_is_overtaken_many_times_on_its_way_is_not_given_up() {
    let (memory, keys) = (MemoryStore::new(), Keys::generate());
    let spies = [(); 2].map(|()| SpyStore::new(memory.clone()));
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for spy in &spies {
        let layer = SessionLayer::<Shared>::new(spy.clone(), keys.clone());
        let app = routes().with_state(Steps::default()).layer(layer);
        servers.push(Server::start(app).await);
        clients.push(servers[servers.len() - 1].client());
    }
    let [here, there] = &clients[..] else { panic!("there are two") };
    here.get("/plain/1").await.text();
    there.set_cookie(COOKIE, here.cookie(COOKIE).as_deref());

    // One visit is on its way to the store; its answer will be that others were faster.
    let gate = spies[0].hold(Operation::Replace);
    let visit = || here.copy().spawn_get("/visit");
    let first = visit();
    gate.wait_for_caller().await;
    for value in 0..20 {
        there.get(&format!("/log/{value}")).await.text();
    }
    // Another one finds all that before the answer.
    let second = visit();
    eventually("it has looked", async || spies[0].calls().load >= 2).await;
    gate.release();
    first.await.unwrap().text();
    second.await.unwrap().text();
    assert!(there.get("/show").await.text().starts_with("2 "));
}

#[tokio::test]
async fn a_lease_that_could_not_be_given_back_is_remembered_through_locks_that_fail() {
    // Shorter than the lease time, after which anybody could take over.
    let fleet = Fleet::with(1, |builder| builder.with_lock_timeout(Duration::from_secs(2))).await;
    let holding = tokio::spawn({
        let client = fleet.clients[0].copy();
        async move { client.get("/hold").await }
    });
    fleet.processes[0].steps.arrived.notified().await;
    fleet.store.fail(Operation::Replace);
    fleet.processes[0].steps.go_on.notify_one();
    assert_eq!(holding.await.unwrap().status, 503);
    for _ in 0..3 {
        assert_eq!(fleet.clients[0].get("/lock").await.status, 503);
    }
    fleet.store.heal(Operation::Replace);
    fleet.get(0, "/lock").await;
    fleet.all_quiet().await;
}

/// What is not stored yet is known to this process alone: its guard has no lease, and says so.
#[tokio::test]
async fn a_lock_of_what_is_not_stored_yet_has_no_fencing_token() {
    async fn tokens(session: Session<Shared>) -> sessions::Result<String> {
        let mut s = session.lock().await?;
        let first = sessions::LockGuard::fencing_token(&s);
        s.set_plain(1);
        drop(s);
        session.save().await?;
        let s = session.lock().await?;
        Ok(format!("{first:?} {}", sessions::LockGuard::fencing_token(&s).is_some()))
    }
    let layer = SessionLayer::<Shared>::new(MemoryStore::new(), Keys::generate());
    let app: Router = Router::new().route("/", get(tokens)).layer(layer);
    let server = Server::start(app).await;
    assert_eq!(server.client().get("/").await.text(), "None true");
}
