//! Every order in which the calls of one session can come in a process that has a cache before its store, with calls
//! of the cache and of the store that fail before or after they have happened, and calls that are dropped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use sessions::{Created, Record, Replaced, Store, UserIndex, store::Cached};

use crate::one_record::{ALL, Goes, KEY, One, Running, Step, Turns, USER, now};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Creates,
    Looks,
    LooksPast,
    /// Saves upon what was there at first.
    Saves,
    /// Looks, and saves upon what it sees.
    LooksAndSaves,
    Touches,
    Ends,
    /// Ends what was there at first, unless it was saved since.
    EndsFirst,
    EndsAllOfUser,
    /// The session becomes the user's.
    LogsIn,
    /// The cache makes room.
    GivesWay,
    /// Another process saves or ends, which this one may see later.
    SavesElsewhere,
    EndsElsewhere,
}

use Process::{
    Creates, Ends, EndsAllOfUser, EndsElsewhere, EndsFirst, GivesWay, LogsIn, Looks, LooksAndSaves,
    LooksPast, Saves, SavesElsewhere, Touches,
};

/// What every call that begins from here on has to see.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// An end was acknowledged, or somebody has looked and the session was gone.
    has_ended: bool,
    /// The newest version that was acknowledged, or seen.
    version: u64,
    /// The latest expiry, in seconds since the session was created.
    expires_at: u64,
}

#[derive(Clone, Debug, Default)]
struct Stage {
    told: Arc<Mutex<Told>>,
    turns: Turns,
}

impl Stage {
    fn all(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    fn told(&self) -> Told {
        *self.all()
    }

    /// A look that began when this much had been told.
    fn has_seen(&self, begun: Told, found: Option<&Record>) {
        let mut told = self.all();
        let Some(found) = found else {
            // Before a session has begun there is none.
            told.has_ended |= begun.version > 0;
            return;
        };
        assert!(!begun.has_ended, "an ended session is seen again");
        assert!(found.version >= begun.version, "a save is not seen: {} {begun:?}", found.version);
        assert!(seconds(found) >= begun.expires_at, "a touch is not seen");
        told.has(found);
    }
}

impl Told {
    fn has(&mut self, record: &Record) {
        self.version = self.version.max(record.version);
        self.expires_at = self.expires_at.max(seconds(record));
    }
}

fn seconds(record: &Record) -> u64 {
    record.expires_at.duration_since(record.created_at).unwrap().as_secs()
}

/// Who calls.
#[derive(Clone)]
struct Caller {
    store: Cached<One, One>,
    cache: One,
    remote: One,
    stage: Stage,
    first: Record,
}

impl Caller {
    fn saved(&self, record: &Record) -> Record {
        let expires_at = self.first.expires_at + Duration::from_secs(30);
        record.clone().with_version(record.version + 1).with_expires_at(expires_at)
    }

    async fn looks(&self) -> Option<Record> {
        let begun = self.stage.told();
        let found = self.store.load(&KEY).await.ok()?;
        self.stage.has_seen(begun, found.as_ref());
        found
    }

    async fn saves(&self, based_on: &Record, user: Option<&str>) {
        let record = self.saved(based_on).with_user(user.map(Into::into));
        match self.store.replace(&KEY, &record, based_on.version).await {
            Ok(Replaced::Done) => self.stage.all().has(&record),
            Ok(Replaced::Missing) => self.stage.all().has_ended = true,
            _ => {}
        }
    }

    /// Whether all sessions of the user have ended, when the user had this one all the time.
    async fn run(self, process: Process, has_user: bool) {
        let Self { store, cache, remote, stage, first } = &self;
        match process {
            Creates => {
                if let Ok(Created::Done) = store.create(&KEY, first).await {
                    stage.all().has(first);
                }
            }
            Looks => drop(self.looks().await),
            LooksPast => {
                let begun = stage.told();
                if let Ok(found) = store.load_latest(&KEY).await {
                    stage.has_seen(begun, found.as_ref());
                }
            }
            Saves => self.saves(first, first.user.as_deref()).await,
            LogsIn => self.saves(first, Some(USER)).await,
            LooksAndSaves => {
                if let Some(found) = self.looks().await {
                    self.saves(&found, found.user.as_deref()).await;
                }
            }
            Touches => {
                let expires_at = first.expires_at + Duration::from_secs(30);
                if store.touch(&KEY, expires_at).await.is_ok() {
                    let least = seconds(&first.clone().with_expires_at(expires_at));
                    stage.all().expires_at = least;
                }
            }
            Ends => {
                let has_begun = stage.told().version > 0;
                let ended = store.delete(&KEY).await;
                stage.all().has_ended |= ended.is_ok_and(|was_there| was_there || has_begun);
            }
            EndsFirst => {
                let ended = store.delete_version(&KEY, first.version).await;
                stage.all().has_ended |= ended.unwrap_or_default();
            }
            EndsAllOfUser => {
                let ended = store.delete_sessions_of(USER, None).await;
                stage.all().has_ended |= ended.is_ok_and(|ended| ended > 0 || has_user);
            }
            GivesWay => drop(cache.delete(&KEY).await),
            SavesElsewhere => drop(remote.replace(&KEY, &self.saved(first), 1).await),
            EndsElsewhere => drop(remote.delete(&KEY).await),
        }
    }
}

struct World {
    caller: Caller,
    running: Vec<Option<Running>>,
}

/// A session as it is at first, if it is there: whether the cache has it, and whose it is.
#[derive(Clone, Copy, Debug)]
struct First {
    is_cached: bool,
    user: Option<&'static str>,
}

impl World {
    fn new(processes: &[Process], first: First) -> Self {
        let stage = Stage::default();
        let one = || One::holding(None, &stage.turns);
        let (cache, remote) = (one(), one());
        let store = Cached::new(cache.clone(), remote.clone(), Duration::MAX);
        let created_at = SystemTime::UNIX_EPOCH;
        let record = Record::new(1, created_at, created_at + Duration::from_secs(60), *b"x")
            .with_user(first.user.map(Into::into));
        if !processes.contains(&Creates) {
            *remote.record() = Some(record.clone());
            if first.is_cached {
                assert_eq!(now(store.load(&KEY)).unwrap().as_ref(), Some(&record));
            }
            stage.all().version = 1;
        }
        stage.turns.begin(processes.len());
        let caller = Caller { store, cache, remote, stage, first: record };
        let running = processes.iter().map(|process| {
            let has_user = first.user.is_some() && !processes.contains(&Creates);
            let running = caller.clone().run(*process, has_user);
            Some(Box::pin(running) as Running)
        });
        let running = running.collect();
        Self { caller, running }
    }

    fn step(&mut self, step: Step) {
        self.caller.stage.turns.step(&mut self.running, step);
    }

    /// All is done: the cache has what the store has, or nothing.
    fn check(&self, is_alone: bool) {
        self.caller.stage.turns.are_over();
        for _ in 0..2 {
            let begun = self.caller.stage.told();
            let found = now(self.caller.store.load(&KEY)).unwrap();
            self.caller.stage.has_seen(begun, found.as_ref());
            assert!(!is_alone || found == *self.caller.remote.record(), "{found:?}");
        }
    }
}

/// What can be done next.
fn steps(world: &World, begun: &[bool], may_fail: bool) -> Vec<Step> {
    let running = (0..world.running.len()).filter(|process| world.running[*process].is_some());
    running
        .flat_map(|process| {
            let goes = match may_fail && begun[process] {
                true => &ALL[..],
                false => &ALL[..1],
            };
            goes.iter().map(move |goes| (process, *goes))
        })
        .collect()
}

/// Goes through every order to its end, with at most so many failures. How many orders there are.
fn explore(processes: &[Process], first: First, most_faults: usize) -> usize {
    let is_alone = !processes.iter().any(|it| matches!(it, SavesElsewhere | EndsElsewhere));
    // What was done at each step, and what else could have been done there.
    let mut path: Vec<(Step, Vec<Step>)> = Vec::new();
    let mut orders = 0;
    loop {
        let mut at = 0;
        let walked = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(processes, first);
            let (mut begun, mut faults) = (vec![false; processes.len()], 0);
            loop {
                if at == path.len() {
                    let mut next = steps(&world, &begun, faults < most_faults);
                    let Some(step) = next.pop() else { break world.check(is_alone) };
                    path.push((step, next));
                }
                let step = path[at].0;
                at += 1;
                begun[step.0] = true;
                faults += usize::from(step.1 != Goes::Well);
                world.step(step);
            }
        }));
        let steps = path.iter().map(|(step, _)| *step);
        walked.unwrap_or_else(|_| {
            panic!("{processes:?}, {first:?}: {:?}", steps.collect::<Vec<_>>())
        });
        orders += 1;
        while path.last().is_some_and(|(_, others)| others.is_empty()) {
            path.pop();
        }
        let Some((step, others)) = path.last_mut() else { return orders };
        *step = others.pop().expect("it has others");
    }
}

const NEW: First = First { is_cached: false, user: None };
const CACHED: First = First { is_cached: true, ..NEW };
const THEIRS: First = First { user: Some(USER), ..CACHED };

#[test]
fn no_order_of_calls_and_failures_shows_an_ended_session_or_hides_a_save() {
    // All orders of `Looks`, `LooksPast` and `Saves` held too, which took three minutes (6,750,688).
    for (processes, firsts, most_faults) in [
        (&[Saves, Ends][..], &[NEW, CACHED][..], 2),
        (&[Looks, Ends], &[NEW], 2),
        (&[Saves, EndsFirst], &[NEW, CACHED], 1),
        (&[Looks, EndsFirst], &[NEW, CACHED], 1),
        (&[Looks, Saves], &[NEW, CACHED], 1),
        (&[LooksPast, Saves], &[CACHED], 1),
        (&[LooksPast, Touches], &[NEW, CACHED], 2),
        (&[LooksAndSaves, Ends], &[CACHED], 1),
        (&[Creates, Looks], &[NEW], 1),
        (&[Creates, Ends], &[NEW], 2),
        (&[Creates, EndsAllOfUser], &[THEIRS], 2),
        (&[Saves, EndsAllOfUser], &[THEIRS], 1),
        (&[LogsIn, EndsAllOfUser], &[NEW, CACHED], 2),
        (&[Looks, EndsAllOfUser], &[THEIRS], 2),
        (&[Saves, Saves, Ends], &[NEW, CACHED], 0),
        (&[LooksPast, Saves, Ends], &[CACHED], 0),
        (&[LooksPast, Ends, GivesWay], &[NEW, CACHED], 0),
        (&[LooksPast, Saves, GivesWay], &[CACHED], 0),
        (&[LooksPast, Touches, GivesWay], &[CACHED], 0),
        (&[LooksPast, LogsIn, EndsAllOfUser], &[CACHED], 0),
        (&[Looks, LooksPast, EndsElsewhere], &[NEW, CACHED], 0),
        (&[LooksPast, Saves, SavesElsewhere], &[CACHED], 0),
        (&[LooksPast, Ends, SavesElsewhere], &[CACHED], 0),
    ] {
        for first in firsts {
            let orders = explore(processes, *first, most_faults);
            assert!(orders > 200, "{processes:?}: {orders}");
        }
    }
}
