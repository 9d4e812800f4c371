//! How statements get to the server, and their answers back: on which connection, how long, how often, and
//! whether each in a transaction of its own.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, Pool, SqlStr};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Dialect,
    driver::{Driver, Meaning, Row, Value, meaning},
    errors::classify,
    line::Line,
    statements::{COLUMNS, Statement, Statements, Table},
    together::Turn,
};
use crate::{
    clock::{Clock, from_millis},
    error::store::{Advice, StoreError},
    identity::id::StoreKey,
    record::Record,
    store::packed::stored_millis,
};

/// How long a user's name may be, in bytes of UTF-8: what an index of each database takes.
const USER_LIMIT: usize = 1020;

/// How often a statement is repeated that the database has undone because it was in another's way
/// (a deadlock).
pub(super) const RETRIES: u32 = 5;

/// How many connections a call finds to be of no use, at most, before it gives up: all that others
/// were just using when the server changed are found by those.
const REPLACED: u32 = 3;

/// After a new connection has led to a server that takes no writes, how long calls take the server's
/// word for it, instead of making one new connection after the other.
const READ_ONLY: Duration = Duration::from_secs(1);

/// After the server has refused to prepare one more statement, how long connections keep none.
const SHORT: Duration = Duration::from_secs(60);

/// Why a file is waited for.
const FILE: &str = "another process holds the file's lock for long, as a backup or a transaction that was left open, \
                    or the disk does not answer";

/// All but the sweep, which uses it and must not keep itself alive.
pub(super) struct Core<D: Dialect> {
    pub(super) table: Table,
    pub(super) statements: Statements,
    /// How it is told of changes, if it is.
    pub(super) news: D::News,
    pub(super) read: Pool<D>,
    /// The same as `read`, but with SQLite, where only one can write at a time: to wait in line for
    /// one connection is faster and fairer than to knock at a locked file.
    pub(super) write: Pool<D>,
    /// The saves that are on their way, and those that wait for them.
    pub(super) line: Line<Turn<D>>,
    pub(super) timeout: Duration,
    pub(super) clock: Clock,
    /// Whether it has to be found out how to send statements.
    pub(super) asks: bool,
    pub(super) known: Mutex<Known>,
}

/// What a store has found out about what is between it and the table.
pub(super) struct Known {
    /// Whether each statement is sent in a transaction of its own, and is not prepared.
    pub(super) in_transactions: bool,
    /// Whether a statement outside of a transaction would be serializable.
    pub(super) is_serializable: bool,
    /// Whether a commit begins the next transaction.
    pub(super) chains: bool,
    /// When that was asked.
    pub(super) asked: Option<Instant>,
    /// Until when connections keep no prepared statement, as the server has no room for more.
    pub(super) short_until: Option<Instant>,
    /// Whether a statement that wrote was committed by itself.
    pub(super) commits: bool,
    /// Since when new connections lead to a server that takes no writes.
    pub(super) read_only_since: Option<Instant>,
}

/// How a statement is sent.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    in_transaction: bool,
    is_prepared: bool,
    is_short: bool,
    chains: bool,
}

impl Known {
    fn manner<D: Driver>(&self) -> Manner {
        let is_short = self.short_until.is_some_and(|until| Instant::now() < until);
        Manner {
            in_transaction: self.in_transactions || self.is_serializable,
            is_prepared: !is_short && (!self.in_transactions || D::KEEPS_PREPARED),
            is_short,
            chains: self.chains,
        }
    }
}

/// What went wrong in statements without values, and what the database's answer means.
pub(super) struct ScriptError {
    pub(super) answer: Option<Meaning>,
    pub(super) told: StoreError,
}

/// How long to stay out of the way before that try.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(u64::from(tries * tries))
}

/// A connection out of the pool, which gets the connection back unless that may be hung or in disorder:
/// then the connection is closed.
pub(super) struct Checkout<D: Dialect> {
    pub(super) connection: sqlx::pool::PoolConnection<D>,
    /// When the call began that has not ended.
    begun: Option<Instant>,
}

impl<D: Dialect> Checkout<D> {
    fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// The call has come to its end, and the connection with it.
    pub(super) fn end(&mut self) {
        self.begun = None;
    }
}

impl<D: Dialect> Drop for Checkout<D> {
    fn drop(&mut self) {
        // The call was dropped before its answer. After a short time that is a request whose client
        // hung up; after a long one it is the server that does not answer, and the pool would wait
        // for it.
        let is_hung = |begun: Instant| D::CAN_HANG && begun.elapsed() > Duration::from_secs(1);
        if self.begun.is_some_and(|begun| D::LEAVES_ANSWERS || is_hung(begun)) {
            self.connection.close_on_drop();
        }
    }
}

/// A connection that may be in a transaction of which the driver does not know: one that begins, until the server has
/// answered, or one that begins by itself after a commit. Whoever gets the connection next would write into that
/// transaction: so nobody does.
struct Entangled<'a, D: Dialect> {
    connection: &'a mut sqlx::pool::PoolConnection<D>,
    closes: bool,
}

impl<D: Dialect> Drop for Entangled<'_, D> {
    fn drop(&mut self) {
        if self.closes {
            self.connection.close_on_drop();
        }
    }
}

impl<D: Dialect> Core<D> {
    pub(super) fn now(&self) -> Value<'static> {
        Value::Int(stored_millis(self.clock.now()).cast_signed())
    }

    pub(super) fn error(&self, operation: &'static str, error: sqlx::Error) -> StoreError {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            let advice = self.no_connection();
            return StoreError::new(D::STORE, operation, Advice { advice, source: error });
        }
        classify::<D>(operation, Some(&self.table), error)
    }

    fn no_connection(&self) -> String {
        let mut words = format!(
            "no connection was free or could be made: the pool has {} of at most {} connections; if they \
             are all in use, it is too small, or something holds them for long",
            self.write.size(),
            self.write.options().get_max_connections()
        );
        if !D::CAN_HANG {
            words.push_str("; or ");
            words.push_str(FILE);
        }
        words
    }

    pub(super) fn too_late(&self, operation: &'static str) -> StoreError {
        let words = match D::CAN_HANG {
            true => format!("no answer within {:?}", self.timeout),
            false => format!("no answer within {:?}: {FILE}", self.timeout),
        };
        StoreError::new(D::STORE, operation, words)
    }

    pub(super) fn known<R>(&self, look: impl FnOnce(&mut Known) -> R) -> R {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How to send statements; the first call finds it out.
    pub(super) async fn manner(&self, operation: &'static str) -> Result<Manner, StoreError> {
        let (manner, is_known) = self.known(|known| {
            let is_recent = known.asked.is_some_and(|asked| asked.elapsed() < D::ASKED_FOR);
            let is_settled = known.in_transactions && D::ASKED_FOR == Duration::MAX;
            (known.manner::<D>(), is_settled || !self.asks || is_recent)
        });
        if is_known {
            return Ok(manner);
        }
        // Several calls may ask at once. All get equally good answers.
        let mut checkout = self.check_out(operation, &self.write).await?;
        let ask = async {
            let ours = &mut checkout.connection;
            let needs = D::needs_transactions(ours, &self.write, self.timeout).await?;
            Ok((needs, D::is_serializable(ours).await?, D::chains_transactions(ours).await?))
        };
        let Ok(asked) = timeout(self.timeout, ask).await else {
            return Err(self.too_late(operation));
        };
        checkout.end();
        let (needs, is_serializable, chains) =
            asked.map_err(|error| self.error(operation, error))?;
        if needs || is_serializable {
            tracing::info!(
                store = D::STORE,
                "each call is a transaction of its own, which is slower: the documentation of the store \
                 says why"
            );
        }
        Ok(self.known(|known| {
            known.asked = Some(Instant::now());
            known.is_serializable = is_serializable;
            known.chains = chains;
            known.in_transactions |= needs;
            known.manner::<D>()
        }))
    }

    /// A pooler has led a statement astray.
    fn stop_preparing(&self) {
        let is_known = self.known(|known| std::mem::replace(&mut known.in_transactions, true));
        if !is_known {
            tracing::warn!(
                store = D::STORE,
                "a pooler does not do with prepared statements what the server does: from now on each call is a transaction of its own, which is \
                 slower. PgBouncer from 1.21 with `max_prepared_statements`, or one with `pool_mode = \
                 session`, needs no such thing"
            );
        }
    }

    /// After a refusal: an administrator may have made transactions serializable since that was asked, also on
    /// connections that are there.
    async fn look_at_isolation(&self, checkout: &mut Checkout<D>, manner: Manner) {
        if manner.in_transaction {
            return;
        }
        checkout.begin();
        let look = timeout(self.timeout, D::is_serializable(&mut checkout.connection)).await;
        if look.is_ok() {
            checkout.end();
        }
        if let Ok(Ok(true)) = look {
            self.known(|known| known.is_serializable = true);
        }
    }

    /// Has this connection, and those that no call uses, forget what they have prepared; the others do with their next
    /// calls.
    async fn make_room(&self, pool: &Pool<D>, checkout: &mut Checkout<D>) {
        let until = self.known(|known| known.short_until.replace(Instant::now() + SHORT));
        if until.is_none_or(|until| until < Instant::now()) {
            tracing::warn!(
                store = D::STORE,
                "the server has as many prepared statements as it takes: for a minute connections keep none, which is \
                 slower. Raise its `max_prepared_stmt_count`"
            );
        }
        // All at once: each that is given back would be the next one.
        let mut idle: Vec<_> = std::iter::from_fn(|| pool.try_acquire()).collect();
        checkout.begin();
        let forget = async {
            for connection in idle.iter_mut().chain([&mut checkout.connection]) {
                // One that has ended keeps nothing.
                let _ = connection.clear_cached_statements().await;
            }
        };
        if timeout(self.timeout, forget).await.is_ok() {
            checkout.end();
        }
    }

    /// A connection is of no use any more. Whether it pays to try another one.
    fn replace_connections(
        &self,
        meaning: Meaning,
        tries: u32,
        pool: &Pool<D>,
        connection: &mut sqlx::pool::PoolConnection<D>,
    ) -> bool {
        if meaning == Meaning::ReadOnly {
            let now = Instant::now();
            let is_known = self.known(|known| {
                let since = &mut known.read_only_since;
                if since.is_some_and(|since| now.duration_since(since) < READ_ONLY) {
                    return true;
                }
                *since = (tries >= REPLACED).then_some(now);
                // The server that comes next may have another default.
                known.asked = None;
                false
            });
            if is_known {
                return false;
            }
            // The unused connections lead to the same server.
            while let Some(mut idle) = pool.try_acquire() {
                idle.close_on_drop();
            }
        }
        connection.close_on_drop();
        tries < REPLACED
    }

    /// A connection of `pool` for a call that begins now, within the timeout.
    pub(super) async fn check_out(
        &self,
        operation: &'static str,
        pool: &Pool<D>,
    ) -> Result<Checkout<D>, StoreError> {
        let acquired = timeout(self.timeout, pool.acquire()).await;
        // The pool of an application may wait for longer.
        let Ok(acquired) = acquired else {
            return Err(StoreError::new(D::STORE, operation, self.no_connection()));
        };
        let connection = acquired.map_err(|error| self.error(operation, error))?;
        Ok(Checkout { connection, begun: Some(Instant::now()) })
    }

    /// Does `work` on a connection of `pool`, within the timeout; repeats it if the database has
    /// undone it in favour of other transactions, or has not done it because of the connection.
    pub(super) async fn on<R>(
        &self,
        operation: &'static str,
        pool: &Pool<D>,
        work: impl AsyncDriver<D, R>,
    ) -> Result<R, StoreError> {
        let (mut tries, mut replaced) = (0, 0);
        loop {
            let manner = self.manner(operation).await?;
            let mut checkout = self.check_out(operation, pool).await?;
            let work = self.attempt(&mut checkout.connection, &work, manner);
            let answer = timeout(self.timeout, work).await;
            let Ok(answer) = answer else { return Err(self.too_late(operation)) };
            checkout.end();
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match meaning::<D>(&error) {
                Some(meaning @ (Meaning::InTheWay | Meaning::Prepared)) if tries < RETRIES => {
                    match meaning {
                        Meaning::Prepared => self.make_room(pool, &mut checkout).await,
                        _ => self.look_at_isolation(&mut checkout, manner).await,
                    }
                    drop(checkout);
                    tries += 1;
                    sleep(pause(tries)).await;
                }
                Some(Meaning::OtherStatement) if manner.is_prepared => {
                    self.stop_preparing();
                }
                Some(meaning @ (Meaning::ReadOnly | Meaning::Stale))
                    if self.replace_connections(
                        meaning,
                        replaced,
                        pool,
                        &mut checkout.connection,
                    ) =>
                {
                    replaced += 1;
                }
                _ => return Err(self.error(operation, error)),
            }
        }
    }

    /// One try. A transaction that is dropped before its end is rolled back.
    async fn attempt<W: AsyncDriver<D, R>, R>(
        &self,
        connection: &mut sqlx::pool::PoolConnection<D>,
        work: &W,
        manner: Manner,
    ) -> Result<R, sqlx::Error> {
        if manner.is_short {
            connection.clear_cached_statements().await?;
        }
        if manner.in_transaction {
            let mut entangled = Entangled { connection, closes: true };
            let begin = SqlStr::from_static(D::BEGIN);
            let mut transaction = (**entangled.connection).begin_with(begin).await?;
            entangled.closes = manner.chains;
            let answer = work.call(&mut transaction, !manner.is_prepared).await?;
            transaction.commit().await?;
            // The answer is committed, whatever becomes of the connection.
            if manner.chains && D::run(entangled.connection, D::END_CHAIN).await.is_ok() {
                entangled.closes = false;
            }
            return Ok(answer);
        }
        let answer = work.call(connection, manner.is_short).await?;
        if W::WRITES && !self.known(|known| known.commits) {
            // Once: there are poolers that begin a transaction and never end it.
            if D::commit_open(connection).await? {
                self.stop_preparing();
            }
            self.known(|known| known.commits = true);
        }
        Ok(answer)
    }

    /// Runs statements without values; repeats them as `on` does.
    pub(super) async fn script(
        &self,
        operation: &'static str,
        script: &str,
    ) -> Result<(), ScriptError> {
        let mut tries = 0;
        loop {
            // Of many at once some may still be refused, as by a file that is locked. What one of
            // them has made is there for all.
            let unanswered = |told| ScriptError { answer: None, told };
            let mut checkout = self.check_out(operation, &self.write).await.map_err(unanswered)?;
            let run =
                timeout(self.timeout.saturating_mul(4), D::run(&mut checkout.connection, script))
                    .await;
            let Ok(done) = run else { return Err(unanswered(self.too_late(operation))) };
            checkout.end();
            let Err(error) = done else { return Ok(()) };
            let answer = meaning::<D>(&error);
            if answer != Some(Meaning::InTheWay) || tries >= RETRIES {
                return Err(ScriptError { answer, told: self.error(operation, error) });
            }
            drop(checkout);
            tries += 1;
            sleep(pause(tries)).await;
        }
    }

    /// Whether the table has all columns; with no table it is `otherwise` that is told.
    pub(super) async fn check_columns(
        &self,
        otherwise: Option<StoreError>,
    ) -> Result<(), StoreError> {
        let mut checkout = match (self.check_out("migrate", &self.write).await, &otherwise) {
            (Ok(checkout), _) => checkout,
            (Err(error), None) => return Err(error),
            (Err(_), Some(_)) => return otherwise.map_or(Ok(()), Err),
        };
        let names = D::names(&mut checkout.connection, &self.statements.columns);
        let names = timeout(self.timeout, names).await;
        if names.is_ok() {
            checkout.end();
        }
        let there = match (names, otherwise) {
            (Ok(Ok(there)), None) => there,
            (Ok(Ok(there)), Some(_)) if !there.is_empty() => there,
            (_, Some(otherwise)) => return Err(otherwise),
            (Ok(Err(error)), None) => return Err(self.error("migrate", error)),
            (Err(_), None) => return Err(self.too_late("migrate")),
        };
        let lacks = COLUMNS.iter().filter(|name| !there.iter().any(|there| there == *name));
        let lacks: Vec<String> = lacks.map(|name| format!("`{name}`")).collect();
        if lacks.is_empty() {
            return Ok(());
        }
        let words = format!(
            "there is a table {}, and it lacks {}: it is not one of this store's. Rename it, or choose \
             another name by `with_table`",
            self.table,
            lacks.join(", ")
        );
        Err(StoreError::permanent(D::STORE, "migrate", words))
    }

    /// Runs a statement that writes; how many rows it touched.
    pub(super) async fn execute(
        &self,
        operation: &'static str,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.on(operation, &self.write, Execute { statement, values }).await
    }

    /// Runs `load`.
    pub(super) async fn fetch_one(
        &self,
        operation: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Record>, StoreError> {
        let one = FetchOne { statement: &self.statements.load, values };
        let row = self.on(operation, &self.read, one).await?;
        row.map(|row| Ok(self.record(operation, row)?.1)).transpose()
    }

    /// Runs a statement that reads.
    pub(super) async fn fetch(
        &self,
        operation: &'static str,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let rows = self.on(operation, &self.read, Fetch { statement, values }).await?;
        rows.into_iter().map(|row| self.record(operation, row)).collect()
    }

    pub(super) fn record(
        &self,
        operation: &'static str,
        row: Row,
    ) -> Result<(StoreKey, Record), StoreError> {
        let broken = |what: &str| {
            let words = format!("a row of the table {} has {what}", self.table);
            StoreError::permanent(D::STORE, operation, words)
        };
        let key = row.id.try_into().map_err(|_| broken("an `id` that is not 32 bytes long"))?;
        let user = match row.user {
            Some(user) => {
                let user = String::from_utf8(user).ok().and_then(D::user_from_stored);
                Some(user.ok_or_else(|| broken("a `user_id` that was not written here"))?.into())
            }
            None => None,
        };
        let record = Record {
            version: row.version.cast_unsigned(),
            created_at: from_millis(u64::try_from(row.created_at).unwrap_or(0)),
            expires_at: from_millis(u64::try_from(row.expires_at).unwrap_or(0)),
            user,
            payload: row.payload,
        };
        Ok((StoreKey::from_bytes(key), record))
    }

    /// The user as the column has it.
    pub(super) fn stored_user(
        &self,
        operation: &'static str,
        user: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let user = user.map(D::user_to_stored);
        match &user {
            Some(user) if user.len() > USER_LIMIT => {
                let words = format!("a user of {} bytes; {USER_LIMIT} are the most", user.len());
                Err(StoreError::permanent(D::STORE, operation, words))
            }
            _ => Ok(user),
        }
    }
}

/// A statement and its values, to be run on a connection, perhaps more than once.
pub(super) trait AsyncDriver<D: Dialect, R>: Sync {
    const WRITES: bool = false;

    fn call(
        &self,
        connection: &mut D::Connection,
        unprepared: bool,
    ) -> impl Future<Output = Result<R, sqlx::Error>> + Send;
}

struct Execute<'a> {
    statement: &'a Statement,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, u64> for Execute<'_> {
    const WRITES: bool = true;

    fn call(
        &self,
        connection: &mut D::Connection,
        unprepared: bool,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send {
        D::execute(connection, self.statement, self.values, unprepared)
    }
}

struct FetchOne<'a> {
    statement: &'a Statement,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, Option<Row>> for FetchOne<'_> {
    fn call(
        &self,
        connection: &mut D::Connection,
        unprepared: bool,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send {
        D::fetch_one(connection, self.statement, self.values, unprepared)
    }
}

struct Fetch<'a> {
    statement: &'a Statement,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, Vec<Row>> for Fetch<'_> {
    fn call(
        &self,
        connection: &mut D::Connection,
        unprepared: bool,
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send {
        D::fetch(connection, self.statement, self.values, unprepared)
    }
}
