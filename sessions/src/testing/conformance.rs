use std::{
    error::Error as _,
    future::poll_fn,
    panic::resume_unwind,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::{
    clock::{from_millis, to_millis},
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{Created, Replaced, Store},
};

#[cfg(test)]
mod tests;

/// How long one call may take before the store counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);
/// How far the store's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(1);
/// The life of a session that is not to expire during the test.
const LONG: Duration = Duration::from_secs(3600);
/// How many tasks do the same thing at once, and how often.
const TASKS: u64 = 8;
const ROUNDS: u64 = 25;

/// Checks everything that [`Store`] promises. Returns if `store` keeps all of it.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = sessions::MemoryStore::new(); // or yours
/// sessions::testing::conformance(store).await;
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
///
/// It works on random keys and minds no others, so `store` may be in use, and several checks may
/// run on one server at once. Unless it fails, it deletes what it makes.
///
/// Call it on a runtime with several threads (`#[tokio::test(flavor = "multi_thread")]`): a store
/// that answers without waiting for anything is otherwise never used by two tasks at once. It runs
/// in real time, for about a second and some two thousand calls; the clocks of the store and of
/// this process may differ by a fraction of a second. To go on using the store, pass it in an
/// [`Arc`].
///
/// # Panics
///
/// When the store breaks a promise, fails, or does not answer for 30 seconds. The message says
/// which promise it was.
pub async fn conformance<S: Store>(store: S) {
    let suite = Suite { store: Arc::new(store) };
    suite.gives_back_what_it_was_given().await;
    suite.knows_nothing_of_other_keys().await;
    suite.never_mixes_up_two_keys().await;
    suite.create_never_overwrites().await;
    suite.replace_compares_versions().await;
    suite.replace_sets_every_field().await;
    suite.touch_only_moves_the_expiry_later().await;
    suite.delete_is_for_good().await;
    suite.delete_version_leaves_what_others_have_put_there().await;
    suite.expired_counts_as_absent().await;
    suite.one_of_many_creates_wins().await;
    suite.one_of_many_replaces_wins().await;
    suite.one_of_many_deletes_wins().await;
    suite.no_save_is_lost().await;
    suite.no_load_sees_half_a_save().await;
    suite.nothing_brings_back_a_deleted_record().await;
    suite.one_of_a_save_and_the_end_of_its_base_wins().await;
    suite.survives_calls_that_are_dropped().await;
}

/// The one way in which the check fails.
#[track_caller]
fn promise(kept: bool, words: &str) {
    assert!(kept, "the store breaks a promise: {words}");
}

/// What a call answered. A store that fails or hangs keeps no promise.
async fn answer<T>(name: &str, call: impl Future<Output = Result<T, StoreError>>) -> T {
    match timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => panic!("`{name}` failed: {error}: {:?}", error.source()),
        Err(_) => panic!("`{name}` did not answer within {PATIENCE:?}"),
    }
}

/// A key that nobody has used.
fn new_key() -> StoreKey {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    StoreKey::from_bytes(bytes)
}

/// The time that many milliseconds from now, to the millisecond.
fn from_now(duration: Duration) -> SystemTime {
    from_millis(to_millis(SystemTime::now() + duration))
}

fn new_record(version: u64, payload: &[u8], life: Duration) -> Record {
    Record {
        version,
        created_at: from_now(Duration::ZERO),
        expires_at: from_now(life),
        user: Some("ann".into()),
        payload: payload.into(),
    }
}

/// Compares two records field by field, because their `Debug` hides what is in them.
#[track_caller]
fn same(found: Option<&Record>, given: &Record, when: &str) {
    let Some(found) = found else {
        return promise(false, &format!("{when}, but `load` finds no record"));
    };
    let fields = [
        ("version", found.version == given.version),
        ("created_at", found.created_at == given.created_at),
        ("expires_at", found.expires_at == given.expires_at),
        ("user", found.user == given.user),
        ("payload", found.payload == given.payload),
    ];
    for (field, equal) in fields {
        promise(equal, &format!("{when}, but `{field}` of the loaded record is another"));
    }
}

/// Does the same thing in several tasks that start at the same moment; their answers, in order.
async fn at_once<T, F>(tasks: u64, task: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(tasks as usize));
    let mut running = JoinSet::new();
    for number in 0..tasks {
        let (start, task) = (start.clone(), task(number));
        running.spawn(async move {
            start.wait().await;
            (number, task.await)
        });
    }
    let mut answers = Vec::new();
    while let Some(ended) = running.join_next().await {
        // A promise that was found broken in there is found broken here.
        answers.push(ended.unwrap_or_else(|error| resume_unwind(error.into_panic())));
    }
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Polls a call that often at most, and drops it.
async fn poll_and_drop(polls: u64, call: impl Future) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let done = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        if done {
            break;
        }
        // Lets the runtime carry on with whatever the call waits for.
        yield_now().await;
    }
}

struct Suite<S> {
    store: Arc<S>,
}

impl<S> Clone for Suite<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

/// The store's methods, without errors.
impl<S: Store> Suite<S> {
    async fn load(&self, key: &StoreKey) -> Option<Record> {
        answer("load", self.store.load(key)).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Created {
        answer("create", self.store.create(key, record)).await
    }

    async fn replace(&self, key: &StoreKey, record: &Record, based_on: u64) -> Replaced {
        answer("replace", self.store.replace(key, record, based_on)).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) {
        answer("touch", self.store.touch(key, expires_at)).await;
    }

    async fn delete(&self, key: &StoreKey) -> bool {
        answer("delete", self.store.delete(key)).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> bool {
        answer("delete_version", self.store.delete_version(key, version)).await
    }

    /// A record under a key that nobody has used.
    async fn created(&self, record: &Record) -> StoreKey {
        let key = new_key();
        let created = self.create(&key, record).await;
        promise(created == Created::Done, "`create` under a new key must answer `Done`");
        key
    }
}

/// The promises: each on keys of its own.
impl<S: Store> Suite<S> {
    async fn gives_back_what_it_was_given(&self) {
        // Long: one promise, with each value that a store might not keep.
        let plain = new_record(1, b"payload", LONG);
        let mut records = vec![plain.clone()];
        let every_byte: Vec<u8> = (0..=255).collect();
        let large: Vec<u8> = (0..256 * 1024_u32).map(|n| (n % 251) as u8).collect();
        for payload in [&every_byte[..], &large, b"", b"\0", b"\0\0 ", b"\xff\xfe", b" \r\n"] {
            records.push(Record { payload: payload.into(), ..plain.clone() });
        }
        let long = "x".repeat(254);
        let users =
            ["", "Ann", "o'hara", "\"; --", "a\\b\\'c", "a%_b", "日本 ë 🦀", " a\0b\n ", &long];
        records.push(Record { user: None, ..plain.clone() });
        for user in users {
            records.push(Record { user: Some(user.into()), ..plain.clone() });
        }
        for version in [0, 2, u64::from(u32::MAX), 1 << 32, (1 << 53) + 1, u64::MAX >> 1] {
            records.push(Record { version, ..plain.clone() });
        }
        for days in [29, 31, 400] {
            let expires_at = from_now(Duration::from_secs(days * 24 * 60 * 60));
            records.push(Record { expires_at, ..plain.clone() });
        }
        for millis in [1, 999, 1_000_000_000_001] {
            records.push(Record { created_at: from_millis(millis), ..plain.clone() });
        }
        for record in &records {
            let key = self.created(record).await;
            let found = self.load(&key).await;
            same(found.as_ref(), record, "a record that was created must come back as it was");
            self.delete(&key).await;

            let key = self.created(&plain).await;
            let replaced = self.replace(&key, record, plain.version).await;
            promise(replaced == Replaced::Done, "`replace` of the stored version must be `Done`");
            let found = self.load(&key).await;
            same(
                found.as_ref(),
                record,
                "a record that was replaced must come back as the new one",
            );
            self.delete(&key).await;
        }

        // Times finer than a millisecond may be rounded, but to no more than that.
        let odd = Duration::from_nanos(123_456_789);
        let created_at = plain.created_at + odd;
        let record = Record { created_at, expires_at: plain.expires_at + odd, ..plain };
        let key = self.created(&record).await;
        let found = self.load(&key).await.unwrap_or(new_record(0, b"", LONG));
        for (found, given) in
            [(found.created_at, record.created_at), (found.expires_at, record.expires_at)]
        {
            let apart = found.duration_since(given).unwrap_or_else(|error| error.duration());
            promise(apart <= Duration::from_millis(1), "times must be kept to the millisecond");
        }
        self.delete(&key).await;
    }

    async fn knows_nothing_of_other_keys(&self) {
        let (key, record) = (new_key(), new_record(2, b"new", LONG));
        promise(self.load(&key).await.is_none(), "`load` of an unknown key must find nothing");
        let replaced = self.replace(&key, &record, 1).await;
        promise(replaced == Replaced::Missing, "`replace` of an unknown key must be `Missing`");
        promise(self.load(&key).await.is_none(), "`replace` must never make a record");
        self.touch(&key, from_now(LONG)).await;
        promise(self.load(&key).await.is_none(), "`touch` must never make a record");
        promise(!self.delete(&key).await, "`delete` of an unknown key must answer `false`");
    }

    async fn never_mixes_up_two_keys(&self) {
        let base = *new_key().as_bytes();
        let mut keys = vec![base];
        // One byte apart, at each place in turn.
        for at in 0..32 {
            let mut other = base;
            other[at] ^= 1;
            keys.push(other);
        }
        // What a store that takes keys for text, or for numbers, might take for the same.
        let ends: [&[u8; 4]; 11] = [
            b"\0\0\0\0",
            b"    ",
            b"\0\0\0 ",
            b"\xff\xff\xff\xff",
            b"\x80\xfe\xff\xc0",
            b"'\";\\",
            b"\r\n\r\n",
            b"%_%_",
            b"*?[]",
            b"abcd",
            b"ABCD",
        ];
        for end in ends {
            let mut other = base;
            other[28..].copy_from_slice(end);
            keys.push(other);
        }
        let keys: Vec<_> = keys.into_iter().map(StoreKey::from_bytes).collect();
        let record = |number: usize| new_record(number as u64, &number.to_le_bytes(), LONG);
        let records: Vec<_> = (0..keys.len()).map(record).collect();
        for (key, record) in keys.iter().zip(&records) {
            let created = self.create(key, record).await;
            promise(created == Created::Done, "two keys that differ must be two sessions");
        }
        let (mut left, mut gone) = (keys.iter().zip(&records), Vec::new());
        while let Some((key, record)) = left.next() {
            let words = "two keys that differ in anything must be two sessions";
            same(self.load(key).await.as_ref(), record, words);
            promise(self.delete(key).await, "`delete` of a live record must answer `true`");
            gone.push(key);
            if let Some((next, record)) = left.clone().next() {
                let words = "`delete` of one key must leave all others";
                same(self.load(next).await.as_ref(), record, words);
            }
        }
        for key in gone {
            promise(self.load(key).await.is_none(), "a deleted record must be gone");
        }
    }

    async fn create_never_overwrites(&self) {
        let (first, second) = (new_record(1, b"first", LONG), new_record(2, b"second", 2 * LONG));
        let key = self.created(&first).await;
        for other in [&second, &first] {
            let created = self.create(&key, other).await;
            promise(created == Created::Exists, "`create` of a key in use must answer `Exists`");
            let words = "`create` must never overwrite a live record";
            same(self.load(&key).await.as_ref(), &first, words);
        }
        self.delete(&key).await;
        let created = self.create(&key, &second).await;
        promise(created == Created::Done, "`create` after a `delete` must answer `Done`");
        let words = "`create` after a `delete` must keep the new record";
        same(self.load(&key).await.as_ref(), &second, words);
        self.delete(&key).await;
    }

    async fn replace_compares_versions(&self) {
        let (old, new) = (new_record(5, b"old", LONG), new_record(6, b"new", LONG));
        let key = self.created(&old).await;
        for wrong in [0, 4, 6, 5 + (1 << 32), u64::MAX >> 1] {
            let replaced = self.replace(&key, &new, wrong).await;
            let words = "`replace` based on a version that is not the stored one must be `Changed`";
            promise(replaced == Replaced::Changed, words);
            let words = "a `replace` that is `Changed` must leave the record as it was";
            same(self.load(&key).await.as_ref(), &old, words);
        }
        let replaced = self.replace(&key, &new, 5).await;
        promise(replaced == Replaced::Done, "`replace` of the stored version must be `Done`");
        let replaced = self.replace(&key, &old, 5).await;
        promise(replaced == Replaced::Changed, "of two saves based on one version one must lose");
        let words = "a `replace` that is `Done` must keep the new record";
        same(self.load(&key).await.as_ref(), &new, words);
        self.delete(&key).await;
    }

    async fn replace_sets_every_field(&self) {
        let steps = [
            new_record(1, b"a long payload, to be cut", LONG),
            // Another of everything: no user, an earlier expiry, a later creation, a jump in
            // versions, a shorter payload. Then the other way round.
            Record {
                user: None,
                created_at: from_now(Duration::from_secs(60)),
                ..new_record(40, b"", LONG / 2)
            },
            Record { user: Some("bob".into()), ..new_record(7, b"long again", 2 * LONG) },
            Record { user: Some("bo".into()), ..new_record(8, b"long again", 2 * LONG) },
        ];
        let key = self.created(&steps[0]).await;
        for pair in steps.windows(2) {
            let replaced = self.replace(&key, &pair[1], pair[0].version).await;
            promise(replaced == Replaced::Done, "`replace` of the stored version must be `Done`");
            let words = "`replace` must set every field (and may shorten the expiry)";
            same(self.load(&key).await.as_ref(), &pair[1], words);
        }
        self.delete(&key).await;
    }

    async fn touch_only_moves_the_expiry_later(&self) {
        let mut record = new_record(3, b"payload", LONG);
        let key = self.created(&record).await;
        for earlier in [record.expires_at, from_now(LONG / 2), from_millis(1)] {
            self.touch(&key, earlier).await;
            same(self.load(&key).await.as_ref(), &record, "`touch` must never shorten the expiry");
        }
        for later in [2 * LONG, 1000 * LONG] {
            record.expires_at = from_now(later);
            self.touch(&key, record.expires_at).await;
            let words = "`touch` must move the expiry, and change nothing else";
            same(self.load(&key).await.as_ref(), &record, words);
        }
        let saved = new_record(4, b"saved", LONG);
        let replaced = self.replace(&key, &saved, record.version).await;
        promise(replaced == Replaced::Done, "`touch` must leave the version as it is");
        self.delete(&key).await;
    }

    async fn delete_is_for_good(&self) {
        let record = new_record(1, b"payload", LONG);
        let key = self.created(&record).await;
        promise(self.delete(&key).await, "`delete` of a live record must answer `true`");
        promise(self.load(&key).await.is_none(), "a deleted record must be gone");
        promise(!self.delete(&key).await, "a second `delete` must answer `false`");
        self.touch(&key, from_now(2 * LONG)).await;
        promise(self.load(&key).await.is_none(), "`touch` must not bring back a deleted record");
        let replaced = self.replace(&key, &new_record(2, b"new", LONG), 1).await;
        promise(replaced == Replaced::Missing, "`replace` of a deleted record must be `Missing`");
        promise(self.load(&key).await.is_none(), "`replace` must not bring back a deleted record");
    }

    async fn delete_version_leaves_what_others_have_put_there(&self) {
        let (old, new) = (new_record(1, b"old", LONG), new_record(2, b"new", LONG));
        let key = self.created(&old).await;
        let replaced = self.replace(&key, &new, 1).await;
        promise(replaced == Replaced::Done, "`replace` of the stored version must be `Done`");
        for version in [1, 3] {
            let words =
                "`delete_version` of another version than the stored one must answer `false`";
            promise(!self.delete_version(&key, version).await, words);
            let words = "`delete_version` of another version must leave the record as it is";
            same(self.load(&key).await.as_ref(), &new, words);
        }
        self.touch(&key, from_now(2 * LONG)).await;
        let words = "`delete_version` of the stored version must answer `true`";
        promise(self.delete_version(&key, 2).await, words);
        promise(self.load(&key).await.is_none(), "a deleted record must be gone");
        let words = "`delete_version` of what is gone must answer `false`";
        promise(!self.delete_version(&key, 2).await, words);
        let created = self.create(&key, &old).await;
        promise(created == Created::Done, "`create` after a `delete` must answer `Done`");
        self.delete(&key).await;
    }

    async fn expired_counts_as_absent(&self) {
        // Long: one promise, and its steps have to follow each other in time.
        // Of each record but the first only one thing is asked: a store may clean up when it meets
        // an expired one, and what it answers then must not depend on that.
        let mut life = Duration::from_millis(400);
        let (short, keys, [touched, prolonged, shortened]) = loop {
            let begun = Instant::now();
            let (short, long) = (new_record(1, b"short", life), new_record(1, b"long", LONG));
            let mut keys = [new_key(); 5];
            for key in &mut keys {
                *key = self.created(&short).await;
            }
            let touched = self.created(&short).await;
            self.touch(&touched, from_now(LONG)).await;
            let prolonged = self.created(&short).await;
            let one = self.replace(&prolonged, &Record { version: 2, ..long.clone() }, 1).await;
            let shortened = self.created(&long).await;
            let two = self.replace(&shortened, &Record { version: 2, ..short.clone() }, 1).await;
            // If that took so long that they may have expired in between, it proves nothing.
            if begun.elapsed() < life / 2 {
                promise([one, two] == [Replaced::Done; 2], "a record must not expire early");
                break (short, keys, [touched, prolonged, shortened]);
            }
            life *= 3;
        };

        // It is the store's clock that counts: when one has expired, so have all of that time.
        let [loaded, created, replaced, late, deleted] = &keys;
        loop {
            let overdue = SystemTime::now() > short.expires_at + SKEW;
            if self.load(loaded).await.is_none() {
                break;
            }
            promise(!overdue, "`load` must not return a record from its `expires_at` on");
            sleep(Duration::from_millis(10)).await;
        }

        let new = new_record(1, b"new", LONG);
        let answer = self.create(created, &new).await;
        promise(answer == Created::Done, "`create` must take the place of an expired record");
        let words = "`create` in the place of an expired record must keep the new one";
        same(self.load(created).await.as_ref(), &new, words);

        let answer = self.replace(replaced, &Record { version: 2, ..new.clone() }, 1).await;
        promise(answer == Replaced::Missing, "`replace` of an expired record must be `Missing`");
        let found = self.load(replaced).await;
        promise(found.is_none(), "`replace` must not bring back an expired record");

        self.touch(late, from_now(LONG)).await;
        let found = self.load(late).await;
        promise(found.is_none(), "`touch` must not bring back an expired record");

        let answer = self.delete(deleted).await;
        promise(!answer, "`delete` of an expired record must answer `false`");

        let found = self.load(&touched).await;
        promise(found.is_some(), "a record must live as long as the last `touch` has said");
        let found = self.load(&prolonged).await;
        promise(found.is_some(), "a record must live as long as the last `replace` has said");
        let found = self.load(&shortened).await;
        promise(found.is_none(), "a record must live no longer than the last `replace` has said");

        for key in [created, &touched, &prolonged] {
            self.delete(key).await;
        }
    }

    async fn one_of_many_creates_wins(&self) {
        for _ in 0..ROUNDS {
            let key = new_key();
            let task = |number: u64| {
                let suite = self.clone();
                let record = new_record(number, &number.to_le_bytes(), LONG);
                async move { suite.create(&key, &record).await }
            };
            let answers = at_once(TASKS, task).await;
            let winner = only(&answers, &Created::Done);
            let words = "of many creates of one key at once, exactly one must be `Done`";
            promise(winner.is_some(), words);
            let words = "of many creates of one key at once, the one that was `Done` must be kept";
            promise(self.load(&key).await.map(|record| record.version) == winner, words);
            self.delete(&key).await;
        }
    }

    async fn one_of_many_replaces_wins(&self) {
        for _ in 0..ROUNDS {
            let key = self.created(&new_record(1, b"base", LONG)).await;
            let task = |number: u64| {
                let suite = self.clone();
                let record = new_record(2, &number.to_le_bytes(), LONG);
                async move { suite.replace(&key, &record, 1).await }
            };
            let answers = at_once(TASKS, task).await;
            let winner = only(&answers, &Replaced::Done);
            let others = answers.iter().filter(|answer| **answer == Replaced::Changed).count();
            let words = "of many replaces based on one version, exactly one must be `Done` and all \
                         others `Changed`";
            promise(winner.is_some() && others as u64 == TASKS - 1, words);
            let kept = self.load(&key).await.map(|record| record.payload.to_vec());
            let words = "of many replaces at once, the one that was `Done` must be kept";
            promise(kept == winner.map(|number| number.to_le_bytes().to_vec()), words);
            self.delete(&key).await;
        }
    }

    async fn one_of_many_deletes_wins(&self) {
        for _ in 0..ROUNDS {
            let key = self.created(&new_record(1, b"payload", LONG)).await;
            let task = |_| {
                let suite = self.clone();
                async move { suite.delete(&key).await }
            };
            let winner = only(&at_once(TASKS, task).await, &true);
            let words = "of many deletes of one key at once, exactly one must answer `true`";
            promise(winner.is_some(), words);
        }
    }

    async fn one_of_a_save_and_the_end_of_its_base_wins(&self) {
        for _ in 0..ROUNDS {
            let key = self.created(&new_record(1, b"base", LONG)).await;
            let task = |number: u64| {
                let suite = self.clone();
                let record = new_record(2, b"new", LONG);
                async move {
                    match number % 2 {
                        1 => suite.delete_version(&key, 1).await,
                        _ => suite.replace(&key, &record, 1).await == Replaced::Done,
                    }
                }
            };
            let winner = only(&at_once(TASKS, task).await, &true);
            let words = "of replaces and `delete_version`s of one version, exactly one must win";
            promise(winner.is_some(), words);
            let is_saved = winner.is_some_and(|number| number % 2 == 0);
            let words = "`delete_version` must leave what was saved before it, and nothing else";
            promise(self.load(&key).await.is_some() == is_saved, words);
            self.delete(&key).await;
        }
    }

    /// Every task adds one as often as all others: load, `replace`, and again if it was too slow.
    async fn no_save_is_lost(&self) {
        let key = self.created(&new_record(0, b"", LONG)).await;
        let task = |_| {
            let suite = self.clone();
            async move {
                let mut done = 0;
                while done < ROUNDS {
                    let Some(mut record) = suite.load(&key).await else { return };
                    let based_on = record.version;
                    record.version += 1;
                    if suite.replace(&key, &record, based_on).await == Replaced::Done {
                        done += 1;
                    }
                }
            }
        };
        at_once(TASKS, task).await;
        let version = self.load(&key).await.map(|record| record.version);
        let words = "every `replace` that was `Done` must be seen by the next one";
        promise(version == Some(TASKS * ROUNDS), words);
        self.delete(&key).await;
    }

    async fn no_load_sees_half_a_save(&self) {
        const SAVES: u64 = 100;
        let numbered = |number: u64| Record {
            created_at: from_millis(number),
            user: Some(number.to_string().into()),
            ..new_record(number, &number.to_le_bytes().repeat(number as usize), LONG)
        };
        let key = self.created(&numbered(0)).await;
        let task = |number: u64| {
            let suite = self.clone();
            async move {
                if number == 0 {
                    for save in 1..=SAVES {
                        let answer = suite.replace(&key, &numbered(save), save - 1).await;
                        promise(answer == Replaced::Done, "`load` must not get in the way");
                    }
                    return;
                }
                loop {
                    let words = "a record that is being replaced must be found";
                    let Some(found) = suite.load(&key).await else { return promise(false, words) };
                    let expected =
                        Record { expires_at: found.expires_at, ..numbered(found.version) };
                    let words = "`load` must see a `replace` as a whole or not at all";
                    same(Some(&found), &expected, words);
                    if found.version == SAVES {
                        return;
                    }
                    // A store that never waits would otherwise keep the writer from its thread.
                    yield_now().await;
                }
            }
        };
        at_once(4, task).await;
        self.delete(&key).await;
    }

    async fn nothing_brings_back_a_deleted_record(&self) {
        for _ in 0..ROUNDS {
            let key = self.created(&new_record(1, b"old", LONG)).await;
            let task = |number: u64| {
                let suite = self.clone();
                let record = new_record(2, b"new", LONG);
                async move {
                    match number {
                        0 => suite.delete(&key).await,
                        _ => suite.replace(&key, &record, 1).await == Replaced::Done,
                    }
                }
            };
            let deleted = at_once(4, task).await[0];
            let words = "a `delete` must find its record, whatever else happens to it";
            promise(deleted, words);
            let found = self.load(&key).await;
            let words = "a `replace` must not bring back a record that is deleted at the same time";
            promise(found.is_none(), words);

            let key = self.created(&new_record(1, b"old", LONG)).await;
            let task = |number: u64| {
                let suite = self.clone();
                async move {
                    match number {
                        0 => suite.delete(&key).await,
                        _ => {
                            suite.touch(&key, from_now(2 * LONG)).await;
                            false
                        }
                    }
                }
            };
            at_once(4, task).await;
            let found = self.load(&key).await;
            let words = "a `touch` must not bring back a record that is deleted at the same time";
            promise(found.is_none(), words);
        }
    }

    /// What a dropped call has done is open. That nothing of it is left in the way is not.
    async fn survives_calls_that_are_dropped(&self) {
        let (old, new) = (new_record(1, b"old", LONG), new_record(2, b"new", LONG));
        for polls in 0..4 {
            let key = new_key();
            poll_and_drop(polls, self.store.create(&key, &old)).await;
            let _ = self.create(&key, &old).await;
            poll_and_drop(polls, self.store.load(&key)).await;
            poll_and_drop(polls, self.store.touch(&key, from_now(2 * LONG))).await;
            poll_and_drop(polls, self.store.replace(&key, &new, 1)).await;
            if let Some(found) = self.load(&key).await {
                let given = if found.version == 1 { &old } else { &new };
                let given = Record { expires_at: found.expires_at, ..given.clone() };
                let words = "a `replace` that is dropped must happen as a whole or not at all";
                same(Some(&found), &given, words);
            }
            poll_and_drop(polls, self.store.delete(&key)).await;
            let _ = self.delete(&key).await;

            let key = self.created(&old).await;
            let replaced = self.replace(&key, &new, 1).await;
            let deleted = self.delete(&key).await;
            let words = "after calls that were dropped, the store must go on as before";
            promise(replaced == Replaced::Done && deleted, words);
        }
    }
}

/// Which task got the answer that only one may get; `None` if it was none or several.
fn only<T: PartialEq>(answers: &[T], wanted: &T) -> Option<u64> {
    let mut found = (0..).zip(answers).filter(|(_, answer)| *answer == wanted);
    found.next().filter(|_| found.next().is_none()).map(|(number, _)| number)
}
