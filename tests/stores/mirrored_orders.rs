//! Every order in which the calls of several processes can come whose sessions are in a primary store and its replica,
//! with calls of either that fail before or after they have happened, and processes that are dropped before or after.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime},
};

use sessions::{Record, Store, UserIndex, store::Mirrored};

use crate::one_record::{ALL, Goes, KEY, One, Running, Step, Turns, USER, World, explore, now};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Creates,
    /// Saves upon what was there at first, with an end so many seconds after the first record's.
    Saves(u64),
    /// Looks, and saves upon what it sees.
    LooksAndSaves(u64),
    /// Moves the end so many seconds beyond the first record's.
    Touches(u64),
    Ends,
    /// Ends what was there at first, unless it was saved since.
    EndsFirst,
    EndsAllOfUser,
    /// The session becomes the user's, or nobody's.
    LogsIn,
    LogsOut,
}

use Process::{
    Creates, Ends, EndsAllOfUser, EndsFirst, LogsIn, LogsOut, LooksAndSaves, Saves, Touches,
};

/// What is in the two stores at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Nothing,
    Nobodys,
    Users,
}

type Mirror = Mirrored<One, One>;

fn first(user: Option<&str>) -> Record {
    let created_at = SystemTime::UNIX_EPOCH;
    Record::new(1, created_at, created_at + Duration::from_secs(60), *b"x")
        .with_user(user.map(Into::into))
}

/// The end of a session `seconds` after the first record's.
fn end(seconds: u64) -> SystemTime {
    first(None).expires_at + Duration::from_secs(seconds)
}

fn saved(based_on: &Record, seconds: u64) -> Record {
    // The payload says which save it was.
    let payload = [&based_on.payload[..], &seconds.to_be_bytes()].concat();
    based_on
        .clone()
        .with_version(based_on.version + 1)
        .with_expires_at(end(seconds))
        .with_payload(payload)
}

async fn run(process: Process, store: Mirror, first: Record) {
    let save = async |record: Record| drop(store.replace(&KEY, &record, record.version - 1).await);
    match process {
        Creates => drop(store.create(&KEY, &first).await),
        Saves(seconds) => save(saved(&first, seconds)).await,
        LooksAndSaves(seconds) => {
            if let Ok(Some(found)) = store.load(&KEY).await {
                save(saved(&found, seconds)).await;
            }
        }
        Touches(seconds) => drop(store.touch(&KEY, end(seconds)).await),
        Ends => drop(store.delete(&KEY).await),
        EndsFirst => drop(store.delete_version(&KEY, first.version).await),
        EndsAllOfUser => drop(store.delete_sessions_of(USER, None).await),
        LogsIn => save(saved(&first, 0).with_user(Some(USER.into()))).await,
        LogsOut => save(saved(&first, 0).with_user(None)).await,
    }
}

struct Mirroring {
    store: Mirror,
    primary: One,
    replica: One,
    turns: Turns,
    running: Vec<Option<Running>>,
    processes: Vec<Process>,
    has_failed: bool,
    /// What the primary has had.
    past: Vec<Record>,
}

impl Mirroring {
    fn new(processes: &[Process], begin: First) -> Self {
        let turns = Turns::default();
        let user = (begin == First::Users).then_some(USER);
        let record = (begin != First::Nothing).then(|| first(user));
        let primary = One::holding(record.clone(), &turns);
        let replica = One::holding(record, &turns);
        let store = Mirrored::builder(primary.clone(), replica.clone())
            .with_replica_timeout(Duration::from_secs(3600))
            .build();
        turns.begin(processes.len());
        let running = processes
            .iter()
            .map(|process| Some(Box::pin(run(*process, store.clone(), first(user))) as Running));
        let mut running: Vec<_> = running.collect();
        // Up to the first call of each.
        for process in 0..processes.len() {
            turns.step(&mut running, (process, Goes::Well));
        }
        let (processes, past) = (processes.to_vec(), primary.record().iter().cloned().collect());
        Self { store, primary, replica, turns, running, processes, has_failed: false, past }
    }

    /// Whether the replica may differ, and that is counted.
    fn is_counted(&self) -> bool {
        let stats = self.store.stats();
        stats.failures + stats.in_doubt > 0
    }

    fn assert_same(&self, when: &str) {
        assert_eq!(*self.primary.record(), *self.replica.record(), "{when}");
    }

    /// What each of the calls that may come next makes good, whatever was missed.
    fn assert_is_made_good(&self) {
        let (in_primary, in_replica) =
            (self.primary.record().clone(), self.replica.record().clone());
        let user = in_primary.as_ref().map(|record| record.user.clone());
        let calls = match user {
            None => &[Touches(90), Saves(5), Ends][..],
            Some(None) => &[Touches(90), LooksAndSaves(5), Ends],
            Some(Some(_)) => &[Touches(90), LooksAndSaves(5), Ends, EndsAllOfUser],
        };
        for &process in calls {
            now(run(process, self.store.clone(), first(None)));
            self.assert_same(&format!("after {process:?}"));
            self.primary.record().clone_from(&in_primary);
            self.replica.record().clone_from(&in_replica);
        }
    }
}

impl World for Mirroring {
    fn running(&self) -> &[Option<Running>] {
        &self.running
    }

    fn step(&mut self, step: Step) {
        self.has_failed |= step.1 != Goes::Well;
        let version = |store: &One| store.record().as_ref().map(|record| record.version);
        let before = version(&self.replica);
        self.turns.step(&mut self.running, step);
        let after = version(&self.replica);
        assert!(after.is_none() || before <= after, "the replica goes back to an earlier save");
        self.past.extend(self.primary.record().clone());
    }

    fn signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.primary.hash(&mut hasher);
        self.replica.hash(&mut hasher);
        self.turns.hash(&mut hasher);
        let is_running = self.running.iter().map(Option::is_some);
        is_running.collect::<Vec<_>>().hash(&mut hasher);
        self.is_counted().hash(&mut hasher);
        hasher.finish()
    }

    fn check(&self) {
        if let Some(copy) = &*self.replica.record() {
            let is_copy = |it: &Record| it.clone().with_expires_at(copy.expires_at) == *copy;
            assert!(self.past.iter().any(is_copy), "the primary has never had it");
            let calls = || self.processes.iter().zip(&self.running);
            let has_ended = calls().any(|(call, running)| *call == Ends && running.is_none());
            let is_new = self.processes.contains(&Creates);
            assert!(!has_ended || is_new || self.has_failed, "it has ended");
        }
        if self.running.iter().any(Option::is_some) {
            return;
        }
        assert!(self.has_failed || !self.is_counted(), "a miss is counted where there was none");
        self.turns.are_over();
        if !self.is_counted() {
            self.assert_same("when all is done");
        }
        self.assert_is_made_good();
    }
}

#[test]
fn in_whatever_order_calls_come_and_fail_the_replica_comes_to_what_the_primary_has() {
    // For the timeout, which nothing here waits for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _in_runtime = runtime.enter();
    use First::{Nobodys, Nothing, Users};
    // The last of these held too where one of the saves is based on a look (647,914 states), as did a login, a touch and
    // the end of all of the user's sessions (712,371).
    for (processes, begin, most_failures) in [
        (&[Touches(90), Saves(30)][..], Nobodys, 2),
        (&[Touches(30), Saves(90)], Nobodys, 1),
        (&[Touches(90), Ends], Nobodys, 2),
        (&[Saves(1), Ends], Nobodys, 2),
        (&[Saves(1), EndsFirst], Nobodys, 2),
        (&[Touches(90), EndsFirst], Nobodys, 1),
        (&[Saves(1), LooksAndSaves(2), EndsFirst], Nobodys, 0),
        (&[Saves(1), LooksAndSaves(2)], Nobodys, 1),
        (&[Creates, Ends], Nothing, 2),
        (&[Creates, LooksAndSaves(1)], Nothing, 1),
        (&[Creates, Touches(90)], Nothing, 1),
        (&[Creates, Touches(90), Ends], Nothing, 0),
        (&[Saves(1), EndsAllOfUser], Users, 1),
        (&[LogsIn, EndsAllOfUser], Nobodys, 1),
        (&[LogsOut, EndsAllOfUser], Users, 1),
        (&[Creates, EndsAllOfUser], Nothing, 1),
        (&[Saves(30), Touches(90), Ends], Nobodys, 1),
        (&[Saves(30), LooksAndSaves(40), Touches(90)], Nobodys, 0),
        (&[Saves(5), Touches(30), Touches(90)], Nobodys, 0),
        (&[LogsIn, Saves(40), EndsAllOfUser], Nobodys, 0),
        (&[Saves(30), Saves(40), Touches(90), Ends], Nobodys, 0),
    ] {
        let states =
            explore(&processes, || Mirroring::new(processes, begin), &ALL[1..], most_failures);
        assert!(states > 100, "{processes:?}: {states}");
    }
}
