//! What PostgreSQL tells of changes (`LISTEN`), so that a near cache knows.
//!
//! A trigger of the table notifies of every row that is changed or removed, by whomever, with the version
//! and expiry that the row has from then on: the process that has written that knows it again. Notifications are
//! told in the order in which they were committed, so that one to oneself proves: whatever was
//! acknowledged before it was sent has been told. It is sent over the store's pool and has to arrive on
//! the connection that listens. Where it does not, because a pooler has given that connection away, because
//! the two lead to different servers, or because the trigger is gone, nothing is served from memory. A pooler
//! that gives connections away is looked for before the first `LISTEN`, which would stay behind.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use sqlx::{
    Connection as _, Executor as _, PgConnection, PgExecutor, Postgres, Row as _,
    postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions},
    raw_sql,
};
use tokio::{
    runtime::Handle as Runtime,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    calls::Core,
    driver::Driver,
    statements::{Statements, Table},
};
use crate::{
    clock::from_millis,
    error::store::StoreError,
    identity::id::StoreKey,
    store::watch::{Feed, Watcher},
};

/// The pause before the next connection, after one that was lost; twice as long after each that failed.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause after a connection on which nothing arrives.
const DEAF: Duration = Duration::from_secs(60);

/// Clients that are served meanwhile can hide what a pooler does from one look.
const LOOKS: u32 = 16;

const TRANSACTIONS: &str = "no notification to ourselves arrives behind a pooler in `pool_mode = transaction`: \
                            listen past it by `with_notifications_from`";

/// How a store is told of changes, if it is.
#[derive(Default)]
pub struct News {
    wanted: Option<Wanted>,
    shared: Arc<Shared>,
}

struct Wanted {
    /// Where to listen, if not where the pool leads.
    url: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    has_warned: AtomicBool,
}

#[derive(Default)]
struct State {
    watcher: Option<Watcher>,
    /// The connection that listens.
    ears: Option<Arc<Ears>>,
    task: Option<AbortHandle>,
    is_running: bool,
    /// Counts the tasks, so that one that ends late is not taken for the one after it.
    number: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once: a store that connects again finds the same every time.
    fn warn(&self, why: &str) {
        if !self.has_warned.swap(true, SeqCst) {
            tracing::warn!(
                why,
                "PostgreSQL does not tell what changes, and a near cache serves nothing"
            );
        }
    }
}

/// A connection that listens.
struct Ears {
    feed: Feed,
    /// The channel of this connection alone.
    channel: String,
    /// The number of the next notification to ourselves.
    next: AtomicU64,
    /// Those that are on their way, and when each was sent.
    sent: Mutex<VecDeque<(u64, Instant)>>,
    /// The last of them that has arrived, and one; zero before.
    heard: AtomicU64,
    hears: Notify,
    /// The connection is given up.
    is_deaf: Notify,
}

impl Ears {
    fn sent(&self) -> MutexGuard<'_, VecDeque<(u64, Instant)>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_heard(&self) -> bool {
        self.heard.load(SeqCst) > 0
    }

    fn receive(&self, notification: &PgNotification) {
        if notification.channel() == self.channel {
            let Ok(number) = notification.payload().parse::<u64>() else { return };
            let mut sent = self.sent();
            while let Some((first, at)) = sent.front().copied()
                && first <= number
            {
                sent.pop_front();
                if first == number {
                    self.feed.confirm(at.into_std());
                }
            }
            drop(sent);
            self.heard.fetch_max(number + 1, SeqCst);
            self.hears.notify_waiters();
            return;
        }
        match change(notification.payload()) {
            Some((key, Some((version, expires_at)))) => {
                self.feed.changed_to(&key, version, from_millis(expires_at));
            }
            Some((key, None)) => self.feed.changed(&key),
            // Of a table that was emptied, and of what we do not understand.
            None => self.feed.forget_all(),
        }
    }
}

/// What the trigger says: the key of a row in hexadecimal digits, and version and expiry of one that is
/// still there.
fn change(words: &str) -> Option<(StoreKey, Option<(u64, u64)>)> {
    let mut words = words.split(' ');
    let key = StoreKey::from_digits(words.next()?.as_bytes())?;
    let Some(version) = words.next() else { return Some((key, None)) };
    let version = version.parse::<i64>().ok()?.cast_unsigned();
    let expires_at = words.next()?.parse::<i64>().ok()?;
    Some((key, Some((version, u64::try_from(expires_at).unwrap_or(0)))))
}

impl News {
    pub(super) fn wanted(url: Option<&str>) -> Self {
        Self { wanted: Some(Wanted { url: url.map(String::from) }), shared: Arc::default() }
    }

    /// Puts the trigger into what `migrate` does.
    pub(super) fn add_to(&self, statements: &mut Statements, table: &Table) {
        if self.wanted.is_some() {
            statements.migrate.push_str(&trigger(table));
        }
    }

    pub(super) fn watcher(&self) -> Option<Watcher> {
        self.wanted.as_ref()?;
        self.shared.state().watcher.clone()
    }

    pub(super) fn watch(&self, watcher: &Watcher) -> Result<(), StoreError> {
        let Some(Wanted { url }) = &self.wanted else {
            let words = "this store is not told of changes: make it with `with_notifications`, and call \
                         `migrate`, which puts a trigger on the table";
            return Err(StoreError::permanent(Postgres::STORE, "watch", words));
        };
        if let Some(url) = url {
            url.parse::<PgConnectOptions>()
                .map_err(|error| StoreError::permanent(Postgres::STORE, "watch", error))?;
        }
        let mut state = self.shared.state();
        if state.watcher.as_ref().is_some_and(|known| !known.is_closed()) {
            let words = "this store, or a clone of it, has a near cache already: clone that one";
            return Err(StoreError::permanent(Postgres::STORE, "watch", words));
        }
        state.watcher = Some(watcher.clone());
        state.stop();
        Ok(())
    }
}

impl State {
    fn stop(&mut self) {
        self.task.take().inspect(AbortHandle::abort);
        self.is_running = false;
        self.number += 1;
        if let Some(ears) = self.ears.take() {
            ears.feed.end();
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.shared.state().stop();
    }
}

/// The name of the trigger, its function, and the channel that both are about.
fn name(table: &Table) -> String {
    table.index("changed")
}

/// In one block, so that a role which may not make it needs no right where it is. Always, as other triggers sleep
/// through what a subscription of logical replication, or a restore, writes.
fn trigger(table: &Table) -> String {
    let (name, quoted) = (name(table), table.quoted('"'));
    let function = table.beside(&name, '"');
    format!(
        " DO $sessions$ BEGIN IF NOT EXISTS (SELECT FROM pg_trigger \
             WHERE tgrelid = '{quoted}'::regclass AND tgname = '{name}') THEN \
         CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $changed$ BEGIN \
             IF TG_OP = 'UPDATE' THEN \
                 PERFORM pg_catalog.pg_notify('{name}', pg_catalog.encode(NEW.id, 'hex') || ' ' || \
                     NEW.version || ' ' || NEW.expires_at); \
             ELSIF TG_OP = 'DELETE' THEN \
                 PERFORM pg_catalog.pg_notify('{name}', pg_catalog.encode(OLD.id, 'hex')); \
             ELSE \
                 PERFORM pg_catalog.pg_notify('{name}', ''); \
             END IF; \
             RETURN NULL; \
         END $changed$; \
         CREATE TRIGGER \"{name}_all\" AFTER TRUNCATE ON {quoted} \
             FOR EACH STATEMENT EXECUTE FUNCTION {function}(); \
         CREATE TRIGGER \"{name}\" AFTER UPDATE OR DELETE ON {quoted} \
             FOR EACH ROW EXECUTE FUNCTION {function}(); \
         ALTER TABLE {quoted} ENABLE ALWAYS TRIGGER \"{name}_all\"; \
         ALTER TABLE {quoted} ENABLE ALWAYS TRIGGER \"{name}\"; \
         END IF; END $sessions$;"
    )
}

impl Core<Postgres> {
    /// What tells of the changes from now on; nothing yet if no connection listens, and then one is made.
    pub(super) fn feed(self: &Arc<Self>) -> Option<Feed> {
        let shared = &self.news.shared;
        let mut state = shared.state();
        if let Some(ears) = &state.ears
            && !ears.feed.has_ended()
        {
            return Some(ears.feed.clone());
        }
        let watcher = state.watcher.clone()?;
        if !state.is_running
            && let Ok(runtime) = Runtime::try_current()
            && let Some(options) = self.listen_options()
        {
            state.is_running = true;
            let listening = Listening {
                running: Running { shared: shared.clone(), number: state.number },
                watcher,
                options,
                channel: name(&self.table),
                timeout: self.timeout,
            };
            state.task = Some(runtime.spawn(listening.run()).abort_handle());
        }
        None
    }

    fn listen_options(&self) -> Option<PgConnectOptions> {
        match &self.news.wanted.as_ref()?.url {
            Some(url) => url.parse::<PgConnectOptions>().ok().map(|it| it.extra_float_digits(None)),
            None => Some((*self.write.connect_options()).clone()),
        }
    }

    /// Sends a notification to ourselves, and waits until it arrives. If it does not, the connection that
    /// listens is given up.
    pub(super) async fn confirm(&self, feed: &Feed) {
        let shared = &self.news.shared;
        let Some(ears) = shared.state().ears.clone().filter(|ears| ears.feed.is(feed)) else {
            return;
        };
        let number = {
            // In line before it is sent.
            let mut sent = ears.sent();
            let number = ears.next.fetch_add(1, Relaxed);
            sent.push_back((number, Instant::now()));
            number
        };
        let sent = self.notify(&ears.channel, number).await;
        let was_sent = match sent {
            Ok(was_sent) => was_sent,
            Err(error) => {
                ears.sent().retain(|(it, _)| *it != number);
                tracing::debug!(%error, "the near cache has no sign of life of its server");
                return;
            }
        };
        let heard = async {
            loop {
                let hears = ears.hears.notified();
                if ears.heard.load(SeqCst) > number {
                    return;
                }
                hears.await;
            }
        };
        if was_sent && timeout(self.timeout, heard).await.is_ok() {
            return;
        }
        // That the connection has been lost meanwhile says nothing about the next one.
        if ears.feed.has_ended() {
            return;
        }
        if !was_sent {
            shared.warn("the table has no trigger that tells of changes: call `migrate`");
        } else if !ears.has_heard() {
            shared.warn(TRANSACTIONS);
        }
        ears.feed.end();
        ears.is_deaf.notify_one();
    }

    /// False if the table has no trigger: then a notification to ourselves proves nothing, and is not sent.
    async fn notify(&self, channel: &str, number: u64) -> Result<bool, StoreError> {
        let (name, table) = (name(&self.table), self.table.quoted('"'));
        // `O` and `A` are triggers that are on.
        let ask = format!(
            "SELECT CASE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('{table}') \
                 AND tgname = '{name}' AND tgenabled IN ('O', 'A')) \
             THEN (SELECT 'sent'::text FROM pg_notify('{channel}', '{number}')) ELSE ''::text END"
        );
        let mut checkout = self.check_out("renew", &self.write).await?;
        let asked = timeout(self.timeout, Postgres::names(&mut checkout.connection, &ask)).await;
        let Ok(answer) = asked else { return Err(self.too_late("renew")) };
        checkout.end();
        let answer = answer.map_err(|error| self.error("renew", error))?;
        Ok(answer.first().is_some_and(|word| !word.is_empty()))
    }
}

/// The task that listens.
struct Listening {
    running: Running,
    watcher: Watcher,
    options: PgConnectOptions,
    channel: String,
    timeout: Duration,
}

/// What has become of a connection.
enum Outcome {
    Heard,
    /// What was sent has not arrived, and would not arrive on another one.
    Deaf,
    /// Before anything was to be heard, as on a server that ends what is idle (`idle_session_timeout`).
    Lost,
}

/// However the task ends, its connection tells nothing any more, and another may be started.
struct Running {
    shared: Arc<Shared>,
    number: u64,
}

impl Running {
    /// False if the task was stopped.
    fn uses(&self, ears: &Arc<Ears>) -> bool {
        let mut state = self.shared.state();
        let is_current = state.number == self.number;
        if is_current {
            state.ears = Some(ears.clone());
        }
        is_current
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.number == self.number {
            state.stop();
        }
    }
}

/// The process of the server that answers on this connection, asked without a prepared statement.
async fn backend<'c>(connection: impl PgExecutor<'c>) -> Result<i32, sqlx::Error> {
    connection.fetch_one(raw_sql("SELECT pg_catalog.pg_backend_pid()")).await?.try_get(0)
}

impl Listening {
    async fn run(self) {
        let mut pause = PAUSE;
        while !self.watcher.is_closed() {
            let outcome = match timeout(self.timeout, self.connect()).await {
                Ok(Ok(Some((listener, ears)))) => {
                    if !self.running.uses(&ears) {
                        return;
                    }
                    let is_deaf = self.listen(listener, &ears).await;
                    ears.feed.end();
                    match (ears.has_heard(), is_deaf) {
                        (true, _) => Outcome::Heard,
                        (false, true) => Outcome::Deaf,
                        (false, false) => Outcome::Lost,
                    }
                }
                Ok(Ok(None)) => {
                    self.running.shared.warn(TRANSACTIONS);
                    Outcome::Deaf
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "no connection that listens");
                    Outcome::Lost
                }
                Err(_) => Outcome::Lost,
            };
            pause = match outcome {
                Outcome::Heard => PAUSE,
                Outcome::Deaf => DEAF,
                Outcome::Lost => (2 * pause).min(LONGEST_PAUSE),
            };
            sleep(pause).await;
        }
    }

    /// Nothing if a pooler gives each transaction another connection to the server.
    async fn connect(&self) -> Result<Option<(PgListener, Arc<Ears>)>, sqlx::Error> {
        // A pool of one: its connection is the listener's for as long as the listener is there.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.timeout)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        // A new connection is a new feed.
        listener.eager_reconnect(false);
        if self.is_shared(&mut listener).await? {
            return Ok(None);
        }
        let number = getrandom::u64()
            .map_err(|error| sqlx::Error::Configuration(error.to_string().into()))?;
        let ears = Ears {
            feed: self.watcher.feed(),
            channel: format!("sessions_{number:016x}"),
            next: AtomicU64::new(0),
            sent: Mutex::default(),
            heard: AtomicU64::new(0),
            hears: Notify::new(),
            is_deaf: Notify::new(),
        };
        listener.listen_all([&*self.channel, &*ears.channel]).await?;
        Ok(Some((listener, Arc::new(ears))))
    }

    /// Whether what answers on the listener's connection answers others as well. The server would go on
    /// to notify a connection that the pooler has given to another client, and that client's statement
    /// fails by a notification that it has not asked for: hence this look before the first `LISTEN`.
    async fn is_shared(&self, listener: &mut PgListener) -> Result<bool, sqlx::Error> {
        let own = backend(&mut *listener).await?;
        let looks = async {
            // At a limit of connections there is no second one to look with. Then a notification to
            // ourselves says later whether the listener's connection is its own.
            let Ok(mut other) = PgConnection::connect_with(&self.options).await else {
                return Ok(false);
            };
            let mut is_shared = false;
            for _ in 0..LOOKS {
                // A transaction keeps what answers in it, and what was free last is what is given next.
                other.execute(raw_sql("BEGIN")).await?;
                is_shared =
                    backend(&mut other).await? == own || backend(&mut *listener).await? != own;
                other.execute(raw_sql("ROLLBACK")).await?;
                is_shared |= backend(&mut *listener).await? != own;
                if is_shared {
                    break;
                }
            }
            other.close().await?;
            Ok(is_shared)
        };
        // A pooler that gives each client a connection of its own may have no further one.
        timeout(self.timeout / 2, looks).await.unwrap_or(Ok(false))
    }

    /// Until the connection is lost, or given up: true, because what was sent has not arrived.
    async fn listen(&self, mut listener: PgListener, ears: &Ears) -> bool {
        loop {
            tokio::select! {
                told = listener.try_recv() => match told {
                    Ok(Some(notification)) => ears.receive(&notification),
                    Ok(None) | Err(_) => return false,
                },
                () = ears.is_deaf.notified() => return true,
                () = sleep(DEAF) => {}
            }
            if self.watcher.is_closed() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_trigger_says_is_understood_and_nothing_else() {
        let key = StoreKey::from_bytes(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(change(&key.to_string()), Some((key, None)));
        assert_eq!(change(&format!("{key} 7 1234")), Some((key, Some((7, 1234)))));
        assert_eq!(change(&format!("{key} -1 -5")), Some((key, Some((u64::MAX, 0)))));
        let short = &key.to_string()[2..];
        for other in
            ["", " ", "7", short, &format!("{key} 7"), &format!("{key} 7 x"), &format!("{key} x 7")]
        {
            assert_eq!(change(other), None, "{other}");
        }
    }
}
