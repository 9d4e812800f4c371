//! The suite has to let a good store pass, and to name the promise that a bad one breaks.

use std::{collections::HashMap, sync::Mutex};

use super::*;

/// What is wrong with a [`Naive`] store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    LoadReturnsExpired,
    LoadExpiresLate,
    LoadTruncatesAtNul,
    LoadTakesEmptyUserForNone,
    LoadHasSeconds,
    LoadHasSignedVersions,
    LoadIsTorn,
    LoadFails,
    KeysAreShort,
    KeysIgnoreCase,
    CreateOverwrites,
    CreateRefusesExpired,
    CreateIsNotAtomic,
    CreateDoesNothing,
    ReplaceIgnoresVersion,
    ReplaceMakesMissing,
    ReplaceRevivesExpired,
    ReplaceSaysChangedForMissing,
    ReplaceSaysMissingForChanged,
    ReplaceSaysChangedAndWrites,
    ReplaceKeepsLaterExpiry,
    ReplaceKeepsUser,
    ReplaceRaisesVersionItself,
    ReplaceIsNotAtomic,
    ReplaceRacesDelete,
    TouchShortens,
    TouchDoesNothing,
    TouchRevivesExpired,
    TouchMakesMissing,
    TouchRaisesVersion,
    TouchRacesDelete,
    DeleteSaysTrue,
    DeleteSaysFalse,
    DeleteSaysTrueForExpired,
    DeleteDoesNothing,
    DeleteIsNotAtomic,
    DeleteVersionIgnoresVersion,
    DeleteVersionDoesNothing,
    DeleteVersionIsNotAtomic,
    DroppedCallKeepsLock,
}

use Fault::*;

/// The simplest store there is, with one fault. Without an await in between, two of its calls do
/// not interleave on the tests' single thread; the faults that are races await on purpose.
struct Naive {
    fault: Fault,
    records: Mutex<HashMap<StoreKey, Record>>,
    busy: Mutex<bool>,
}

impl Naive {
    fn new(fault: Fault) -> Self {
        Self { fault, records: Mutex::default(), busy: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, key: &StoreKey) -> StoreKey {
        let mut bytes = *key.as_bytes();
        if self.is(KeysAreShort) {
            bytes[16..].fill(0);
        }
        if self.is(KeysIgnoreCase) {
            bytes.make_ascii_lowercase();
        }
        StoreKey::from_bytes(bytes)
    }

    fn any(&self, key: &StoreKey) -> Option<Record> {
        self.records.lock().unwrap().get(&self.key(key)).cloned()
    }

    fn live(&self, key: &StoreKey) -> Option<Record> {
        let late = Duration::from_secs(if self.is(LoadExpiresLate) { 2 } else { 0 });
        self.any(key).filter(|record| !record.is_expired(SystemTime::now() - late))
    }

    fn put(&self, key: &StoreKey, record: &Record) {
        self.records.lock().unwrap().insert(self.key(key), record.clone());
    }

    async fn race(&self, fault: Fault) {
        if self.is(fault) {
            yield_now().await;
        }
    }
}

impl Store for Naive {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        if self.is(LoadFails) {
            return Err(StoreError::new("naive", "load", "no connection"));
        }
        let live = if self.is(LoadReturnsExpired) { self.any(key) } else { self.live(key) };
        let Some(mut record) = live else { return Ok(None) };
        if self.is(LoadTruncatesAtNul) {
            record.payload = record.payload.split(|byte| *byte == 0).next().unwrap().into();
        }
        if self.is(LoadTakesEmptyUserForNone) {
            record.user = record.user.filter(|user| !user.is_empty());
        }
        if self.is(LoadHasSeconds) {
            record.created_at = from_millis(to_millis(record.created_at) / 1000 * 1000);
        }
        if self.is(LoadHasSignedVersions) {
            record.version = record.version as i32 as u64;
        }
        if self.is(LoadIsTorn) {
            yield_now().await;
            record.payload = self.live(key).map_or(record.payload, |other| other.payload);
        }
        Ok(Some(record))
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let taken = match self.fault {
            CreateOverwrites => false,
            CreateRefusesExpired => self.any(key).is_some(),
            _ => self.live(key).is_some(),
        };
        self.race(CreateIsNotAtomic).await;
        if taken {
            return Ok(Created::Exists);
        }
        if !self.is(CreateDoesNothing) {
            self.put(key, record);
        }
        Ok(Created::Done)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        if self.is(DroppedCallKeepsLock) {
            while std::mem::replace(&mut *self.busy.lock().unwrap(), true) {
                sleep(Duration::from_secs(1)).await;
            }
            yield_now().await;
            *self.busy.lock().unwrap() = false;
        }
        let found = if self.is(ReplaceRevivesExpired) { self.any(key) } else { self.live(key) };
        let Some(old) = found else {
            if self.is(ReplaceMakesMissing) {
                self.put(key, record);
            }
            let changed = self.is(ReplaceSaysChangedForMissing);
            return Ok(if changed { Replaced::Changed } else { Replaced::Missing });
        };
        let changed = old.version != based_on && !self.is(ReplaceIgnoresVersion);
        self.race(ReplaceIsNotAtomic).await;
        if changed {
            if self.is(ReplaceSaysChangedAndWrites) {
                self.put(key, record);
            }
            let missing = self.is(ReplaceSaysMissingForChanged);
            return Ok(if missing { Replaced::Missing } else { Replaced::Changed });
        }
        let mut record = record.clone();
        match self.fault {
            ReplaceKeepsLaterExpiry => record.expires_at = record.expires_at.max(old.expires_at),
            ReplaceKeepsUser => record.user = record.user.or(old.user),
            ReplaceRaisesVersionItself => record.version = old.version + 1,
            ReplaceRacesDelete => {
                // Right about versions: a record that has gone meanwhile is all that it misses.
                yield_now().await;
                if self.live(key).is_some_and(|now| now.version != based_on) {
                    return Ok(Replaced::Changed);
                }
            }
            _ => {}
        }
        self.put(key, &record);
        Ok(Replaced::Done)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let found = if self.is(TouchRevivesExpired) { self.any(key) } else { self.live(key) };
        let Some(mut record) = found else {
            if self.is(TouchMakesMissing) {
                self.put(key, &new_record(0, b"", LONG));
            }
            return Ok(());
        };
        self.race(TouchRacesDelete).await;
        let later = expires_at > record.expires_at || self.is(TouchShortens);
        if later && !self.is(TouchDoesNothing) {
            record.expires_at = expires_at;
            record.version += u64::from(self.is(TouchRaisesVersion));
            self.put(key, &record);
        }
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let found = match self.fault {
            DeleteSaysTrue => true,
            DeleteSaysFalse => false,
            DeleteSaysTrueForExpired => self.any(key).is_some(),
            _ => self.live(key).is_some(),
        };
        self.race(DeleteIsNotAtomic).await;
        if !self.is(DeleteDoesNothing) {
            self.records.lock().unwrap().remove(&self.key(key));
        }
        Ok(found)
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        let is_any = self.is(DeleteVersionIgnoresVersion);
        let found = self.live(key).is_some_and(|record| is_any || record.version == version);
        self.race(DeleteVersionIsNotAtomic).await;
        if found && !self.is(DeleteVersionDoesNothing) {
            self.records.lock().unwrap().remove(&self.key(key));
        }
        Ok(found)
    }
}

#[tokio::test(start_paused = true)]
async fn lets_a_good_store_pass() {
    conformance(Naive::new(Nothing)).await;
}

// Tokio's time is paused, so that a store that hangs is found at once; expiry takes real time.
#[tokio::test(start_paused = true)]
async fn names_the_promise_that_a_bad_store_breaks() {
    let cases = [
        (LoadReturnsExpired, "`load` must not return a record from its `expires_at` on"),
        (LoadExpiresLate, "`load` must not return a record from its `expires_at` on"),
        (LoadTruncatesAtNul, "come back as it was, but `payload`"),
        (LoadTakesEmptyUserForNone, "come back as it was, but `user`"),
        (LoadHasSeconds, "come back as it was, but `created_at`"),
        (LoadHasSignedVersions, "come back as it was, but `version`"),
        (LoadIsTorn, "`load` must see a `replace` as a whole or not at all"),
        (LoadFails, "`load` failed: the naive store failed in `load`: Some(\"no connection\")"),
        (KeysAreShort, "two keys that differ must be two sessions"),
        (KeysIgnoreCase, "two keys that differ must be two sessions"),
        (CreateOverwrites, "`create` of a key in use must answer `Exists`"),
        (CreateRefusesExpired, "`create` must take the place of an expired record"),
        (CreateIsNotAtomic, "of many creates of one key at once, exactly one must be `Done`"),
        (CreateDoesNothing, "`load` finds no record"),
        (ReplaceIgnoresVersion, "not the stored one must be `Changed`"),
        (ReplaceMakesMissing, "`replace` must never make a record"),
        (ReplaceRevivesExpired, "`replace` of an expired record must be `Missing`"),
        (ReplaceSaysChangedForMissing, "`replace` of an unknown key must be `Missing`"),
        (ReplaceSaysMissingForChanged, "not the stored one must be `Changed`"),
        (ReplaceSaysChangedAndWrites, "a `replace` that is `Changed` must leave the record"),
        (ReplaceKeepsLaterExpiry, "`replace` must set every field (and may shorten the expiry)"),
        (ReplaceKeepsUser, "as the new one, but `user`"),
        (ReplaceRaisesVersionItself, "as the new one, but `version`"),
        (ReplaceIsNotAtomic, "of many replaces based on one version, exactly one must be `Done`"),
        (ReplaceRacesDelete, "a `replace` must not bring back a record that is deleted"),
        (TouchShortens, "`touch` must never shorten the expiry"),
        (TouchDoesNothing, "`touch` must move the expiry"),
        (TouchRevivesExpired, "`touch` must not bring back an expired record"),
        (TouchMakesMissing, "`touch` must never make a record"),
        (TouchRaisesVersion, "change nothing else, but `version`"),
        (TouchRacesDelete, "a `touch` must not bring back a record that is deleted"),
        (DeleteSaysTrue, "`delete` of an unknown key must answer `false`"),
        (DeleteSaysFalse, "`delete` of a live record must answer `true`"),
        (DeleteSaysTrueForExpired, "`delete` of an expired record must answer `false`"),
        (DeleteDoesNothing, "a deleted record must be gone"),
        (DeleteIsNotAtomic, "of many deletes of one key at once, exactly one must answer `true`"),
        (DeleteVersionIgnoresVersion, "another version than the stored one must answer `false`"),
        (DeleteVersionDoesNothing, "a deleted record must be gone"),
        (DeleteVersionIsNotAtomic, "of replaces and `delete_version`s of one version, exactly one"),
        (DroppedCallKeepsLock, "`replace` did not answer within 30s"),
    ];
    let run = |(fault, words)| (fault, words, tokio::spawn(conformance(Naive::new(fault))));
    for (fault, words, check) in cases.map(run) {
        let error = check.await.expect_err(&format!("{fault:?} went unnoticed"));
        let panic = error.into_panic();
        let message = panic.downcast_ref::<String>().expect("`assert!` and `panic!` make strings");
        assert!(message.contains(words), "{fault:?} was noticed as: {message}");
    }
}
