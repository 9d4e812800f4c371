//! Sessions in Redis or Valkey: one server, a cluster, or a master behind Sentinel.
//!
//! ```text
//! mod         the store: each method of `Store` and `Watch`
//! builder     how it is made, on whatever connection
//! listing     the sessions of a user, and all of them
//! saves       create and replace: the whole record, or the parts of it that have changed
//! recent      which records were just loaded, to find those parts
//! scripts     the Lua scripts, with what they are told and what they answer
//! check       whether the server has what the store needs, asked once at `connect`
//! errors      what an error of the server means: whether it passes, and what to do
//! connection  one way to send a command, whosever connection it is; sends it again if the connection ended
//! managed     a connection of the store's own, which finds the server again
//! sentinel    how a master behind Sentinel is found
//! tracking    connections on which the server tells what changes, for a near cache
//! nodes       the same in a cluster, a connection to each node
//! masters     a connection to a cluster on which a session is read from its master
//! ```
//!
//! 1. Every call may be carried out twice, because its connection may end before the answer is there. So a
//!    save has a write id by which the script knows the same save again, and a deletion leaves a receipt.
//! 2. Whether a record has expired is decided by this process's clock. Redis only removes what has.
//! 3. In a cluster a session and its user's set may be on two nodes: no script touches both.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::SystemTime,
};

use redis::{Cmd, FromRedisValue, Value, aio::ConnectionManager};

pub use self::builder::RedisStoreBuilder;
use self::{
    connection::{Call, Connection, One, Server, Several, batch},
    errors::classify,
    recent::RecentRecords,
    saves::{beside, last_of},
    scripts::Scripts,
    tracking::Tracking,
};

use super::{
    Created, DynUserIndex, Replaced, Store,
    known_users::KnownUsers,
    packed::{stored_millis, unpack},
    watch::{Around, Feed, Watch, Watcher},
};
use crate::error::store::StoreError;
use crate::{clock::Clock, identity::id::StoreKey, record::Record, unique::UniqueNumbers};

mod builder;
mod check;
mod connection;
mod errors;
mod listing;
mod managed;
#[cfg(feature = "redis-cluster")]
mod masters;
#[cfg(feature = "redis-cluster")]
mod nodes;
mod recent;
mod saves;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod tracking;

/// The store's name in errors.
const NAME: &str = "redis";

/// The operation in errors of `replace`, which has two ways: by parts, and whole.
const REPLACE: &str = "replace";

/// What a value begins with: the write id of the save that wrote it. The packed record follows.
const WRITE_ID: usize = 8;

/// How long Redis keeps a record at least, in milliseconds, so that one that is about to expire is
/// not gone between the two steps of a save. Whether it has expired is not for Redis to say.
const LEAST_TTL: u64 = 10_000;

/// How many calls may stand in line for the connection. Calls that find it full wait for a place
/// first, which is dearer; the client's own is 50.
const QUEUE: usize = 1024;

/// How many bytes of commands may go to the server in one write; the client's own is 8 KiB, which
/// is one call of the system for two sessions of that size.
const WRITES: usize = 256 * 1024;

/// Sessions in Redis or Valkey (feature `redis`), in a cluster of them (feature `redis-cluster`), or
/// behind Sentinel (feature `redis-sentinel`).
///
/// ```no_run
/// # async fn start() -> Result<(), sessions::StoreError> {
/// use sessions::RedisStore;
///
/// let store = RedisStore::connect("redis://:secret@redis.example:6379/0").await?;
/// # Ok(())
/// # }
/// ```
///
/// A connection that the application has is as good: [`new`](Self::new). For `rediss://` add
/// `redis` to your dependencies with one of its TLS features. Clones share the connection.
///
/// # Connections
///
/// One for all calls of a store and its clones (in a cluster one to each node): calls that are made at
/// the same time travel on it together, so that there is no pool whose size has to fit. With ten
/// processes Redis has ten connections (`maxclients`).
///
/// A connection that ends, by a restart or by a proxy or a `timeout` of Redis that ends what is idle,
/// is made anew, and a call that it takes along is made once more: no caller sees an error. That is safe for
/// every call: a save carries a write id by which it knows itself, and a deletion leaves a receipt. A
/// connection that a firewall or NAT has forgotten without a word costs one call its
/// [timeout](RedisStoreBuilder::with_timeout); let the idle timeout there be longer than that of whoever
/// ends connections properly, or set `tcp-keepalive` in Redis (300 seconds by default) below it.
///
/// A server that has become a replica takes no writes: after its first refusal the store connects to
/// the address again, which leads to the new master after a failover by DNS name, virtual address or
/// proxy. Until it does, saves are errors. (On a connection of the application's this is done with a
/// `QUIT`, for all who use it.) Reads are not refused by a replica: they may be older until the first
/// write.
///
/// twemproxy does not work: it knows no `RENAME`, and takes apart what has to stay together.
/// HAProxy, Envoy's TCP proxy and others that look at connections only, do.
///
/// # Round trips
///
/// One for each call: a `GET` to load; to save a `SET`, which puts the record and its expiry beside
/// the session, and at once a script, which compares the version, gives the record the session's
/// name and adds to the user's set. Of a session of half a kilobyte and more that has just been
/// loaded only the parts that have changed are sent, if they are not most of it; the store remembers
/// for that what it has loaded last, up to 512 records of up to 32 kilobytes. It takes a second one
/// if another process was faster. [`connect`](Self::connect) takes one more, to see whether the store
/// will have what it needs.
///
/// A script is sent by its hash; a server that does not know it (after a `SCRIPT FLUSH`, a restart, a
/// failover) is sent the text once. In a cluster, saving the whole of a session that has
/// a user takes two, and so does a `touch` of one, because the set may live elsewhere. A `touch` of a user's
/// session that this process has not loaded or saved lately takes one more.
///
/// # Permissions
///
/// A user of Redis needs these commands, on the keys below the prefix:
///
/// ```text
/// ACL SETUSER store on >secret ~sessions:* +get +getrange +mget +set +setrange +del +rename
///     +pexpire +pttl +eval +evalsha +zadd +zrange +zrem +zscore +zremrangebyscore
/// ```
///
/// and `+select` for a URL with the number of a database, `+cluster|slots` (`+cluster` before Redis 7)
/// in a cluster, `+client|tracking` (`+client` before Redis 7) for a [near cache](#near-cache), and `+scan`
/// for [`AllSessions`](crate::store::AllSessions). What is missing is named by [`connect`](Self::connect), or by the call that needs it
/// if it was taken away later.
///
/// # Near cache
///
/// A [`NearCache`](crate::store::NearCache) before the store asks the server to tell what changes
/// (`CLIENT TRACKING`; Redis 6, any Valkey). Then:
///
/// - The store's connection speaks RESP3, and the server notes for it which keys it has read, up to the
///   server's `tracking-table-max-keys` (a million by default) of all clients; beyond that it says of some
///   keys that they have changed, and they are loaded once more.
/// - A repeated read takes no round trip, and what a process has saved it need not load. A save ends with
///   a read of one byte on the server, which is how the server knows whom to tell next.
/// - An entry of a user's set that Redis has evicted (under a `maxmemory-policy` that takes any key) is
///   restored by a save, and by a read that asks the server, not by one that asks nobody.
/// - After a lost connection, and while the server is not to be reached, nothing is served from memory.
/// - It needs a connection of the store's own: [`connect`](Self::connect),
///   [`connect_sentinel`](Self::connect_sentinel) or `connect_cluster`. On one of the application's the cache
///   cannot be built. In a cluster the store has a second connection to each master, for what the cache has to
///   hear of; each node's records are served as long as that node, as the master of their slots, answers.
///   If the user may not do `client|tracking`, everything is loaded, and the log says so once.
///
/// Redis notices that a key has expired up to seconds later, or when a client asks for it; a near cache
/// goes by this process's clock.
///
/// # Keys
///
/// `sessions:{…}` with 64 hexadecimal digits in the braces is a session. With a colon and more digits
/// behind it, it is a record on its way there, or for a minute the empty receipt of a deletion; if a
/// connection ends in the middle of a save, a record may stay there until it expires. (In a cluster the receipt
/// has the session's own name: a record that is empty and has expired.) `sessions:user:`
/// and the user is a sorted set of that user's sessions,
/// which outlives the last of them by a day. The prefix is
/// [yours to choose](RedisStoreBuilder::with_prefix). The braces keep a session in one slot of a
/// cluster. A user may be any text.
///
/// # Expiry
///
/// Redis removes what has expired by itself: it is told how long each record lives, so that its
/// clock does not matter. Whether a record has expired is decided by this process's clock, to the
/// millisecond. Processes whose clocks differ disagree about a session's end by that difference.
///
/// # What survives
///
/// What Redis promises: with `appendonly yes` and `appendfsync always` every save that was
/// acknowledged survives a crash; with `everysec` the last second is lost, and without persistence
/// everything. Replication is asynchronous: a failover, in a cluster or by Sentinel, loses what the
/// new master had not received yet, which can be a logout as well. A master that is cut off from the
/// others goes on until they have elected another; `min-replicas-to-write 1` keeps it from
/// acknowledging what will be lost.
///
/// Set `maxmemory-policy noeviction`: with it, a save that finds no memory is an error. All keys of
/// the store expire, so that every other policy may take any of them when memory gets scarce:
///
/// - a session: its user is logged out, and what it held is gone. A lock (`Session::lock`) is
///   kept in the session, and ends with it: its holder's save says that the session has ended.
/// - a user's set: [`sessions_of`](crate::UserIndex::sessions_of) and "log out everywhere" miss that user's
///   sessions, which live on, until they are used. A session goes back into its set when it is saved
///   or its expiry is moved, and in a process that has seen it before when it is read; in a cluster
///   when the whole of it is saved or its expiry is moved.
/// - a record on its way: that save is an error.
/// - what a renewed or ended session leaves for a moment: a late request with its old cookie, or a
///   deletion that is made once more, does not know what became of it.
///
/// # Errors
///
/// What passes by itself is [retryable](StoreError::is_retryable): a server that is not to be reached, a
/// timeout, a server that is loading, failing over, out of memory (`OOM`), short of replicas
/// (`NOREPLICAS`), unable to write its snapshot (`MISCONF`), busy with a script (`BUSY`), or has too many
/// clients. A wrong password, a missing permission or a key that holds something else does not pass. A
/// call that is not answered [in time](RedisStoreBuilder::with_timeout) is an error; whether it was
/// carried out is not known then, nor if the connection ends twice.
///
/// # Cancellation
///
/// A future that is dropped may have been carried out or not, never in part.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    prefix: String,
    clock: Clock,
    scripts: Scripts,
    /// Those for when the server tells what changes.
    tracked_scripts: OnceLock<Scripts>,
    write_ids: UniqueNumbers,
    recent: RecentRecords,
    users: KnownUsers,
    /// Who is told of what this store writes.
    watcher: RwLock<Option<Watcher>>,
}

impl RedisStore {
    /// Connects to the server at `url`, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or the server is not to be reached; when it wants another password,
    /// or its user lacks a [permission](Self#permissions); when it is a replica, or belongs to a cluster.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Connects to the cluster that these servers belong to; some of them are enough.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), sessions::StoreError> {
    /// use sessions::RedisStore;
    ///
    /// let nodes = ["redis://n1.example:6379", "redis://n2.example:6379"];
    /// let store = RedisStore::connect_cluster(&nodes).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(urls: &[&str]) -> Result<Self, StoreError> {
        Self::builder().connect_cluster(urls).await
    }

    /// Connects to the master that these sentinels know by that name; see
    /// [the builder's](RedisStoreBuilder::connect_sentinel).
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), sessions::StoreError> {
    /// use sessions::RedisStore;
    ///
    /// let sentinels = ["redis://s1.example:26379", "redis://s2.example:26379"];
    /// let store = RedisStore::connect_sentinel(&sentinels, "mymaster").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis-sentinel")]
    pub async fn connect_sentinel(urls: &[&str], master: &str) -> Result<Self, StoreError> {
        Self::builder().connect_sentinel(urls, master).await
    }

    /// On a connection that the application has.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), redis::RedisError> {
    /// use sessions::RedisStore;
    ///
    /// let client = redis::Client::open("redis://redis.example")?;
    /// let store = RedisStore::new(client.get_connection_manager().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Its [response timeout](redis::aio::ConnectionManagerConfig::set_response_timeout) is how long a
    /// call takes at most, and the [store's](RedisStoreBuilder::with_timeout) if it is made once more.
    /// What the server lacks is found out by the first calls that need it. A manager that was refused
    /// for another reason than the network when it connected again (a password, a database) does not try
    /// any more; [`connect`](Self::connect) does.
    pub fn new(connection: ConnectionManager) -> Self {
        Self::builder().build(connection)
    }

    /// To set the prefix or the timeout.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::new()
    }

    /// The part in braces decides where in a cluster a key lives.
    fn key(&self, key: &StoreKey) -> String {
        // With room for what goes beside the session.
        let mut name = String::with_capacity(self.shared.prefix.len() + 90);
        name.push_str(&self.shared.prefix);
        name.push_str(":{");
        key.push_to(&mut name);
        name.push('}');
        name
    }

    fn user_key(&self, user: &str) -> String {
        format!("{}:user:{user}", self.shared.prefix)
    }

    /// The set of the record's user, where a script may change the set with the session: in a cluster it may
    /// be elsewhere.
    fn set_beside(&self, record: &Record) -> Option<String> {
        let user = record.user.as_deref().filter(|_| !self.shared.connection.is_cluster());
        user.map(|user| self.user_key(user))
    }

    fn scripts(&self) -> &Scripts {
        self.shared.tracked_scripts.get().unwrap_or(&self.shared.scripts)
    }

    fn now(&self) -> u64 {
        stored_millis(self.shared.clock.now())
    }

    async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.query_noting(operation, command, &mut Call::default()).await
    }

    async fn query_noting<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
        call: &mut Call<'_>,
    ) -> Result<T, StoreError> {
        let answer = self.shared.connection.query(&One(command), call).await;
        answer.map_err(|error| classify(operation, error))
    }

    /// A session, and when it expires as its user's set has it, in one round trip. If the set cannot
    /// be read, nothing is said of it.
    async fn load_with_score(
        &self,
        get: &Cmd,
        key: &StoreKey,
        user: &str,
        call: &mut Call<'_>,
    ) -> Result<(Option<Vec<u8>>, Option<Option<f64>>), StoreError> {
        let failed = |error| classify("load", error);
        let mut both = batch(2);
        both.add_command(get.clone());
        both.cmd("ZSCORE").arg(self.user_key(user)).arg(key.as_bytes());
        let answers = self.shared.connection.query(&Several(&both), call).await.map_err(failed)?;
        let mut answers = answers.into_iter();
        let value = last_of(answers.next().into_iter().collect()).map_err(failed)?;
        let score = last_of(answers.next().into_iter().collect());
        Ok((value, score.ok()))
    }

    /// The record in a value, if it is live.
    fn record(
        &self,
        operation: &'static str,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Record>, StoreError> {
        let Some(value) = value else { return Ok(None) };
        let record = value.get(WRITE_ID..).and_then(unpack).ok_or_else(|| {
            let words = "a key below the prefix holds no session; who else writes there?";
            StoreError::permanent(NAME, operation, words)
        })?;
        Ok((stored_millis(record.expires_at) > self.now()).then_some(record))
    }
}

/// Shows the prefix. URLs and passwords are not kept.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.shared.prefix)
            .field("connection", &self.shared.connection.kind())
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// What the near cache is told while this store changes a record, if there is one.
    fn around(&self, key: &StoreKey) -> Option<Around> {
        let watcher = self.shared.watcher.read().unwrap_or_else(PoisonError::into_inner);
        watcher.as_ref().map(|watcher| watcher.around(key))
    }

    fn touch_command(
        &self,
        key: &StoreKey,
        user: Option<&str>,
        expires: u64,
        now: u64,
        ttl: u64,
    ) -> Cmd {
        let is_cluster = self.shared.connection.is_cluster();
        let set = user.filter(|_| !is_cluster).map(|user| self.user_key(user));
        let bytes = expires.to_be_bytes();
        let [now, expires, ttl] = [now, expires, ttl].map(|number| number.to_string());
        let session = self.key(key);
        let keys = [Some(&*session), set.as_deref()];
        let keys: Vec<&str> = keys.into_iter().flatten().collect();
        let arguments: [Option<&[u8]>; 6] = [
            Some(now.as_bytes()),
            Some(key.as_bytes()),
            Some(expires.as_bytes()),
            Some(ttl.as_bytes()),
            Some(&bytes),
            user.map(str::as_bytes),
        ];
        let arguments: Vec<&[u8]> = arguments.into_iter().flatten().collect();
        self.scripts().touch.call(&keys, &arguments)
    }

    /// Deletes a session, if it has this version or none is named.
    async fn delete_if(&self, key: &StoreKey, version: &[u8]) -> Result<bool, StoreError> {
        let _around = self.around(key);
        #[cfg(feature = "redis-cluster")]
        if self.shared.connection.is_cluster() {
            return Box::pin(self.delete_alone(key, version)).await;
        }
        let script = &self.scripts().delete;
        let now = self.shared.clock.now();
        let session = self.key(key);
        let receipt = beside(&session, self.next_write_id(now));
        let now = stored_millis(now).to_string();
        let command = script.call(&[&session, &receipt], &[now.as_bytes(), version]);
        let deleted: i64 = self.run("delete", script, &command, &mut Call::default()).await?;
        Ok(deleted == 1)
    }

    async fn load_noting(
        &self,
        key: &StoreKey,
        call: &mut Call<'_>,
    ) -> Result<Option<Record>, StoreError> {
        const OPERATION: &str = "load";
        let mut get = redis::cmd("GET");
        get.arg(self.key(key));
        // In a cluster the set may be elsewhere.
        let is_cluster = self.shared.connection.is_cluster();
        let user = self.shared.users.get(key).filter(|_| !is_cluster);
        let (value, score) = match &user {
            Some(user) => self.load_with_score(&get, key, user, call).await?,
            None => (self.query_noting::<Option<Vec<u8>>>(OPERATION, &get, call).await?, None),
        };
        let write_id = value.as_deref().and_then(<[u8]>::first_chunk).copied();
        let record = self.record(OPERATION, value)?;
        if let (Some(write_id), Some(record)) = (write_id, &record) {
            self.shared.recent.put(key, write_id, record);
        }
        let owner = record.as_ref().and_then(|record| record.user.as_ref());
        self.shared.users.put(key, owner);
        if let (Some(record), Some(user), Some(score)) = (&record, user, score)
            && owner == Some(&user)
        {
            let expires = stored_millis(record.expires_at);
            if score.is_none_or(|score| score < expires as f64) {
                tracing::debug!("a session is put back into the set of its user");
                // The session is there, whether its user's set can be written or not.
                let _ = Box::pin(self.index(OPERATION, key, &user, expires, self.now())).await;
            }
        }
        Ok(record)
    }
}

impl Store for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.load_noting(key, &mut Call::default()).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let _around = self.around(key);
        self.create_noting(key, record, &mut Call::default()).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let _around = self.around(key);
        self.replace_noting(key, record, based_on, &mut Call::default()).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        const OPERATION: &str = "touch";
        /// How often it is told that the session has another user. One session seldom has two.
        const TRIES: u32 = 4;
        let (expires, now) = (stored_millis(expires_at), self.now());
        let Some(ttl) = expires.checked_sub(now).filter(|ttl| *ttl > 0) else { return Ok(()) };
        let _around = self.around(key);
        for _ in 0..TRIES {
            // A process that has not seen the session lately is told whose it is, and asks again.
            let user = self.shared.users.get(key);
            if let (true, Some(user)) = (self.shared.connection.is_cluster(), &user) {
                // The set first, as in a save.
                Box::pin(self.index(OPERATION, key, user, expires, now)).await?;
            }
            let command = self.touch_command(key, user.as_deref(), expires, now, ttl);
            let script = &self.scripts().touch;
            let answer = self.run(OPERATION, script, &command, &mut Call::default()).await?;
            let Some(owner): Option<String> = answer else { return Ok(()) };
            self.shared.users.put(key, Some(&owner.into()));
        }
        let words = "the session had another user each time that it was tried";
        Err(StoreError::new(NAME, OPERATION, words))
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.delete_if(key, &[]).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        self.delete_if(key, &version.to_be_bytes()).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl Watch for RedisStore {
    fn watch(&self, watcher: &Watcher) -> Result<(), StoreError> {
        let mut known = self.shared.watcher.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| !known.is_closed()) {
            let words = "this store, or a clone of it, has a near cache already: clone that one";
            return Err(StoreError::permanent(NAME, "watch", words));
        }
        match self.shared.connection.server() {
            Server::Own(own) => own.track(Tracking::new(watcher.clone(), &self.shared.prefix)),
            Server::Application(..) => {
                let words = "the server cannot be asked to tell what changes on a connection of the \
                             application's: make the store with `RedisStore::connect`";
                return Err(StoreError::permanent(NAME, "watch", words));
            }
            #[cfg(feature = "redis-cluster")]
            Server::Cluster(cluster) => {
                let Some(nodes) = &cluster.nodes else {
                    let words = "a cluster cannot be asked to tell what changes on a connection of the \
                                 application's: make the store with `RedisStore::connect_cluster`";
                    return Err(StoreError::permanent(NAME, "watch", words));
                };
                nodes.track(watcher, &self.shared.prefix);
            }
        }
        *known = Some(watcher.clone());
        drop(known);
        let _ = self.shared.tracked_scripts.set(Scripts::new(true));
        Ok(())
    }

    async fn load_watched(
        &self,
        key: &StoreKey,
    ) -> Result<(Option<Record>, Option<Feed>), StoreError> {
        let mut call = Call::loading(key);
        let found = self.load_noting(key, &mut call).await?;
        Ok((found, call.feed))
    }

    async fn create_watched(
        &self,
        key: &StoreKey,
        record: &Record,
    ) -> Result<(Created, Option<Feed>), StoreError> {
        let mut call = Call::saving(key);
        let created = self.create_noting(key, record, &mut call).await?;
        let feed = if created == Created::Done { call.feed_after_save() } else { None };
        Ok((created, feed))
    }

    async fn replace_watched(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<(Replaced, Option<Feed>), StoreError> {
        let mut call = Call::saving(key);
        let replaced = self.replace_noting(key, record, based_on, &mut call).await?;
        let feed = if replaced == Replaced::Done { call.feed_after_save() } else { None };
        Ok((replaced, feed))
    }

    async fn renew(&self, feed: &Feed) {
        #[cfg(feature = "redis-cluster")]
        if let Server::Cluster(cluster) = self.shared.connection.server()
            && let Some(nodes) = &cluster.nodes
        {
            if let Err(error) = nodes.renew(feed, &self.shared.prefix).await {
                tracing::debug!(%error, ?feed, "the near cache has no sign of life of a node");
            }
            return;
        }
        // Any answer will do; this is a command that the user may use.
        let mut ask = redis::cmd("PTTL");
        ask.arg(format!("{}:{{check}}", self.shared.prefix));
        if let Err(error) = self.query::<Value>("renew", &ask).await {
            tracing::debug!(%error, ?feed, "the near cache has no sign of life of its server");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::Client;

    use super::*;
    use crate::store::{
        NearCache,
        redis::managed::{Managed, Source},
    };

    /// What glibc's allocator has in a thread's own cache (`tcache_max`, and its head).
    const SERVED_WITHOUT_A_LOCK: usize = 1032;

    #[test]
    fn the_future_of_a_call_is_small() {
        let client = Client::open("redis://127.0.0.1:1").unwrap();
        let own = Managed::new(Source::Address(client), Duration::from_secs(1));
        let store = RedisStore::builder().assemble(Server::Own(own));
        let near = NearCache::new(store.clone()).unwrap();
        let (key, now) = (&StoreKey::from_bytes([1; 32]), SystemTime::now());
        let (user, payload) = (Some("7".into()), [0_u8; 600][..].into());
        let record = &Record { version: 1, created_at: now, expires_at: now, user, payload };
        let sizes = [
            ("load", size_of_val(&store.load(key))),
            ("create", size_of_val(&store.create(key, record))),
            ("replace", size_of_val(&store.replace(key, record, 1))),
            ("touch", size_of_val(&store.touch(key, now))),
            ("delete", size_of_val(&store.delete(key))),
            ("load, near", size_of_val(&near.load(key))),
            ("create, near", size_of_val(&near.create(key, record))),
            ("replace, near", size_of_val(&near.replace(key, record, 1))),
            ("delete, near", size_of_val(&near.delete(key))),
        ];
        for (call, size) in sizes {
            assert!(size <= SERVED_WITHOUT_A_LOCK, "{call}: {size} bytes");
        }
        assert!(size_of_val(&near.load(key)) <= 256, "a hit asks nobody");
    }
}
