//! How a record gets to the server: the whole of it, or the parts that have changed.
//!
//! What a save keeps while it waits for its answer is the command and little else, and what is seldom waited
//! for is in a box of its own: the future of a usual call stays below the kilobyte up to which glibc's
//! allocator serves a thread without a lock (`tcache_max`). Above it, threads wait for one another.

use std::{io::Write, time::SystemTime};

use redis::{
    Arg, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, RedisWrite,
    ServerErrorKind, Value,
};

#[cfg(feature = "redis-cluster")]
use super::connection::is_elsewhere;
use super::{
    LEAST_TTL, REPLACE, RedisStore, WRITE_ID,
    connection::{Call, One, Several, batch},
    errors::{self, classify},
    recent::GAP,
    scripts::{Code, SAME},
};
use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{
        Created, Replaced,
        packed::{head_length, pack_head_into, pack_into, packed_length, stored_millis},
    },
};

impl RedisStore {
    pub(super) async fn create_noting(
        &self,
        key: &StoreKey,
        record: &Record,
        call: &mut Call<'_>,
    ) -> Result<Created, StoreError> {
        let write_id = self.next_write_id(self.shared.clock.now());
        let save = Save { key, record, based_on: None, write_id, now: self.now() };
        let answer = self.write(save, call).await?;
        Ok(if answer == 1 { Created::Done } else { Created::Exists })
    }

    pub(super) async fn replace_noting(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
        call: &mut Call<'_>,
    ) -> Result<Replaced, StoreError> {
        // The same for both ways, so that a save which is sent again knows itself.
        let now = self.shared.clock.now();
        let write_id = self.next_write_id(now);
        let patch = self.patch_command(key, record, based_on, write_id, stored_millis(now));
        if let Some(patch) = &patch
            && self.run::<i64>(REPLACE, &self.scripts().patch, patch, call).await? == 1
        {
            self.shared.recent.put(key, write_id, record);
            return Ok(Replaced::Done);
        }
        let save = Save { key, record, based_on: Some(based_on), write_id, now: self.now() };
        match Box::pin(self.write(save, call)).await? {
            1 => Ok(Replaced::Done),
            0 => Ok(Replaced::Changed),
            // Another process has saved more than once since: what the first try has done is unknown.
            2 => call
                .lost
                .take()
                .map_or(Ok(Replaced::Changed), |error| Err(classify(REPLACE, error))),
            _ => Ok(Replaced::Missing),
        }
    }

    /// Runs a script by its hash, and sends its text to a server that does not know it. In `call` is left
    /// why it was sent once more, if it was.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &Code,
        by_hash: &Cmd,
        call: &mut Call<'_>,
    ) -> Result<T, StoreError> {
        match self.shared.connection.query(&One(by_hash), call).await {
            Ok(answer) => Ok(answer),
            Err(error) => Box::pin(self.run_after(error, operation, script, by_hash, call)).await,
        }
    }

    /// The same after a first try.
    async fn run_after<T: FromRedisValue>(
        &self,
        mut error: RedisError,
        operation: &'static str,
        script: &Code,
        by_hash: &Cmd,
        call: &mut Call<'_>,
    ) -> Result<T, StoreError> {
        if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
            let lost = call.lost.take();
            let by_text = by_text(by_hash, script);
            let answer = self.shared.connection.query(&One(&by_text), call).await;
            call.lost = call.lost.take().or(lost);
            match answer {
                Ok(answer) => return Ok(answer),
                Err(next) => error = next,
            }
        }
        // In a script the server does not say which command it was.
        if errors::is_denied_in_script(&error) {
            self.check(operation).await?;
        }
        Err(classify(operation, error))
    }

    /// Runs `create` or `replace`.
    async fn write(&self, save: Save<'_>, call: &mut Call<'_>) -> Result<i64, StoreError> {
        let scripts = self.scripts();
        let script = match save.based_on {
            None => &scripts.create,
            Some(_) => &scripts.replace,
        };
        if let (true, Some(user)) = (self.shared.connection.is_cluster(), &save.record.user) {
            // The set first: a session that is not in it would escape a logout everywhere.
            let expires = stored_millis(save.record.expires_at);
            Box::pin(self.index(save.operation(), save.key, user, expires, save.now)).await?;
        }
        let both = self.write_commands(script, &save);
        let answer = self.shared.connection.query(&Several(&both), call).await;
        let answer = match (answer.and_then(last_of), both.cmd_iter().last()) {
            #[cfg(feature = "redis-cluster")]
            (Err(error), _) if self.is_being_moved(&error) => {
                Box::pin(self.write_alone(&save, call)).await?
            }
            // What came first has been done.
            (Err(error), Some(by_hash)) => {
                Box::pin(self.run_after(error, save.operation(), script, by_hash, call)).await?
            }
            (answer, _) => answer.map_err(|error| classify(save.operation(), error))?,
        };
        if answer == 1 {
            self.shared.recent.put(save.key, save.write_id, save.record);
            self.shared.users.put(save.key, save.record.user.as_ref());
        }
        Ok(answer)
    }

    /// Whether a call went wrong because the slot of its keys is moved to another node just now.
    #[cfg(feature = "redis-cluster")]
    fn is_being_moved(&self, error: &RedisError) -> bool {
        self.shared.connection.is_cluster() && is_elsewhere(error)
    }

    /// The same `create` or `replace` with one key, where the client finds the node by itself.
    #[cfg(feature = "redis-cluster")]
    async fn write_alone(&self, save: &Save<'_>, call: &mut Call<'_>) -> Result<i64, StoreError> {
        let session = self.key(save.key);
        // The client has perhaps put the record beside the session.
        let mut forget = redis::cmd("DEL");
        forget.arg(beside(&session, save.write_id));
        let _: RedisResult<i64> =
            self.shared.connection.query(&One(&forget), &mut Call::default()).await;
        let alone = &self.scripts().alone;
        let script = if save.based_on.is_some() { &alone.replace } else { &alone.create };
        let mut value = Vec::with_capacity(save.value_length());
        save.value_into(&mut value);
        let (words, ttl) = (save.words(), save.stays_for().to_string());
        let mut told = words.in_order().to_vec();
        told.extend([&value[..], ttl.as_bytes()]);
        self.run(save.operation(), script, &script.call(&[&session], &told), call).await
    }

    /// Deletes with one key: what is left in its place, for a minute, is a record that has expired, and is the receipt.
    #[cfg(feature = "redis-cluster")]
    pub(super) async fn delete_alone(
        &self,
        key: &StoreKey,
        version: &[u8],
    ) -> Result<bool, StoreError> {
        let now = self.shared.clock.now();
        let mut receipt = self.next_write_id(now).to_vec();
        let (created_at, expires_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let payload = Vec::new().into();
        pack_into(
            &mut receipt,
            &Record { version: 1, created_at, expires_at, user: None, payload },
        );
        let now = stored_millis(now).to_string();
        let script = &self.scripts().alone.delete;
        let command = script.call(&[&self.key(key)], &[now.as_bytes(), &receipt, version]);
        Ok(self.run::<i64>("delete", script, &command, &mut Call::default()).await? == 1)
    }

    /// The record beside the session, and the script that gives the record the session's name.
    fn write_commands(&self, script: &Code, save: &Save<'_>) -> Pipeline {
        let session = self.key(save.key);
        let beside = beside(&session, save.write_id);
        // `SET`, `PX` and the time take less than what is there for them.
        let mut put = Cmd::with_capacity(5, beside.len() + save.value_length() + 32);
        put.arg("SET").arg(&beside);
        save.value_into(&mut put.writer_for_next_arg());
        put.arg("PX").arg(save.stays_for());
        let set = self.set_beside(save.record);
        let keys: &[&str] = match &set {
            Some(set) => &[&session, &beside, set],
            None => &[&session, &beside],
        };
        let mut both = batch(2);
        both.add_command(put).add_command(script.call(keys, &save.words().in_order()));
        both
    }

    /// What sends only the bytes of the payload that have changed since the record was loaded or saved here;
    /// nothing if that is not known any more, or more has changed. Answered with nought if the server has
    /// not this very record: then nothing has happened.
    fn patch_command(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
        write_id: [u8; WRITE_ID],
        now: u64,
    ) -> Option<Cmd> {
        let recent = self.shared.recent.take(key)?;
        let expires = stored_millis(record.expires_at);
        if recent.record.version != based_on || expires <= now {
            return None;
        }
        let mut changes = recent.changes_to(record)?;
        let before = packed_head(recent.write_id, record, based_on);
        let mut after = packed_head(write_id, record, record.version);
        // A change that is close to the head goes with the head.
        if let Some(first) = changes.first().filter(|first| first.start < GAP) {
            after.extend_from_slice(&record.payload[..first.end]);
            changes.remove(0);
        }
        let (session, set) = (self.key(key), self.set_beside(record));
        let keys: &[&str] = match &set {
            Some(set) => &[&session, set],
            None => &[&session],
        };
        // The four of the set, and numbers, take less.
        let length = SAME + after.len() + changes.iter().map(|it| it.len() + 8).sum::<usize>() + 96;
        let patch = &self.scripts().patch;
        let mut call = patch.call_with_room(keys, 6 + 2 * changes.len(), length);
        call.arg(&before[..SAME]).arg(after);
        if set.is_some() {
            call.arg(key.as_bytes()).arg(now).arg(expires).arg(expires - now);
        }
        for change in changes {
            call.arg(before.len() + change.start).arg(&record.payload[change]);
        }
        Some(call)
    }

    /// Puts a session into its user's set.
    pub(super) async fn index(
        &self,
        operation: &'static str,
        key: &StoreKey,
        user: &str,
        expires: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        let ttl = expires.saturating_sub(now).to_string();
        let (expires, now) = (expires.to_string(), now.to_string());
        let script = &self.scripts().index;
        let command = script.call(
            &[&self.user_key(user)],
            &[now.as_bytes(), key.as_bytes(), expires.as_bytes(), ttl.as_bytes()],
        );
        let _: i64 = self.run(operation, script, &command, &mut Call::default()).await?;
        Ok(())
    }

    pub(super) fn next_write_id(&self, now: SystemTime) -> [u8; WRITE_ID] {
        self.shared.write_ids.draw_at(now).to_be_bytes()
    }
}

/// A `create`; a `replace`, if it is based on a version.
struct Save<'a> {
    key: &'a StoreKey,
    record: &'a Record,
    based_on: Option<u64>,
    write_id: [u8; WRITE_ID],
    now: u64,
}

impl Save<'_> {
    fn operation(&self) -> &'static str {
        if self.based_on.is_some() { REPLACE } else { "create" }
    }

    fn ttl(&self) -> u64 {
        stored_millis(self.record.expires_at).saturating_sub(self.now)
    }

    /// For how long the record is given to the server.
    fn stays_for(&self) -> u64 {
        self.ttl().max(LEAST_TTL)
    }

    fn value_length(&self) -> usize {
        WRITE_ID + packed_length(self.record)
    }

    /// Writes what the session's key is to hold.
    fn value_into(&self, value: &mut impl Write) {
        value.write_all(&self.write_id).expect("memory");
        pack_into(value, self.record);
    }

    fn words(&self) -> Words<'_> {
        let (expires, ttl) = (stored_millis(self.record.expires_at), self.ttl());
        let mut unmoved = Vec::with_capacity(head_length(self.record));
        if let Some(based_on) = self.based_on.filter(|_| ttl > 0) {
            pack_head_into(&mut unmoved, self.record, based_on);
        }
        Words {
            now: self.now.to_string(),
            write_id: &self.write_id,
            member: self.key.as_bytes(),
            expires: expires.to_string(),
            ttl: ttl.to_string(),
            based_on: self.based_on.unwrap_or(0).to_be_bytes(),
            unmoved_end: (WRITE_ID + unmoved.len()).saturating_sub(1).to_string(),
            unmoved,
        }
    }
}

/// What `create` and `replace` are told, with the record beside the session and, behind these, with the record itself.
struct Words<'a> {
    now: String,
    write_id: &'a [u8],
    /// The key as a member of its user's set.
    member: &'a [u8],
    expires: String,
    ttl: String,
    based_on: [u8; 8],
    /// What a record begins with, behind the write id, that has this one's expiry and user and the version that the
    /// save is based on; nothing if it would not be live.
    unmoved: Vec<u8>,
    /// Where that ends.
    unmoved_end: String,
}

impl Words<'_> {
    /// `ARGV[1]` to `ARGV[8]` of the scripts.
    fn in_order(&self) -> [&[u8]; 8] {
        [
            self.now.as_bytes(),
            self.write_id,
            self.member,
            self.expires.as_bytes(),
            self.ttl.as_bytes(),
            &self.based_on,
            &self.unmoved,
            self.unmoved_end.as_bytes(),
        ]
    }
}

/// The name of what stands beside a session: the record of one save, or the receipt of one deletion, and of no other.
pub(super) fn beside(session: &str, write_id: [u8; WRITE_ID]) -> String {
    format!("{session}:{:016x}", u64::from_be_bytes(write_id))
}

/// The same call with the script's text in place of the hash.
fn by_text(by_hash: &Cmd, script: &Code) -> Cmd {
    let mut by_text = Cmd::new();
    by_text.arg("EVAL").arg(&script.text);
    for argument in by_hash.args_iter().skip(2) {
        if let Arg::Simple(argument) = argument {
            by_text.arg(argument);
        }
    }
    by_text
}

/// What stands before the payload of a save.
fn packed_head(write_id: [u8; WRITE_ID], record: &Record, version: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(WRITE_ID + head_length(record));
    head.extend_from_slice(&write_id);
    pack_head_into(&mut head, record, version);
    head
}

/// The answer to the last command, or the first error.
pub(super) fn last_of<T: FromRedisValue>(answers: Vec<Value>) -> RedisResult<T> {
    let mut last = Value::Nil;
    for answer in answers {
        last = answer.extract_error()?;
    }
    Ok(redis::from_redis_value(last)?)
}
