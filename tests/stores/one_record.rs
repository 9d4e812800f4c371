//! A store of one record, each of whose calls waits for its turn and goes as it is told; and every order in which the
//! calls of several processes to such stores can come.

use std::{
    collections::HashSet,
    fmt::Debug,
    future::{pending, poll_fn},
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use sessions::{Created, DynUserIndex, Record, Replaced, Store, StoreError, StoreKey, UserIndex};

pub(crate) const KEY: StoreKey = StoreKey::from_bytes([7; 32]);
pub(crate) const USER: &str = "ann";

/// How a call of a store goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    Well,
    /// An error, and nothing has happened.
    Refused,
    /// An error, although it has happened.
    AnswerLost,
    /// The process is dropped where it waits.
    Dropped,
    /// It is dropped when the call has happened, and before it hears of that.
    DroppedUnanswered,
}

pub(crate) const ALL: [Goes; 5] =
    [Goes::Well, Goes::Refused, Goes::AnswerLost, Goes::Dropped, Goes::DroppedUnanswered];

/// The next call of a store is this process's, and goes so.
pub(crate) type Step = (usize, Goes);

pub(crate) type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<Mutex<Turn>>);

#[derive(Debug, Default)]
struct Turn {
    running: usize,
    /// How the running call goes; `None` if nothing waits for its turn.
    goes: Option<Goes>,
    /// What the stores have answered, by process.
    answers: Vec<u64>,
}

impl Turns {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap()
    }

    pub(crate) fn running(&self) -> usize {
        self.turn().running
    }

    /// How the running call goes.
    pub(crate) fn goes(&self) -> Option<Goes> {
        self.turn().goes
    }

    /// From here on each call waits for its turn.
    pub(crate) fn begin(&self, processes: usize) {
        let mut turn = self.turn();
        turn.goes = Some(Goes::Well);
        turn.answers = vec![0; processes];
    }

    /// From here on every call goes well, and at once.
    pub(crate) fn are_over(&self) {
        self.turn().goes = None;
    }

    /// Polls one of the processes, whose call is the next one. Of a process that is done or dropped nothing is left.
    pub(crate) fn step(&self, all: &mut [Option<Running>], (process, goes): Step) {
        {
            let mut turn = self.turn();
            (turn.running, turn.goes) = (process, Some(goes));
        }
        let future = all[process].as_mut().expect("it is not done");
        let is_done = goes != Goes::Dropped
            && future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if is_done || matches!(goes, Goes::Dropped | Goes::DroppedUnanswered) {
            all[process] = None;
        }
    }

    /// What the processes go by that has been answered so far.
    pub(crate) fn hash(&self, hasher: &mut DefaultHasher) {
        self.turn().answers.hash(hasher);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct One {
    record: Arc<Mutex<Option<Record>>>,
    turns: Turns,
}

impl One {
    pub(crate) fn holding(record: Option<Record>, turns: &Turns) -> Self {
        Self { record: Arc::new(Mutex::new(record)), turns: turns.clone() }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap()
    }

    pub(crate) async fn call<R: Debug + Send>(
        &self,
        call: impl FnOnce(&mut Option<Record>) -> R + Send,
    ) -> Result<R, StoreError> {
        let mut is_its_turn = self.turns.goes().is_none();
        poll_fn(|_| match std::mem::replace(&mut is_its_turn, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        let Some(goes) = self.turns.goes() else { return Ok(call(&mut self.record())) };
        let answer = (goes != Goes::Refused).then(|| call(&mut self.record()));
        let answer = answer.filter(|_| goes == Goes::Well);
        {
            let mut turn = self.turns.turn();
            let Turn { running, answers, .. } = &mut *turn;
            let mut hasher = DefaultHasher::new();
            (answers[*running], format!("{answer:?}")).hash(&mut hasher);
            self.hash(&mut hasher);
            answers[*running] = hasher.finish();
        }
        if goes == Goes::DroppedUnanswered {
            pending().await
        }
        answer.ok_or_else(|| StoreError::new("one", "call", "it fails"))
    }

    pub(crate) fn hash(&self, hasher: &mut DefaultHasher) {
        let record = self.record();
        // Not what the system's clock shows, which is another time in each order.
        let life = |it: &Record| it.expires_at.min(it.created_at + Duration::from_secs(3600));
        let parts = |it: &Record| (it.version, life(it), it.user.clone(), it.payload.clone());
        record.as_ref().map(parts).hash(hasher);
    }
}

impl Store for One {
    async fn load(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call(|held| held.clone()).await
    }

    async fn create(&self, _: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.call(|held| match held {
            Some(_) => Created::Exists,
            None => {
                *held = Some(record.clone());
                Created::Done
            }
        })
        .await
    }

    async fn replace(
        &self,
        _: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.call(|held| match held {
            None => Replaced::Missing,
            Some(held) if held.version != based_on => Replaced::Changed,
            Some(held) => {
                *held = record.clone();
                Replaced::Done
            }
        })
        .await
    }

    async fn touch(&self, _: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.call(|held| {
            if let Some(held) = held {
                held.expires_at = held.expires_at.max(expires_at);
            }
        })
        .await
    }

    async fn delete(&self, _: &StoreKey) -> Result<bool, StoreError> {
        self.call(|held| held.take().is_some()).await
    }

    async fn delete_version(&self, _: &StoreKey, version: u64) -> Result<bool, StoreError> {
        self.call(|held| held.take_if(|held| held.version == version).is_some()).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for One {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let is_theirs = |held: &&Record| held.user.as_deref() == Some(user);
        self.call(|held| held.iter().filter(is_theirs).map(|held| (KEY, held.clone())).collect())
            .await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        _: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let is_theirs = |held: &mut Record| held.user.as_deref() == Some(user);
        self.call(|held| u64::from(held.take_if(is_theirs).is_some())).await
    }
}

/// The outcome of a future that waits for nothing.
pub(crate) fn now<R>(future: impl Future<Output = R>) -> R {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits"),
    }
}

/// Processes that stand each before a call of a store.
pub(crate) trait World {
    fn running(&self) -> &[Option<Running>];

    fn step(&mut self, step: Step);

    /// What all that follows depends on.
    fn signature(&self) -> u64;

    /// What holds here.
    fn check(&self);
}

/// Goes through every order, with at most so many calls that fail, each in these ways. How many states there are.
pub(crate) fn explore<W: World>(
    processes: &dyn Debug,
    new: impl Fn() -> W,
    failures: &[Goes],
    most_failures: usize,
) -> usize {
    let mut seen = HashSet::new();
    // What has been done, and the world in which that has just been done, if there is one.
    let mut ahead: Vec<(Vec<Step>, Option<W>)> = vec![(Vec::new(), None)];
    while let Some((path, world)) = ahead.pop() {
        let failed = path.iter().filter(|(_, goes)| *goes != Goes::Well).count();
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let world = world.unwrap_or_else(|| {
                let mut world = new();
                path.iter().for_each(|step| world.step(*step));
                world
            });
            seen.insert((world.signature(), failed)).then(|| {
                world.check();
                world
            })
        }));
        let checked = checked.unwrap_or_else(|_| panic!("{processes:?}: {path:?}"));
        let Some(mut world) = checked else { continue };
        let failures = if failed < most_failures { failures } else { &[] };
        let goes = || failures.iter().chain(&[Goes::Well]);
        let running = (0..).zip(world.running()).filter(|(_, running)| running.is_some());
        let steps: Vec<Step> =
            running.flat_map(|(process, _)| goes().map(move |goes| (process, *goes))).collect();
        ahead.extend(steps.iter().map(|step| ([&path[..], &[*step]].concat(), None)));
        if let Some((path, next)) = ahead.last_mut().filter(|_| !steps.is_empty()) {
            let path = path.clone();
            let stepped = catch_unwind(AssertUnwindSafe(|| world.step(path[path.len() - 1])));
            stepped.unwrap_or_else(|_| panic!("{processes:?}: {path:?}"));
            *next = Some(world);
        }
    }
    seen.len()
}
