//! The SQL stores when the connection to the server ends, or a call is dropped, after any number of bytes of a call,
//! on the way there or back: what was answered is so, what was not is so as a whole or not at all, and the next call
//! gets its own answer.

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use sessions::{
    Created, Record, Store, StoreError, StoreKey, UserIndex,
    store::{DeleteExpired, Dialect, SqlStore},
};
use sessions_tests::servers::{Kind, StoreServer};
use sqlx::{Connection, mysql::MySqlPoolOptions, postgres::PgPoolOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    checks::{key, record},
    under_test,
};

const LONG: Duration = Duration::from_secs(30);

/// From one place to the next, in bytes; each call begins at another one.
const STRIDE: usize = 149;

/// To the server, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// What happens after so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The connection ends.
    Cut,
    /// The bytes stop until the call was dropped.
    Stop,
}

/// A proxy that forwards so many bytes.
struct Valve {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    left: Mutex<Option<(Way, usize, Then)>>,
    there: AtomicUsize,
    back: AtomicUsize,
    is_reached: Notify,
    goes_on: Notify,
}

impl Valve {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let of_task = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = of_task.clone();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = shared.forward(Way::There, from_client, to_server) => {}
                        () = shared.forward(Way::Back, from_server, to_client) => {}
                    }
                });
            }
        });
        Self { port, shared, task }
    }

    fn arm(&self, way: Way, bytes: usize, then: Then) {
        *self.shared.left.lock().unwrap() = Some((way, bytes, then));
    }

    fn disarm(&self) {
        *self.shared.left.lock().unwrap() = None;
        self.shared.goes_on.notify_waiters();
    }

    fn forwarded(&self, way: Way) -> usize {
        self.shared.counter(way).load(SeqCst)
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn counter(&self, way: Way) -> &AtomicUsize {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    async fn forward(&self, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let Ok(length @ 1..) = from.read(&mut bytes).await else { return };
            self.counter(way).fetch_add(length, SeqCst);
            let mut rest = &bytes[..length];
            let mut stop = None;
            let goes_on = self.goes_on.notified();
            if let Some((this, left, then)) = &mut *self.left.lock().unwrap()
                && *this == way
            {
                let now = rest.len().min(*left);
                *left -= now;
                stop = (*left == 0).then_some((now, *then));
            }
            if let Some((now, then)) = stop {
                *self.left.lock().unwrap() = None;
                let written = to.write_all(&rest[..now]).await;
                if then == Then::Stop {
                    self.is_reached.notify_one();
                }
                if then == Then::Cut || written.is_err() {
                    return;
                }
                goes_on.await;
                rest = &rest[now..];
            }
            if to.write_all(rest).await.is_err() {
                return;
            }
        }
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Load,
    Create,
    CreateExisting,
    Replace,
    ReplaceChanged,
    ReplaceMissing,
    Touch,
    Delete,
    List,
    EndAll,
    Sweep,
}

const CALLS: [Call; 11] = [
    Call::Load,
    Call::Create,
    Call::CreateExisting,
    Call::Replace,
    Call::ReplaceChanged,
    Call::ReplaceMissing,
    Call::Touch,
    Call::Delete,
    Call::List,
    Call::EndAll,
    Call::Sweep,
];

/// What a call answers: what it found, as text.
type Answer = Result<String, StoreError>;

/// The sessions that a call meets.
struct Scene {
    user: String,
    keys: Vec<StoreKey>,
    /// As it is before, and as the call makes it.
    before: Vec<Option<Record>>,
    after: Vec<Option<Record>>,
    /// What it has to answer.
    answer: String,
}

impl Call {
    /// Through a connection that nothing happens to.
    async fn prepare<D: Dialect>(self, direct: &SqlStore<D>, number: usize) -> Scene {
        let user = format!("user {number}");
        let mut first = record(1, Some(&user), &[7; 40]);
        // To the millisecond, as it comes back.
        let whole = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
        };
        (first.created_at, first.expires_at) = (whole(first.created_at), whole(first.expires_at));
        let second = first.clone().with_version(2).with_payload([8; 50]);
        let keys: Vec<_> = (0..3).map(|_| key()).collect();
        let some = vec![Some(first.clone()); 3];
        let only = |record: Option<Record>| vec![record, some[1].clone(), some[2].clone()];
        let (before, after, answer) = match self {
            Self::Load => (some.clone(), some.clone(), format!("{:?}", Some(&first))),
            Self::Create => (only(None), some.clone(), "Done".into()),
            Self::CreateExisting => (some.clone(), some.clone(), "Exists".into()),
            Self::Replace => (some.clone(), only(Some(second)), "Done".into()),
            Self::ReplaceChanged => {
                (only(Some(second.clone())), only(Some(second)), "Changed".into())
            }
            Self::ReplaceMissing => (only(None), only(None), "Missing".into()),
            Self::Touch => {
                let later = first.expires_at + Duration::from_secs(60);
                (some.clone(), only(Some(first.clone().with_expires_at(later))), "()".into())
            }
            Self::Delete => (some.clone(), only(None), "true".into()),
            Self::List => (some.clone(), some.clone(), "3".into()),
            Self::EndAll => (some.clone(), vec![None; 3], "3".into()),
            // Here an expired session is one that is there no more, seen or not: they are counted.
            Self::Sweep => (some.clone(), some.clone(), "2".into()),
        };
        for (key, record) in keys.iter().zip(&before) {
            if let Some(record) = record {
                assert_eq!(direct.create(key, record).await.unwrap(), Created::Done);
            }
        }
        if self == Self::Sweep {
            direct.delete_expired(100).await.unwrap();
            for _ in 0..2 {
                let expired = first.clone().with_expires_at(SystemTime::UNIX_EPOCH + LONG);
                assert_eq!(direct.create(&key(), &expired).await.unwrap(), Created::Done);
            }
        }
        Scene { user, keys, before, after, answer }
    }

    async fn run<D: Dialect>(self, store: &SqlStore<D>, scene: &Scene) -> Answer {
        let key = &scene.keys[0];
        let first = scene.before[1].as_ref().expect("it is there");
        let second = first.clone().with_version(2).with_payload([8; 50]);
        Ok(match self {
            Self::Load => format!("{:?}", store.load(key).await?),
            Self::Create | Self::CreateExisting => format!("{:?}", store.create(key, first).await?),
            Self::Replace | Self::ReplaceChanged | Self::ReplaceMissing => {
                format!("{:?}", store.replace(key, &second, 1).await?)
            }
            Self::Touch => {
                let later = first.expires_at + Duration::from_secs(60);
                format!("{:?}", store.touch(key, later).await?)
            }
            Self::Delete => format!("{:?}", store.delete(key).await?),
            Self::List => {
                let found = store.sessions_of(&scene.user).await?;
                assert!(found.iter().all(|(_, record)| record == first), "another's");
                found.len().to_string()
            }
            Self::EndAll => store.delete_sessions_of(&scene.user, None).await?.to_string(),
            Self::Sweep => store.delete_expired(100).await?.to_string(),
        })
    }

    /// What has become of it, as others see it. `answer` is none if the call was dropped.
    async fn check<D: Dialect>(
        self,
        direct: &SqlStore<D>,
        scene: &Scene,
        answer: Option<&Answer>,
        when: &str,
    ) {
        // In one look: a call that was dropped may be carried out meanwhile.
        let all: HashMap<_, _> =
            direct.sessions_of(&scene.user).await.unwrap().into_iter().collect();
        let found: Vec<_> = scene.keys.iter().map(|key| all.get(key).cloned()).collect();
        match answer {
            Some(Ok(answer)) => {
                assert_eq!(*answer, scene.answer, "{when}");
                assert_eq!(found, scene.after, "{when}: it was answered");
            }
            Some(Err(error)) => {
                let cause = error.source().map(ToString::to_string);
                assert!(error.is_retryable(), "{when}: {error}: {cause:?}");
                assert!(found == scene.before || found == scene.after, "{when}: {found:?}");
            }
            None => assert!(found == scene.before || found == scene.after, "{when}: {found:?}"),
        }
    }
}

/// A store whose only connection goes through a valve.
struct Rig<D: Dialect> {
    store: SqlStore<D>,
    direct: SqlStore<D>,
    valve: Valve,
}

impl<D: Dialect> Rig<D> {
    /// The call with something happening to it after so many bytes. How often.
    async fn plays(self, call: Call) -> usize {
        let Self { store, direct, valve } = &self;
        direct.migrate().await.unwrap();
        let known = (key(), record(1, None, &[9; 30]));
        assert_eq!(direct.create(&known.0, &known.1).await.unwrap(), Created::Done);
        let known = (known.0, direct.load(&known.0).await.unwrap());
        let mut number = 0;
        let mut times = 0;
        for is_prepared in [false, true] {
            let begin = async |number: &mut usize| {
                // A connection, and one that knows the statement.
                if is_prepared {
                    *number += 1;
                    let scene = call.prepare(direct, *number).await;
                    call.run(store, &scene).await.unwrap();
                }
                *number += 1;
                call.prepare(direct, *number).await
            };
            for (way, then) in [
                (Way::There, Then::Cut),
                (Way::Back, Then::Cut),
                (Way::There, Then::Stop),
                (Way::Back, Then::Stop),
            ] {
                // The first run measures.
                let mut steps = vec![(usize::MAX, Then::Cut)];
                while let Some((bytes, then_now)) = steps.pop() {
                    times += 1;
                    let when = format!("{call:?} {way:?} {then:?} {is_prepared} {bytes}");
                    if bytes == usize::MAX || !is_prepared {
                        // A new connection, which has prepared nothing but a look.
                        valve.arm(Way::There, 0, Then::Cut);
                        let _ = store.load(&key()).await;
                        valve.disarm();
                    }
                    let looked = timeout(LONG, store.load(&known.0)).await.expect(&when);
                    assert_eq!(looked.expect(&when), known.1, "{when}");
                    let scene = begin(&mut number).await;
                    let before = valve.forwarded(way);
                    valve.arm(way, bytes, then_now);
                    let answer = timeout(LONG, async {
                        tokio::select! {
                            answer = call.run(store, &scene) => Some(answer),
                            () = valve.shared.is_reached.notified(), if then_now == Then::Stop => None,
                        }
                    });
                    let answer = answer.await.expect(&when);
                    valve.disarm();
                    call.check(direct, &scene, answer.as_ref(), &when).await;
                    let looked = timeout(LONG, store.load(&known.0)).await.expect(&when);
                    assert_eq!(looked.expect(&when), known.1, "{when}: the next call");
                    if bytes == usize::MAX {
                        let all = valve.forwarded(way) - before;
                        // With the look after it, which is less than that.
                        let bytes = (number * 31 % STRIDE..all).step_by(STRIDE);
                        steps.extend(bytes.map(|bytes| (bytes, then)));
                    }
                }
            }
        }
        times
    }
}

/// All calls, each in a table of its own.
async fn plays<D: Dialect>(rig: impl AsyncFn(&str) -> Rig<D>) {
    let mut plays = JoinSet::new();
    for call in CALLS {
        let rig = rig(&format!("cut_{call:?}").to_lowercase()).await;
        plays.spawn(rig.plays(call));
    }
    while let Some(times) = plays.join_next().await {
        assert!(times.expect("it is as promised") > 16);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_its_word_wherever_the_connection_ends() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    under_test("PostgreSQL cut off");
    for in_transactions in [false, true] {
        let rig = async |table: &str| {
            let valve = Valve::start(server.port()).await;
            let table = format!("{table}_{in_transactions}");
            let builder = || sessions::PostgresStore::builder().with_table(&table).without_sweep();
            let pool = PgPoolOptions::new().max_connections(1);
            let url = format!("postgres://postgres@127.0.0.1:{}/postgres", valve.port);
            let pool = pool.test_before_acquire(false).connect(&url).await.unwrap();
            let store = match in_transactions {
                true => builder().without_prepared_statements(),
                false => builder(),
            };
            let direct = builder().with_max_connections(1).connect(&server.url()).await.unwrap();
            Rig { store: store.build(pool).unwrap(), direct, valve }
        };
        plays(rig).await;
    }
    let mut admin = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&mut admin).await.unwrap() > 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_keeps_its_word_wherever_the_connection_ends() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    under_test("MariaDB cut off");
    for in_transactions in [false, true] {
        let rig = async |table: &str| {
            let valve = Valve::start(server.port()).await;
            let table = format!("{table}_{in_transactions}");
            let builder = || sessions::MySqlStore::builder().with_table(&table).without_sweep();
            let direct = builder().with_max_connections(1).connect(&server.url()).await.unwrap();
            let pool = MySqlPoolOptions::new().max_connections(1).test_before_acquire(false);
            let pool = pool.after_connect(move |connection, _| {
                Box::pin(async move {
                    let set = if in_transactions { "SET autocommit = 0" } else { "DO 0" };
                    sqlx::Executor::execute(connection, set).await.map(|_| ())
                })
            });
            let url = server.url().replace(&server.port().to_string(), &valve.port.to_string());
            let pool = pool.connect(&url).await.unwrap();
            Rig { store: builder().build(pool).unwrap(), direct, valve }
        };
        plays(rig).await;
    }
    let mut admin = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    let open = "SELECT count(*) FROM information_schema.innodb_trx";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&mut admin).await.unwrap() > 0 {
        sleep(Duration::from_millis(20)).await;
    }
}
