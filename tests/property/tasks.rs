//! Two tasks of one request, each with a few steps, interleaved as a seed says, on a store that lets others go
//! first. What comes of them is what comes of the same steps one after the other, in some order; a step that was
//! refused because the session had ended does nothing.
//!
//! A step may be dropped half-way, and so may the whole request: such a step counts as done or as not done, at any
//! time from its begin on.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, SystemTime},
};

use http::{Request, Response, header};
use sessions::{
    Created, ErrorKind, Keys, Lifetime, MemoryStore, Record, Replaced, Session, SessionLayer,
    Store, StoreError, StoreKey, testing::ManualClock,
};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};

use crate::{Random, for_all, polled};

const TASKS: usize = 2;

#[derive(Session)]
struct Data {
    #[session(user)]
    user: Option<u64>,
    a: u8,
    b: u8,
}

impl DataFields {
    fn set_field(&mut self, field: usize, value: u8) {
        match field {
            0 => self.set_a(value),
            _ => self.set_b(value),
        };
    }
}

/// A store that lets others go first before and after each call, now and then; and remembers its keys.
#[derive(Clone)]
struct Stepping {
    store: MemoryStore,
    random: Option<Arc<Mutex<Random>>>,
    keys: Arc<Mutex<HashSet<StoreKey>>>,
}

impl Stepping {
    async fn step<R>(&self, call: impl Future<Output = R>) -> R {
        self.pause().await;
        let answer = call.await;
        self.pause().await;
        answer
    }

    async fn pause(&self) {
        let pauses = self.random.as_ref().map_or(0, |random| random.lock().unwrap().below(4));
        for _ in 0..pauses {
            yield_now().await;
        }
    }
}

impl Store for Stepping {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.step(self.store.load(key)).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.keys.lock().unwrap().insert(*key);
        self.step(self.store.create(key, record)).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.step(self.store.replace(key, record, based_on)).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.step(self.store.touch(key, expires_at)).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.step(self.store.delete(key)).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Write(usize, u8),
    Read,
    Save,
    Update(usize, u8),
    Lock(usize, u8),
    Login(u64),
    LoginAnew(u64),
    Destroy,
    Renew,
    Lifetime(u64),
    Discard,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Did {
    Nothing,
    Done,
    Saw(Option<u64>, u8, u8),
    Refused(ErrorKind),
    Dropped,
}

impl Step {
    async fn run(self, session: &Session<Data>, pauses: usize) -> Did {
        let pause = async || {
            for _ in 0..pauses {
                yield_now().await;
            }
        };
        let result = match self {
            Self::Write(field, value) => {
                let mut guard = session.write().await;
                pause().await;
                guard.set_field(field, value);
                Ok(())
            }
            Self::Read => {
                let guard = session.read().await;
                pause().await;
                return Did::Saw(guard.user, guard.a, guard.b);
            }
            Self::Save => session.save().await,
            Self::Update(field, value) => session.update(|s| s.set_field(field, value)).await,
            Self::Lock(field, value) => match session.lock().await {
                Ok(mut guard) => {
                    pause().await;
                    guard.set_field(field, value);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Self::Login(user) => session.login(user).await,
            Self::LoginAnew(user) => session.login(user).without_earlier_data().await,
            Self::Destroy => session.destroy().await,
            Self::Renew => session.renew_id().await,
            Self::Lifetime(hours) => {
                let idle = Duration::from_secs(hours * 3_600);
                session.set_lifetime(Lifetime::new().with_idle_timeout(idle));
                Ok(())
            }
            Self::Discard => {
                session.discard_request_changes();
                Ok(())
            }
        };
        match result {
            Ok(()) => Did::Done,
            Err(error) => Did::Refused(error.kind()),
        }
    }
}

/// A step of a task: when it begins, how long it holds a guard, and when it is dropped.
#[derive(Clone, Copy, Debug)]
struct Planned {
    step: Step,
    pauses_before: usize,
    pauses_within: usize,
    most_polls: usize,
}

impl Planned {
    /// Writes of different values, so that none can be taken for another.
    fn random(random: &mut Random, value: u8) -> Self {
        let field = random.below(2);
        let step = match random.below(16) {
            0..4 => Step::Write(field, value),
            4 => Step::Read,
            5 => Step::Save,
            6 => Step::Update(field, value),
            7 => Step::Lock(field, value),
            8..10 => Step::Login(1 + random.below(2) as u64),
            10 => Step::LoginAnew(1 + random.below(2) as u64),
            11..13 => Step::Destroy,
            13 => Step::Renew,
            14 => Step::Lifetime(u64::from(value)),
            _ => Step::Discard,
        };
        let most_polls = if random.below(8) == 0 { 1 + random.below(8) } else { usize::MAX };
        let (pauses_before, pauses_within) = (random.below(6), random.below(3));
        Self { step, pauses_before, pauses_within, most_polls }
    }
}

/// How a request begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    has_session: bool,
    is_logged_in: bool,
    has_unsaved: bool,
}

/// What can be seen afterwards.
#[derive(Clone, Debug, PartialEq)]
struct Next {
    /// What the client's next request finds, with the session's lifetime, if it finds anything.
    found: Option<(Did, String)>,
    /// The cookie that the request came with opens a session.
    old_opens: bool,
    /// How many sessions the store has.
    live: usize,
}

/// One run, with a store of its own.
struct World {
    layer: SessionLayer<Data>,
    store: Stepping,
    clock: ManualClock,
}

type Log = Arc<Mutex<[Vec<Did>; TASKS]>>;

impl World {
    fn new(random: Option<Random>) -> Self {
        let clock = ManualClock::new();
        let builder = MemoryStore::builder().with_sweep_interval(Duration::from_secs(3_600));
        let store = Stepping {
            store: builder.with_clock(&clock).build(),
            random: random.map(|random| Arc::new(Mutex::new(random))),
            keys: Arc::default(),
        };
        let builder = SessionLayer::builder(store.clone(), Keys::generate()).with_clock(&clock);
        Self { layer: builder.build().unwrap(), store, clock }
    }

    /// Sends a request, and gives its cookie afterwards and what the handler gave.
    async fn send<R: Send + 'static, F: Future<Output = R> + Send>(
        &self,
        cookie: Option<&str>,
        handler: impl FnOnce(Session<Data>) -> F + Send,
    ) -> (Option<String>, R) {
        let mut handler = Some(handler);
        let service = self.layer.layer(service_fn(move |request: Request<()>| {
            let handler = handler.take().expect("one request");
            async move {
                let session = Session::<Data>::open(request.extensions()).await.unwrap();
                let given = handler(session).await;
                let mut response = Response::new(String::new());
                response.extensions_mut().insert(Arc::new(Mutex::new(Some(given))));
                Ok::<_, Infallible>(response)
            }
        }));
        let request = Request::builder();
        let request = match cookie {
            Some(cookie) => request.header(header::COOKIE, cookie),
            None => request,
        };
        let mut response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let sent = response.headers().get(header::SET_COOKIE).map(|line| line.to_str().unwrap());
        let cookie = match sent {
            Some(line) if line.contains("Max-Age=0") => None,
            Some(line) => line.split(';').next().map(ToString::to_string),
            None => cookie.map(ToString::to_string),
        };
        let given = response.extensions_mut().remove::<Arc<Mutex<Option<R>>>>().unwrap();
        let given = given.lock().unwrap().take().unwrap();
        (cookie, given)
    }

    async fn begin(&self, start: Start) -> Option<String> {
        if !start.has_session {
            return None;
        }
        let handler = move |session: Session<Data>| async move {
            session.write().await.set_field(0, 100);
            if start.is_logged_in {
                session.login(1).await.unwrap();
            }
        };
        self.send(None, handler).await.0
    }

    /// What comes of a request that ends with this cookie.
    async fn next(&self, old: Option<String>, cookie: Option<String>) -> Next {
        self.layer.wait_for_background_saves().await;
        // A task that renews a lease is gone a moment after its guard.
        yield_now().await;
        assert_eq!(self.layer.sessions_in_use(), 0);
        let look = |session: Session<Data>| async move {
            let did = Step::Read.run(&session, 0).await;
            (!session.began_in_request()).then(|| (did, format!("{:?}", session.lifetime())))
        };
        let mut found = None;
        if let Some(cookie) = cookie {
            found = self.send(Some(&cookie), look).await.1;
        }
        let mut old_opens = false;
        if let Some(old) = old {
            old_opens = self.send(Some(&old), look).await.1.is_some();
        }
        let mut live = 0;
        // What a renewal leaves for a moment is no session.
        let in_a_minute = self.clock.now() + Duration::from_secs(60);
        let keys = self.store.keys.lock().unwrap().clone();
        for key in keys {
            let record = self.store.store.load(&key).await.unwrap();
            live += usize::from(record.is_some_and(|record| record.expires_at > in_a_minute));
        }
        Next { found, old_opens, live }
    }
}

async fn write_before(session: &Session<Data>, start: Start) {
    if start.has_unsaved {
        session.write().await.set_field(1, 101);
    }
}

/// What has come of a case.
struct Raced {
    did: [Vec<Did>; TASKS],
    next: Next,
    hung_up: bool,
}

impl Raced {
    /// How many saves were dropped that may have begun a session whose id nobody knows; that of the response
    /// is one.
    fn dropped_saves(&self, case: &Case) -> usize {
        let steps = case.tasks.iter().flatten().zip(self.did.iter().flatten());
        steps
            .filter(|(planned, did)| {
                let saves = matches!(planned.step, Step::Save | Step::Update(..) | Step::Lock(..));
                saves && **did == Did::Dropped
            })
            .count()
            + usize::from(self.hung_up)
    }
}

#[derive(Clone, Debug)]
struct Case {
    start: Start,
    tasks: [Vec<Planned>; TASKS],
    /// After so many polls the client hangs up.
    hangs_up: Option<usize>,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        let has_session = random.below(4) > 0;
        let start = Start {
            has_session,
            is_logged_in: random.below(2) == 0,
            has_unsaved: random.below(2) == 0,
        };
        let first = 1 + random.below(3);
        let mut value = 0;
        let tasks = [first, 4 - first].map(|steps| {
            let mut step = |_| {
                value += 1;
                Planned::random(random, value)
            };
            (0..steps).map(&mut step).collect()
        });
        let hangs_up = (random.below(5) == 0).then(|| 1 + random.below(40));
        Self { start, tasks, hangs_up }
    }

    /// Runs the tasks at once.
    async fn race(&self, random: Random) -> Raced {
        let world = World::new(Some(random));
        let old = world.begin(self.start).await;
        let log = Log::default();
        let (own, case) = (log.clone(), self.clone());
        let run = move |session: Session<Data>| async move {
            write_before(&session, case.start).await;
            let is_in_one_task = case.hangs_up.is_some();
            let [one, other] = [0, 1].map(|task| {
                let (steps, log, session) =
                    (case.tasks[task].clone(), own.clone(), session.clone());
                run_task(steps, task, log, session)
            });
            if is_in_one_task {
                tokio::join!(one, other);
            } else {
                let [one, other] = [tokio::spawn(one), tokio::spawn(other)];
                one.await.unwrap();
                other.await.unwrap();
            }
        };
        let request = world.send(old.as_deref(), run);
        let ended = polled(request, self.hangs_up.unwrap_or(usize::MAX)).await;
        let hung_up = ended.is_none();
        let cookie = ended.map_or_else(|| old.clone(), |(cookie, ())| cookie);
        let next = world.next(old, cookie).await;
        let did = log.lock().unwrap().clone();
        Raced { did, next, hung_up }
    }

    /// Runs these steps one after the other, if each of them does what it has to.
    async fn replay(&self, world: &World, order: &[Event], hangs_up: bool) -> Option<Next> {
        world.store.keys.lock().unwrap().clear();
        let old = world.begin(self.start).await;
        let (start, order) = (self.start, order.to_vec());
        let is_through = Arc::new(Mutex::new(None));
        let own = is_through.clone();
        let run = move |session: Session<Data>| async move {
            write_before(&session, start).await;
            let mut is_alike = true;
            for event in order {
                let did = event.step.run(&session, 0).await;
                is_alike &= event.did.is_none_or(|wanted| wanted == did);
            }
            *own.lock().unwrap() = Some(is_alike);
            if hangs_up {
                std::future::pending::<()>().await;
            }
        };
        let cookie = {
            let mut request = pin!(world.send(old.as_deref(), run));
            poll_fn(|cx| match request.as_mut().poll(cx) {
                Poll::Ready((cookie, ())) => Poll::Ready(cookie),
                Poll::Pending if is_through.lock().unwrap().is_some() && hangs_up => {
                    Poll::Ready(old.clone())
                }
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        let is_alike = is_through.lock().unwrap().unwrap();
        let next = world.next(old, cookie).await;
        is_alike.then_some(next)
    }

    /// Whether some order of the steps explains what has come of them.
    async fn is_explained(&self, raced: &Raced) -> bool {
        if raced.did.iter().any(Vec::is_empty) {
            // The client has hung up before the tasks began.
            return true;
        }
        let events = self.events(&raced.did);
        let mut orders = Vec::new();
        note_orders(&events, &mut Vec::new(), &mut vec![false; events.len()], &mut orders);
        let quiet = World::new(None);
        for order in orders {
            let Some(next) = self.replay(&quiet, &order, raced.hung_up).await else { continue };
            let may_be_live = next.live..=next.live + raced.dropped_saves(self);
            if may_be_live.contains(&raced.next.live)
                && raced.next == (Next { live: raced.next.live, ..next })
            {
                return true;
            }
        }
        false
    }

    fn has(&self, is_it: impl Fn(Step) -> bool) -> bool {
        self.tasks.iter().flatten().any(|planned| is_it(planned.step))
    }

    /// What has happened, as far as it has to be explained.
    fn events(&self, did: &[Vec<Did>; TASKS]) -> Vec<Event> {
        let is_login = |it| matches!(it, Step::Login(_) | Step::LoginAnew(_));
        let mut events: Vec<Event> = Vec::new();
        for (task, did) in did.iter().enumerate() {
            let mut firm = Vec::new();
            for (Planned { step, .. }, did) in self.tasks[task].iter().copied().zip(did) {
                let is_firm = match did {
                    Did::Nothing => continue,
                    // What is discarded while a save has it on its way is back with the save's answer.
                    Did::Saw(..) if self.has(|it| it == Step::Discard) => continue,
                    Did::Refused(ErrorKind::Ended) => continue,
                    // The other task writes, and nothing was saved.
                    Did::Refused(ErrorKind::GuardHeld) if step == Step::Save => continue,
                    Did::Refused(kind) => panic!("{step:?} was refused: {kind:?}"),
                    Did::Done | Did::Saw(..) => true,
                    Did::Dropped => false,
                };
                let mut after = firm.clone();
                if matches!(step, Step::Lifetime(_)) && self.has(is_login) {
                    // The lifetime of a login takes the place of one that is set while the login goes on.
                    after.clear();
                }
                if is_firm {
                    firm.push(events.len());
                }
                events.push(Event { step, did: is_firm.then_some(*did), after });
                // A lock saves first, and is given back by a save in the background; an update saves first.
                let may_save =
                    matches!((step, is_firm), (Step::Lock(..), _) | (Step::Update(..), false));
                if may_save {
                    events.push(Event { step: Step::Save, did: None, after: firm.clone() });
                }
            }
        }
        events
    }
}

async fn run_task(steps: Vec<Planned>, task: usize, log: Log, session: Session<Data>) {
    let note = |at: usize, did: Did| log.lock().unwrap()[task][at] = did;
    log.lock().unwrap()[task] = vec![Did::Nothing; steps.len()];
    for (at, planned) in steps.into_iter().enumerate() {
        for _ in 0..planned.pauses_before {
            yield_now().await;
        }
        // Until it says something else.
        note(at, Did::Dropped);
        let run = planned.step.run(&session, planned.pauses_within);
        note(at, polled(run, planned.most_polls).await.unwrap_or(Did::Dropped));
    }
}

/// A step that has happened, or may have.
#[derive(Clone, Debug)]
struct Event {
    step: Step,
    /// What it did, if it has happened for certain.
    did: Option<Did>,
    /// What was done before it began.
    after: Vec<usize>,
}

/// All orders of the events, with and without those that may not have happened.
fn note_orders(
    events: &[Event],
    order: &mut Vec<Event>,
    taken: &mut Vec<bool>,
    orders: &mut Vec<Vec<Event>>,
) {
    if (0..events.len()).all(|at| taken[at] || events[at].did.is_none()) {
        orders.push(order.clone());
    }
    for at in 0..events.len() {
        if taken[at] || !events[at].after.iter().all(|before| taken[*before]) {
            continue;
        }
        taken[at] = true;
        order.push(events[at].clone());
        note_orders(events, order, taken, orders);
        order.pop();
        taken[at] = false;
    }
}

#[test]
fn two_tasks_of_a_request_do_what_they_would_one_after_the_other() {
    for_all("tasks", 40, async |random| {
        let case = Case::random(random);
        let raced = case.race(Random(random.next())).await;
        if !case.is_explained(&raced).await {
            let (Case { start, tasks, .. }, Raced { did, next, hung_up }) = (&case, &raced);
            let steps: Vec<Vec<_>> = tasks
                .iter()
                .zip(did)
                .map(|(steps, did)| steps.iter().map(|it| it.step).zip(did).collect())
                .collect();
            panic!(
                "no order of the steps explains {next:?}\nstart: {start:?}\nhung up: {hung_up}\n\
                 {steps:?}"
            );
        }
    });
}
