//! Requests of a user's browsers, and what ends or changes all sessions of the user, at the same time: in every
//! order of their calls of the store for two or three of them, and in random orders for more. A call may fail before
//! or after it has happened, and a client may hang up.
//!
//! What must hold however it goes stands in [`Outcome::check`].

use std::{
    collections::HashSet,
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use http::{Request, Response, header};
use sessions::{
    Created, DynUserIndex, ErrorKind, Keys, Record, Replaced, Session, SessionLayer, Store,
    StoreError, StoreKey, UserIndex, testing::ManualClock,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{Random, variable};

const USER: u64 = 1;
const OTHER: u64 = 2;
const STEP: Duration = Duration::from_millis(1);

#[derive(Session)]
struct Data {
    #[session(user)]
    user: Option<u64>,
    /// Which of the sessions at the beginning this was; zero for one that began later.
    origin: u8,
    /// Whose data it is.
    whose: u64,
    a: u8,
    b: u8,
    c: u8,
    has_right: bool,
}

// ---- the store ----

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    Well,
    /// An error, and nothing has happened.
    Refused,
    /// An error, although it has happened.
    AnswerLost,
}

/// How the store finds the sessions of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    /// In one step, as an SQL database.
    OneStep,
    /// First which sessions there are, then each of them, as Redis and memcached.
    TwoSteps,
}

#[derive(Clone, Debug)]
struct Row {
    key: StoreKey,
    record: Record,
    /// By what its process had been answered when it wrote this: what stands for the key, and for the record,
    /// whose random numbers are other ones in each run.
    created_by: u64,
    written_by: u64,
}

#[derive(Debug)]
struct Waiting {
    /// What stands for the call.
    id: u64,
    /// It has been carried out, and its answer is on its way.
    is_answer: bool,
    go: oneshot::Sender<Goes>,
}

#[derive(Debug, Default)]
struct Table {
    rows: Vec<Row>,
    /// The calls that wait for their turn, in the order in which they came.
    waiting: Vec<Waiting>,
    is_free: bool,
    /// By process: what it has been answered.
    answered: Vec<u64>,
    /// How many sessions the user had, at each moment at which that has changed.
    history: Vec<(SystemTime, usize)>,
}

impl Table {
    fn find(&self, key: &StoreKey) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == *key)
    }

    fn of_user(&self, user: &str) -> Vec<Row> {
        let is_theirs = |row: &&Row| row.record.user.as_deref() == Some(user);
        self.rows.iter().filter(is_theirs).cloned().collect()
    }

    fn delete(&mut self, key: &StoreKey) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| row.key != *key);
        self.rows.len() < before
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A store each of whose calls waits for its turn.
#[derive(Clone, Debug)]
struct Scripted {
    table: Arc<Mutex<Table>>,
    clock: ManualClock,
    index: Index,
    process: usize,
    /// Other calls may happen before an answer arrives.
    is_slow: bool,
}

impl Scripted {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// `call` gets the table, and what stands for what it writes; it gives the answer, and what stands for that.
    async fn call<R: Send, H: Hash>(
        &self,
        name: &'static str,
        key: Option<&StoreKey>,
        call: impl FnOnce(&mut Table, u64) -> (R, H) + Send,
    ) -> Result<R, StoreError> {
        let (go, goes) = oneshot::channel();
        {
            let mut table = self.table();
            if table.is_free {
                return Ok(call(&mut table, 0).0);
            }
            let row = key.and_then(|key| table.find(key));
            let id = hash((self.process, name, row.map(|row| row.created_by)));
            table.waiting.push(Waiting { id, is_answer: false, go });
        }
        let error = || StoreError::new("scripted", name, "it fails");
        let goes = goes.await.map_err(|_| error())?;
        let (answer, arrives) = {
            let mut table = self.table();
            let id = key.and_then(|key| table.find(key)).map(|row| row.created_by);
            let writer = hash((self.process, table.answered[self.process], name, id));
            let answer = (goes != Goes::Refused).then(|| call(&mut table, writer));
            let live = table.of_user(&name_of(USER)).len();
            table.history.push((self.clock.now(), live));
            let answer = answer.filter(|_| goes == Goes::Well);
            let shape = answer.as_ref().map(|answer| hash(&answer.1));
            table.answered[self.process] = hash((writer, shape));
            let (go, arrives) = oneshot::channel();
            if self.is_slow {
                table.waiting.push(Waiting { id: writer, is_answer: true, go });
            }
            (answer.map(|answer| answer.0), arrives)
        };
        if self.is_slow {
            let _ = arrives.await;
        }
        answer.ok_or_else(error)
    }
}

fn name_of(user: u64) -> String {
    format!("Data:{user}")
}

impl Store for Scripted {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call("load", Some(key), |table, _| {
            let row = table.find(key);
            (row.map(|row| row.record.clone()), row.map(|row| row.written_by))
        })
        .await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.call("create", Some(key), |table, writer| {
            if table.find(key).is_some() {
                return (Created::Exists, 0);
            }
            let (key, record) = (*key, record.clone());
            table.rows.push(Row { key, record, created_by: writer, written_by: writer });
            (Created::Done, 1)
        })
        .await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.call("replace", Some(key), |table, writer| {
            match table.rows.iter_mut().find(|row| row.key == *key) {
                None => (Replaced::Missing, 0),
                Some(row) if row.record.version != based_on => (Replaced::Changed, 1),
                Some(row) => {
                    (row.record, row.written_by) = (record.clone(), writer);
                    (Replaced::Done, 2)
                }
            }
        })
        .await
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let delete = |table: &mut Table, _| {
            let was_there = table.delete(key);
            (was_there, was_there)
        };
        self.call("delete", Some(key), delete).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for Scripted {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let list = |table: &mut Table, _| {
            let rows = table.of_user(user);
            let ids: Vec<_> = rows.iter().map(|row| row.written_by).collect();
            (rows, ids)
        };
        let listed = self.call("sessions_of", None, list).await?;
        if self.index == Index::OneStep {
            return Ok(listed.into_iter().map(|row| (row.key, row.record)).collect());
        }
        let mut keys: Vec<StoreKey> = listed.into_iter().map(|row| row.key).collect();
        loop {
            let mut found = Vec::new();
            for key in &keys {
                let record = self.load(key).await?;
                let theirs = record.filter(|it| it.user.as_deref() == Some(user));
                found.extend(theirs.map(|it| (*key, it)));
            }
            if found.len() == keys.len() {
                return Ok(found);
            }
            // As the documentation of the trait demands.
            let now: Vec<_> =
                self.call("sessions_of", None, list).await?.into_iter().map(|it| it.key).collect();
            if now.iter().all(|key| keys.contains(key)) {
                return Ok(found);
            }
            keys = now;
        }
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        if self.index == Index::TwoSteps {
            let mut deleted = 0;
            for (key, _) in self.sessions_of(user).await? {
                deleted += u64::from(Some(&key) != except && self.delete(&key).await?);
            }
            return Ok(deleted);
        }
        self.call("delete_sessions_of", None, |table, _| {
            let before = table.rows.len();
            table
                .rows
                .retain(|row| Some(&row.key) == except || row.record.user.as_deref() != Some(user));
            let deleted = (before - table.rows.len()) as u64;
            (deleted, deleted)
        })
        .await
    }
}

// ---- what is done ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Sets a field of its own, `a` and so on, and saves.
    Write(usize),
    /// The same by an update.
    Update(usize),
    Login(u64),
    LoginAnew(u64),
    Logout,
    Renew,
    EndOthers,
    /// Ends the session of this browser, as the user's list has it at the beginning.
    EndOne(usize),
    EndAll,
    TakeRight,
    List,
}

/// Something that is done in some process, by a browser unless it is nobody's.
#[derive(Clone, Copy, Debug)]
struct Task {
    op: Op,
    browser: usize,
    process: usize,
}

impl Task {
    const fn new(op: Op, browser: usize, process: usize) -> Self {
        Self { op, browser, process }
    }
}

/// What a browser has at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Nothing,
    Visitor,
    LoggedIn,
}

#[derive(Clone, Debug)]
struct Case {
    browsers: Vec<Start>,
    tasks: Vec<Task>,
    index: Index,
    most_faults: usize,
    may_hang_up: bool,
    is_slow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Was(bool),
    Keys(Vec<StoreKey>),
    /// Some were not reached.
    InPart,
    Refused(ErrorKind),
    HungUp,
}

/// What a request was answered.
#[derive(Clone, Debug)]
struct Answer {
    told: Told,
    /// The cookie that the browser gets, or has taken away.
    cookie: Option<Option<String>>,
}

#[derive(Clone, Debug)]
struct Event {
    task: Task,
    begun: SystemTime,
    ended: SystemTime,
    answer: Answer,
}

fn told<R>(outcome: Result<R, sessions::Error>, is_ok: impl FnOnce(R) -> Told) -> Told {
    match outcome {
        Ok(value) => is_ok(value),
        Err(error) => Told::Refused(error.kind()),
    }
}

fn done<R>(outcome: Result<R, sessions::Error>) -> Told {
    told(outcome, |_| Told::Done)
}

impl DataFields {
    fn write(&mut self, field: usize) {
        let user = self.user.unwrap_or_default();
        self.set_whose(user);
        match field {
            0 => self.set_a(1),
            1 => self.set_b(1),
            _ => self.set_c(1),
        };
    }
}

impl Op {
    async fn run_in_request(self, session: Session<Data>, layer: SessionLayer<Data>) -> Told {
        match self {
            Self::Write(field) => {
                session.write().await.write(field);
                let outcome = session.save().await;
                if outcome.is_err() {
                    session.discard_request_changes();
                }
                done(outcome)
            }
            Self::Update(field) => done(session.update(|s| s.write(field)).await),
            Self::Login(user) => done(session.login(user).await),
            Self::LoginAnew(user) => done(session.login(user).without_earlier_data().await),
            Self::Logout => done(session.logout().await),
            Self::Renew => done(session.renew_id().await),
            Self::EndOthers => done(layer.user_sessions().unwrap().end_others(&session).await),
            Self::EndOne(_) | Self::EndAll | Self::TakeRight | Self::List => unreachable!(),
        }
    }

    async fn run(self, layer: &SessionLayer<Data>, first: &[Option<StoreKey>]) -> Told {
        let sessions = layer.user_sessions().unwrap();
        match self {
            Self::EndOne(browser) => {
                let Some(key) = first[browser] else { return Told::Was(false) };
                told(sessions.end(&USER, &key).await, Told::Was)
            }
            Self::EndAll => done(sessions.end_all(&USER).await),
            Self::TakeRight => {
                let outcome = sessions.update_each(&USER, |s| s.set_has_right(false)).await;
                told(outcome, |updated| match updated.failed.is_empty() {
                    true => Told::Done,
                    false => Told::InPart,
                })
            }
            Self::List => told(sessions.list(&USER).await, |infos| {
                Told::Keys(infos.into_iter().map(|info| info.key).collect())
            }),
            _ => unreachable!(),
        }
    }

    fn is_request(self) -> bool {
        !matches!(self, Self::EndOne(_) | Self::EndAll | Self::TakeRight | Self::List)
    }
}

/// Sends a request whose handler does this.
async fn request(layer: SessionLayer<Data>, cookie: Option<String>, op: Option<Op>) -> Answer {
    let own = layer.clone();
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let layer = own.clone();
        async move {
            let told = match Session::<Data>::open(request.extensions()).await {
                Ok(session) => match op {
                    Some(op) => op.run_in_request(session, layer).await,
                    None => Told::Done,
                },
                Err(error) => Told::Refused(error.kind()),
            };
            let mut response = Response::new(String::new());
            response.extensions_mut().insert(told);
            Ok::<_, Infallible>(response)
        }
    }));
    let request = Request::builder();
    let request = match &cookie {
        Some(cookie) => request.header(header::COOKIE, cookie),
        None => request,
    };
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    let line = response.headers().get(header::SET_COOKIE).map(|line| line.to_str().unwrap());
    let cookie = line.map(|line| match line.contains("Max-Age=0") {
        true => None,
        false => line.split(';').next().map(ToString::to_string),
    });
    // The layer answers in place of a handler whose writes it could not save.
    let told = response.extensions().get().cloned();
    Answer { told: told.unwrap_or(Told::Refused(ErrorKind::Store)), cookie }
}

/// What a cookie opens.
#[derive(Clone, Debug)]
struct Seen {
    key: StoreKey,
    user: Option<u64>,
    origin: u8,
    whose: u64,
    fields: [u8; 3],
    has_right: bool,
}

async fn look(layer: &SessionLayer<Data>, cookie: &str) -> Option<Seen> {
    let seen = Arc::new(Mutex::new(None));
    let own = seen.clone();
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let own = own.clone();
        async move {
            let session = Session::<Data>::open(request.extensions()).await.unwrap();
            if !session.began_in_request() {
                let s = session.read().await;
                *own.lock().unwrap() = Some(Seen {
                    key: session.store_key().unwrap(),
                    user: s.user,
                    origin: s.origin,
                    whose: s.whose,
                    fields: [s.a, s.b, s.c],
                    has_right: s.has_right,
                });
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
    service.oneshot(request).await.unwrap();
    seen.lock().unwrap().take()
}

// ---- one run ----

/// The next thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A task begins, and its first call goes so.
    Begin(usize, Goes),
    /// The call that has waited so long goes so.
    Call(usize, Goes),
    HangUp(usize),
}

struct World {
    store: Scripted,
    clock: ManualClock,
    layers: Vec<SessionLayer<Data>>,
    judge: SessionLayer<Data>,
    cookies: Vec<Option<String>>,
    first: Vec<Option<StoreKey>>,
}

enum Running {
    Ahead,
    Now(JoinHandle<Answer>, SystemTime),
    Over,
}

impl World {
    async fn new(case: &Case) -> Self {
        let clock = ManualClock::new();
        let table = Arc::new(Mutex::new(Table { is_free: true, ..Table::default() }));
        let Case { index, is_slow, .. } = *case;
        let store = Scripted { table, clock: clock.clone(), index, process: 0, is_slow };
        let keys = Keys::generate();
        let layer = |process| {
            let store = Scripted { process, ..store.clone() };
            let builder = SessionLayer::<Data>::builder(store, keys.clone());
            builder.with_clock(&clock).in_another_process().build().unwrap()
        };
        let processes = case.tasks.iter().map(|task| task.process).max().unwrap_or(0) + 1;
        let layers: Vec<_> = (0..processes).map(layer).collect();
        let judge = layer(processes);
        let (mut cookies, mut first) = (Vec::new(), Vec::new());
        for (browser, start) in case.browsers.iter().enumerate() {
            let (cookie, key) = match start {
                Start::Nothing => (None, None),
                _ => {
                    let (is_user, origin) = (*start == Start::LoggedIn, browser as u8 + 1);
                    let cookie = begin(&judge, is_user, origin).await;
                    let key = look(&judge, &cookie).await.unwrap().key;
                    (Some(cookie), Some(key))
                }
            };
            cookies.push(cookie);
            first.push(key);
        }
        // Nothing that the first logins have left is left.
        clock.advance(Duration::from_secs(60));
        {
            let mut table = store.table();
            table.is_free = false;
            table.rows.retain(|row| !row.record.payload.starts_with(&[0]));
            for (at, row) in table.rows.iter_mut().enumerate() {
                (row.created_by, row.written_by) = (at as u64, at as u64);
            }
            table.answered = vec![0; processes];
            table.history = vec![(clock.now(), table.of_user(&name_of(USER)).len())];
        }
        Self { store, clock, layers, judge, cookies, first }
    }

    /// Lets all tasks go as far as they get without the store.
    async fn settle(&self) {
        for _ in 0..12 {
            yield_now().await;
        }
        let mut table = self.store.table();
        table.waiting.retain(|waiting| !waiting.go.is_closed());
        drop(table);
        self.clock.advance(STEP);
    }

    fn waiting(&self) -> usize {
        self.store.table().waiting.len()
    }

    fn is_answer(&self, at: usize) -> bool {
        self.store.table().waiting[at].is_answer
    }

    fn go(&self, at: usize, goes: Goes) {
        let waiting = self.store.table().waiting.remove(at);
        let _ = waiting.go.send(goes);
    }

    fn spawn(&self, task: Task) -> JoinHandle<Answer> {
        let Task { op, browser, process } = task;
        let layer = self.layers[process].clone();
        let (cookie, first) = (self.cookies[browser].clone(), self.first.clone());
        tokio::spawn(async move {
            if op.is_request() {
                return request(layer, cookie, Some(op)).await;
            }
            Answer { told: op.run(&layer, &first).await, cookie: None }
        })
    }

    /// Runs the tasks, and asks `choose` of what can happen next.
    async fn run(
        self,
        case: &Case,
        choose: &mut dyn FnMut(u64, &[Step]) -> Option<usize>,
    ) -> Option<Outcome> {
        let mut running: Vec<Running> = case.tasks.iter().map(|_| Running::Ahead).collect();
        let mut events: Vec<Option<Event>> = vec![None; case.tasks.len()];
        let (mut faults, mut has_hung_up, mut stalls) = (0, false, 0);
        let mut steps_taken = Vec::new();
        loop {
            self.settle().await;
            for (at, state) in running.iter_mut().enumerate() {
                if let Running::Now(handle, begun) = state
                    && handle.is_finished()
                {
                    let answer = handle.await.unwrap();
                    let (task, begun, ended) = (case.tasks[at], *begun, self.clock.now());
                    events[at] = Some(Event { task, begun, ended, answer });
                    *state = Running::Over;
                }
            }
            let goes = match faults < case.most_faults {
                true => &[Goes::Well, Goes::Refused, Goes::AnswerLost][..],
                false => &[Goes::Well],
            };
            let mut steps = Vec::new();
            for at in 0..self.waiting() {
                let goes = if self.is_answer(at) { &[Goes::Well] } else { goes };
                steps.extend(goes.iter().map(|goes| Step::Call(at, *goes)));
            }
            for (at, state) in running.iter().enumerate() {
                match state {
                    Running::Ahead => steps.extend(goes.iter().map(|goes| Step::Begin(at, *goes))),
                    Running::Now(..)
                        if case.may_hang_up && !has_hung_up && case.tasks[at].op.is_request() =>
                    {
                        steps.push(Step::HangUp(at));
                    }
                    _ => {}
                }
            }
            let is_idle = steps.iter().all(|step| matches!(step, Step::HangUp(_)));
            if is_idle && running.iter().all(|state| matches!(state, Running::Over)) {
                let mut quiet = Box::pin(async {
                    for layer in &self.layers {
                        layer.wait_for_background_saves().await;
                    }
                });
                let is_quiet = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(quiet.as_mut().poll(cx).is_ready())
                });
                if is_quiet.await {
                    break;
                }
            }
            if is_idle {
                // A pause between two tries.
                stalls += 1;
                assert!(stalls < 1_000, "it never ends: {steps_taken:?}");
                tokio::time::advance(Duration::from_millis(10)).await;
                continue;
            }
            let signature = self.signature(&running, &events, faults, has_hung_up);
            let step = steps[choose(signature, &steps)?];
            steps_taken.push(step);
            match step {
                Step::Call(at, goes) => {
                    faults += usize::from(goes != Goes::Well);
                    self.go(at, goes);
                }
                Step::Begin(at, goes) => {
                    let before = self.waiting();
                    running[at] = Running::Now(self.spawn(case.tasks[at]), self.clock.now());
                    self.settle().await;
                    if self.waiting() > before {
                        faults += usize::from(goes != Goes::Well);
                        self.go(before, goes);
                    }
                }
                Step::HangUp(at) => {
                    has_hung_up = true;
                    if let Running::Now(handle, begun) = &running[at] {
                        handle.abort();
                        let answer = Answer { told: Told::HungUp, cookie: None };
                        let (task, begun, ended) = (case.tasks[at], *begun, self.clock.now());
                        events[at] = Some(Event { task, begun, ended, answer });
                        running[at] = Running::Over;
                    }
                }
            }
        }
        Some(self.outcome(events.into_iter().flatten().collect(), faults, has_hung_up).await)
    }

    /// What all that follows depends on, and what is checked.
    fn signature(
        &self,
        running: &[Running],
        events: &[Option<Event>],
        faults: usize,
        has_hung_up: bool,
    ) -> u64 {
        let table = self.store.table();
        let mut times: Vec<(SystemTime, usize)> = Vec::new();
        for (at, state) in running.iter().enumerate() {
            if let Running::Now(_, begun) = state {
                times.push((*begun, 2 * at));
            }
        }
        for (at, event) in events.iter().enumerate() {
            if let Some(event) = event {
                times.extend([(event.begun, 2 * at), (event.ended, 2 * at + 1)]);
            }
        }
        times.sort();
        let ranks: Vec<usize> = times.iter().map(|(_, what)| *what).collect();
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                let after = times.iter().filter(|(at, _)| *at <= row.record.created_at).count();
                (row.created_by, row.written_by, after, row.record.user.clone())
            })
            .collect();
        let told: Vec<_> = events
            .iter()
            .flatten()
            .map(|event| {
                (format!("{:?}", shape(&event.answer.told)), event.answer.cookie.is_some())
            })
            .collect();
        let least: Vec<_> = times
            .iter()
            .filter(|(_, what)| what % 2 == 0)
            .map(|(begun, _)| least_during(&table.history, *begun, self.clock.now()))
            .collect();
        let waiting: Vec<u64> = table.waiting.iter().map(|waiting| waiting.id).collect();
        let is_over: Vec<bool> = running.iter().map(|it| matches!(it, Running::Over)).collect();
        hash((ranks, rows, told, least, waiting, is_over, &table.answered, faults, has_hung_up))
    }

    async fn outcome(self, events: Vec<Event>, faults: usize, has_hung_up: bool) -> Outcome {
        self.store.table().is_free = true;
        let mut known: Vec<String> = self.cookies.iter().flatten().cloned().collect();
        let first = known.len();
        known.extend(events.iter().filter_map(|event| event.answer.cookie.clone().flatten()));
        let mut seen = Vec::new();
        for cookie in &known {
            seen.push(look(&self.judge, cookie).await);
        }
        let given = known.split_off(first);
        let table = self.store.table();
        let live = table.rows.iter().filter(|row| !row.record.payload.starts_with(&[0]));
        let live = live.map(|row| (row.key, row.record.clone())).collect();
        let history = table.history.clone();
        drop(table);
        Outcome { events, faults, has_hung_up, seen, first, given, live, history, keys: self.first }
    }
}

/// Without keys, which are other ones in each run.
fn shape(told: &Told) -> Told {
    match told {
        Told::Keys(keys) => Told::Keys(vec![StoreKey::from_bytes([0; 32]); keys.len()]),
        told => told.clone(),
    }
}

fn least_during(history: &[(SystemTime, usize)], begun: SystemTime, ended: SystemTime) -> usize {
    let before = history.iter().rev().find(|(at, _)| *at <= begun);
    let during = history.iter().filter(|(at, _)| begun < *at && *at <= ended);
    before.into_iter().chain(during).map(|(_, live)| *live).min().unwrap_or(0)
}

/// A session with a few values, and its cookie.
async fn begin(layer: &SessionLayer<Data>, is_user: bool, origin: u8) -> String {
    let service = layer.layer(service_fn(move |request: Request<()>| async move {
        let session = Session::<Data>::open(request.extensions()).await.unwrap();
        if is_user {
            session.login(USER).await.unwrap();
        }
        let mut s = session.write().await;
        s.set_origin(origin);
        s.set_has_right(true);
        s.set_whose(if is_user { USER } else { 0 });
        drop(s);
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let line = response.headers()[header::SET_COOKIE].to_str().unwrap();
    line.split(';').next().unwrap().to_string()
}

// ---- what has come of it ----

#[derive(Debug)]
#[allow(dead_code, reason = "shown when a check fails")]
struct Outcome {
    events: Vec<Event>,
    faults: usize,
    has_hung_up: bool,
    /// What each cookie opens: those of the beginning, and those that were given since.
    seen: Vec<Option<Seen>>,
    /// How many there were at the beginning.
    first: usize,
    given: Vec<String>,
    live: Vec<(StoreKey, Record)>,
    history: Vec<(SystemTime, usize)>,
    keys: Vec<Option<StoreKey>>,
}

impl Outcome {
    fn check(&self, case: &Case) -> Result<(), String> {
        self.nothing_is_anothers()?;
        self.no_session_is_there_twice()?;
        self.nothing_acknowledged_is_lost()?;
        self.old_ids_are_dead(case)?;
        self.what_has_ended_stays_so()?;
        self.lists_are_right()?;
        self.rights_are_taken()
    }

    fn done(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.answer.told == Told::Done)
    }

    fn opened(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().flatten()
    }

    /// What a cookie opens that was given since.
    fn opened_by(&self, cookie: &str) -> Option<&Seen> {
        let at = self.given.iter().position(|given| given == cookie).expect("it is known");
        self.seen[self.first + at].as_ref()
    }

    /// Whether a login of the user was on its way then: it has happened before or after.
    fn is_login_under_way(&self, at: SystemTime) -> bool {
        self.events.iter().any(|event| {
            matches!(event.task.op, Op::Login(USER) | Op::LoginAnew(USER))
                && event.begun < at
                && (at < event.ended || event.answer.told == Told::HungUp)
        })
    }

    fn nothing_is_anothers(&self) -> Result<(), String> {
        for seen in self.opened() {
            let record = self.live.iter().find(|(key, _)| *key == seen.key);
            let (_, record) = record.ok_or("a cookie opens what is not there")?;
            if record.user.as_deref() != seen.user.map(name_of).as_deref() {
                return Err(format!("the store has another user: {seen:?}"));
            }
            if seen.whose != 0 && Some(seen.whose) != seen.user {
                return Err(format!("the data of another user: {seen:?}"));
            }
        }
        Ok(())
    }

    /// And no session of a user that nobody can open, unless its client has hung up.
    fn no_session_is_there_twice(&self) -> Result<(), String> {
        for origin in 1..=self.first as u8 {
            let mut keys: Vec<_> =
                self.opened().filter(|it| it.origin == origin).map(|it| it.key).collect();
            keys.sort();
            keys.dedup();
            if keys.len() > 1 {
                return Err(format!("session {origin} is there twice"));
            }
        }
        let ghosts = self
            .live
            .iter()
            .filter(|(key, record)| {
                record.user.is_some() && !self.opened().any(|seen| seen.key == *key)
            })
            .count();
        let may_be = usize::from(self.has_hung_up) + self.faults.saturating_sub(1);
        match ghosts > may_be {
            true => Err(format!("{ghosts} sessions that no cookie opens")),
            false => Ok(()),
        }
    }

    /// A write that was saved is in its session as long as that lives.
    fn nothing_acknowledged_is_lost(&self) -> Result<(), String> {
        for event in self.done() {
            let (Op::Write(field) | Op::Update(field)) = event.task.op else { continue };
            // It has begun a session, or there was one.
            let seen = match &event.answer.cookie {
                Some(Some(cookie)) => self.opened_by(cookie),
                _ => {
                    let origin = event.task.browser as u8 + 1;
                    self.opened().find(|it| it.origin == origin)
                }
            };
            if seen.is_some_and(|seen| seen.fields[field] == 0) {
                return Err(format!("a write is lost: {event:?}"));
            }
        }
        Ok(())
    }

    /// Who has logged in or renewed has another cookie, and the one before is dead.
    fn old_ids_are_dead(&self, case: &Case) -> Result<(), String> {
        for event in &self.events {
            let Task { op, browser, .. } = event.task;
            let opens = case.browsers[..browser].iter().filter(|it| **it != Start::Nothing);
            let at = opens.count();
            let has_old = case.browsers[browser] != Start::Nothing;
            let old = has_old.then(|| self.seen[at].as_ref()).flatten();
            match (&event.answer.told, op) {
                (Told::Done, Op::Login(_) | Op::LoginAnew(_) | Op::Logout | Op::Renew)
                    if old.is_some() =>
                {
                    return Err(format!("the old cookie opens a session after {event:?}"));
                }
                _ => {}
            }
            // Whatever has failed, the old cookie opens nobody's other session.
            let user = old.and_then(|seen| seen.user);
            let expected = (case.browsers[browser] == Start::LoggedIn).then_some(USER);
            if old.is_some() && user != expected {
                return Err(format!("the old cookie opens another user: {event:?}"));
            }
        }
        // A login is good unless something ends it.
        let ends = |event: &Event| {
            matches!(event.task.op, Op::EndAll | Op::EndOthers | Op::Logout | Op::EndOne(_))
        };
        let has_end = self.events.iter().any(ends);
        for event in self.done() {
            let (Op::Login(user) | Op::LoginAnew(user)) = event.task.op else { continue };
            let Some(Some(cookie)) = &event.answer.cookie else {
                if has_end {
                    continue;
                }
                return Err(format!("a login without a cookie: {event:?}"));
            };
            match self.opened_by(cookie) {
                Some(seen) if seen.user == Some(user) => {}
                None if has_end => {}
                seen => return Err(format!("a login is worth nothing: {event:?}, {seen:?}")),
            }
        }
        Ok(())
    }

    /// After the end of all nobody has a session of the user but who has logged in since.
    fn what_has_ended_stays_so(&self) -> Result<(), String> {
        for event in &self.events {
            let Event { task, begun, answer, .. } = event;
            let is_under_way = self.is_login_under_way(*begun);
            let is_earlier = |record: &Record| record.created_at < *begun && !is_under_way;
            match (task.op, &answer.told) {
                (Op::EndAll, Told::Done) => {
                    let left = self.live.iter().find(|(_, record)| {
                        record.user.as_deref() == Some(&name_of(USER)) && is_earlier(record)
                    });
                    if let Some(left) = left {
                        return Err(format!("it was ended with all others: {left:?}"));
                    }
                }
                (Op::EndOthers, Told::Done) => {
                    let own = self.keys[task.browser];
                    let left = self.live.iter().find(|(key, record)| {
                        record.user.as_deref() == Some(&name_of(USER))
                            && Some(*key) != own
                            && is_earlier(record)
                            // This one may have got another id later.
                            && !self.events.iter().any(|it| it.task.op == Op::Renew)
                    });
                    if let Some(left) = left {
                        return Err(format!("it was ended with the others: {left:?}"));
                    }
                }
                (Op::EndOne(browser), Told::Was(true)) => {
                    let origin = browser as u8 + 1;
                    if let Some(seen) = self.opened().find(|it| it.origin == origin)
                        && !self.done().any(|it| matches!(it.task.op, Op::Login(_)))
                    {
                        return Err(format!("it was ended by the list: {seen:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn lists_are_right(&self) -> Result<(), String> {
        for event in &self.events {
            let Told::Keys(keys) = &event.answer.told else { continue };
            let least = least_during(&self.history, event.begun, event.ended);
            if keys.len() < least {
                return Err(format!("the list has {}, of {least}: {event:?}", keys.len()));
            }
        }
        Ok(())
    }

    fn rights_are_taken(&self) -> Result<(), String> {
        for event in self.done().filter(|event| event.task.op == Op::TakeRight) {
            let has_right = |(key, record): &&(StoreKey, Record)| {
                record.user.as_deref() == Some(&name_of(USER))
                    && record.created_at < event.begun
                    && !self.is_login_under_way(event.begun)
                    && self.opened().any(|seen| seen.key == *key && seen.has_right)
            };
            if let Some(left) = self.live.iter().find(has_right) {
                return Err(format!("it has kept its right: {left:?}"));
            }
        }
        Ok(())
    }
}

// ---- all orders ----

fn run(case: &Case, choose: &mut dyn FnMut(u64, &[Step]) -> Option<usize>) -> Option<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { World::new(case).await.run(case, choose).await })
}

/// Goes through every order. How many runs that takes.
fn explore(case: &Case) -> usize {
    let mut ahead: Vec<Vec<usize>> = vec![Vec::new()];
    let mut seen = HashSet::new();
    let mut runs = 0;
    while let Some(path) = ahead.pop() {
        runs += 1;
        let mut taken = Vec::new();
        let mut shown = Vec::new();
        let outcome = run(case, &mut |signature, steps| {
            let at = taken.len();
            let choice = match path.get(at) {
                Some(choice) => *choice,
                None if !seen.insert(signature) => return None,
                None => {
                    for other in 1..steps.len() {
                        ahead.push([&taken[..], &[other]].concat());
                    }
                    0
                }
            };
            taken.push(choice);
            shown.push(steps[choice]);
            Some(choice)
        });
        if let Some(Err(why)) = outcome.as_ref().map(|outcome| outcome.check(case)) {
            panic!("{why}\n{case:?}\n{shown:?}\n{outcome:#?}");
        }
    }
    runs
}

fn random_case(random: &mut Random) -> Case {
    const ALL: [Op; 14] = [
        Op::Write(0),
        Op::Update(0),
        Op::Login(USER),
        Op::Login(USER),
        Op::Login(OTHER),
        Op::LoginAnew(USER),
        Op::Logout,
        Op::Renew,
        Op::Renew,
        Op::EndOthers,
        Op::EndOne(0),
        Op::EndAll,
        Op::TakeRight,
        Op::List,
    ];
    let starts = [Start::Nothing, Start::Visitor, Start::LoggedIn, Start::LoggedIn];
    let browsers: Vec<Start> = (0..1 + random.below(2)).map(|_| *random.pick(&starts)).collect();
    let tasks = (0..2 + random.below(3)).map(|number| {
        let op = match *random.pick(&ALL) {
            Op::Write(_) => Op::Write(number % 3),
            Op::Update(_) => Op::Update(number % 3),
            Op::EndOne(_) => Op::EndOne(random.below(browsers.len())),
            op => op,
        };
        Task::new(op, random.below(browsers.len()), random.below(2))
    });
    let tasks = tasks.collect();
    let index = *random.pick(&[Index::OneStep, Index::TwoSteps]);
    let most_faults = random.below(3);
    let may_hang_up = random.below(4) == 0;
    let is_slow = random.below(2) == 0;
    Case { browsers, tasks, index, most_faults, may_hang_up, is_slow }
}

#[test]
fn nobody_comes_back_and_nothing_is_lost_in_random_orders() {
    let cases = variable("SESSIONS_CASES").unwrap_or(10_000).div_ceil(5);
    let first = variable("SESSIONS_SEED").unwrap_or(1);
    for seed in first..first + cases {
        let mut random = Random(seed);
        let case = random_case(&mut random);
        let mut taken = Vec::new();
        let outcome = run(&case, &mut |_, steps| {
            let may_fail = random.below(12) == 0;
            let is_well = |step: &Step| {
                matches!(step, Step::Call(_, Goes::Well) | Step::Begin(_, Goes::Well))
            };
            let fit = (0..steps.len()).filter(|at| may_fail || is_well(&steps[*at]));
            let choice = *random.pick(&fit.collect::<Vec<_>>());
            taken.push(steps[choice]);
            Some(choice)
        });
        let outcome = outcome.expect("it was not broken off");
        if let Err(why) = outcome.check(&case) {
            panic!("SESSIONS_SEED={seed} replays it: {why}\n{case:?}\n{taken:?}\n{outcome:#?}");
        }
    }
}

/// The pairs that have the most to do with each other; all pairs if there is time.
#[test]
fn nobody_comes_back_and_nothing_is_lost_in_any_order() {
    use Op::{
        EndAll, EndOne, EndOthers, List, Login, LoginAnew, Logout, Renew, TakeRight, Update, Write,
    };
    let pairs = [(Renew, EndAll), (Renew, EndOne(0)), (Renew, Logout), (Renew, List)];
    let mut cases = Vec::new();
    if variable("SESSIONS_CASES").is_none_or(|cases| cases <= 10_000) {
        for (one, other) in pairs {
            cases.push((Start::LoggedIn, Index::TwoSteps, 1, one, other));
        }
    } else {
        let requests = [
            Write(0),
            Update(0),
            Login(USER),
            Login(OTHER),
            LoginAnew(USER),
            Logout,
            Renew,
            EndOthers,
        ];
        let others = [Write(1), EndOne(0), EndAll, TakeRight, List];
        for start in [Start::Nothing, Start::Visitor, Start::LoggedIn] {
            for index in [Index::OneStep, Index::TwoSteps] {
                for process in [0, 1] {
                    for one in requests {
                        for other in requests.into_iter().chain(others) {
                            cases.push((start, index, process, one, other));
                        }
                    }
                }
            }
        }
    }
    let mut runs = 0;
    for (start, index, process, one, other) in cases {
        let tasks = vec![Task::new(one, 0, 0), Task::new(other, 0, process)];
        let (browsers, most_faults, may_hang_up) = (vec![start], 0, false);
        let is_slow = false;
        runs += explore(&Case { browsers, tasks, index, most_faults, may_hang_up, is_slow });
    }
    println!("users: {runs} orders");
}
