use std::{
    fmt,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisWrite, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use self::{
    connection::Connection,
    known::{Known, KnownRecords},
    scripts::{Code, Scripts},
};

use super::{
    Advice, Created, Replaced, Store, StoreError, UserIndex,
    packed::{pack_head_into, pack_into, packed_length, stored_millis, unpack},
};
use crate::{Record, StoreKey, clock::Clock};

mod connection;
mod known;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;

/// The store's name in errors.
const NAME: &str = "redis";

/// What a value begins with: the mark of the save that wrote it. The packed record follows.
const MARK: usize = 8;

/// How long Redis keeps a record at least, in milliseconds, so that one that is about to expire is
/// not gone between the two steps of a save. Whether it has expired is not for Redis to say.
const LEAST_TTL: u64 = 10_000;

/// How many calls may stand in line for the connection. Those that find it full wait for a place
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
/// # Round trips
///
/// One for each call: a `GET` to load; to save a `SET`, which puts the record and its expiry beside
/// the session, and at once a script, which compares the version, gives the record the session's
/// name and adds to the user's set. Of a session of half a kilobyte and more that has just been
/// loaded only the bytes that have changed are sent, if they are not most of it; the store remembers
/// for that what it has loaded last, up to 512 records of up to 32 kilobytes. It takes a second one
/// if somebody else was faster.
///
/// A script is sent by its hash; a server that does not know it (after a `SCRIPT FLUSH`, a restart, a
/// failover) is sent the text once. In a cluster, saving the whole of a session that has
/// a user takes two, because the set may live elsewhere; and a `touch` of one takes two everywhere.
///
/// # Keys
///
/// `sessions:{…}` with 64 hexadecimal digits in the braces is a session. With a colon and more digits
/// behind it, it is a record on its way there; if a connection ends in the middle of a save, one may
/// stay until it expires. `sessions:user:` and the user is a sorted set of that user's sessions,
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
/// acknowledging what will be lost. Set `maxmemory-policy noeviction`, or sessions end when
/// memory gets scarce: with it, a save that finds no memory is an error.
///
/// # Errors
///
/// A lost connection, a timeout, a server that is loading, failing over, or out of memory is
/// [retryable](StoreError::is_retryable); a wrong password, a missing permission or a key that
/// holds something else is not. The connection is made anew by itself. A call that is not answered
/// [in time](RedisStoreBuilder::with_timeout) is an error.
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
    /// The next save's mark. It begins anywhere, so that no two processes have the same.
    mark: AtomicU64,
    known: KnownRecords,
}

impl RedisStore {
    /// Connects to the server at `url`, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or the server is not to be reached.
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
    /// Its [response timeout](ConnectionManagerConfig::set_response_timeout) is how long a call
    /// takes at most.
    pub fn new(connection: ConnectionManager) -> Self {
        Self::builder().build(connection)
    }

    /// To set the prefix or the timeout.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder {
            prefix: "sessions".to_string(),
            timeout: Duration::from_secs(5),
            clock: Clock::System,
        }
    }

    /// The part in braces decides where in a cluster a key lives.
    fn key(&self, key: &StoreKey) -> String {
        format!("{}:{{{key}}}", self.shared.prefix)
    }

    fn user_key(&self, user: &str) -> String {
        format!("{}:user:{user}", self.shared.prefix)
    }

    fn now(&self) -> u64 {
        stored_millis(self.shared.clock.now())
    }

    async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.shared.connection.command(command).await.map_err(|error| classify(operation, error))
    }

    /// Runs a script by its hash, and sends its text to a server that does not know it. What `first`
    /// says comes before it, in the same round trip.
    async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &Code,
        first: Option<Cmd>,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, StoreError> {
        let command = |name: &str, script: &str| {
            let length = keys.iter().map(|key| key.len()).sum::<usize>()
                + arguments.iter().map(|argument| argument.len()).sum::<usize>();
            let mut command =
                Cmd::with_capacity(3 + keys.len() + arguments.len(), length + script.len() + 16);
            command.arg(name).arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let connection = &self.shared.connection;
        let by_hash = command("EVALSHA", &script.hash);
        let known = match first {
            Some(first) => {
                let mut both = redis::Pipeline::with_capacity(2);
                both.add_command(first).add_command(by_hash);
                connection.pipeline(both).await
            }
            None => connection.command(&by_hash).await,
        };
        match known {
            // What came first has been done.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(operation, &command("EVAL", &script.text)).await
            }
            known => known.map_err(|error| classify(operation, error)),
        }
    }

    /// Runs `create` or `replace`.
    async fn write(
        &self,
        operation: &'static str,
        script: &Code,
        key: &StoreKey,
        record: &Record,
        based_on: Option<u64>,
        mark: [u8; MARK],
    ) -> Result<i64, StoreError> {
        let (expires, now) = (stored_millis(record.expires_at), self.now());
        let ttl = expires.saturating_sub(now);
        if let (true, Some(user)) = (self.shared.connection.is_cluster(), &record.user) {
            // The set first: a session that is not in it would escape a logout everywhere.
            self.index(operation, key, user, expires, now).await?;
        }
        let session = self.key(key);
        // Beside the session, under a name that no other save has.
        let beside = format!("{session}:{:016x}", u64::from_be_bytes(mark));
        // The words and the time take less than what is there for them.
        let length = MARK + packed_length(record);
        let mut put = Cmd::with_capacity(5, beside.len() + length + 32);
        put.arg("SET").arg(&beside);
        let mut value = put.writer_for_next_arg();
        value.write_all(&mark).expect("memory");
        pack_into(&mut value, record);
        drop(value);
        put.arg("PX").arg(ttl.max(LEAST_TTL));
        let user = record.user.as_deref().filter(|_| !self.shared.connection.is_cluster());
        let set = user.map(|user| self.user_key(user));
        let keys: &[&str] = match &set {
            Some(set) => &[&session, &beside, set],
            None => &[&session, &beside],
        };
        // What is there if it has this record's expiry and user, and is live.
        let mut unmoved = Vec::new();
        if let Some(based_on) = based_on.filter(|_| ttl > 0) {
            pack_head_into(&mut unmoved, record, based_on);
        }
        let end = (MARK + unmoved.len()).saturating_sub(1).to_string();
        let [now, expires, ttl] = [now, expires, ttl].map(|number| number.to_string());
        let based_on = based_on.unwrap_or(0).to_be_bytes();
        let arguments: [&[u8]; 8] = [
            now.as_bytes(),
            &mark,
            key.as_bytes(),
            expires.as_bytes(),
            ttl.as_bytes(),
            &based_on,
            &unmoved,
            end.as_bytes(),
        ];
        let answer = self.run(operation, script, Some(put), keys, &arguments).await?;
        if answer == 1 {
            self.shared.known.put(key, mark, record);
        }
        Ok(answer)
    }

    fn next_mark(&self) -> [u8; MARK] {
        self.shared.mark.fetch_add(1, Relaxed).to_be_bytes()
    }

    /// Sends only the bytes of a payload that have changed. False if the server has not this very
    /// record that we know, or if more has changed: then nothing has happened.
    async fn patch(
        &self,
        key: &StoreKey,
        known: &Known,
        record: &Record,
        mark: [u8; MARK],
    ) -> Result<bool, StoreError> {
        if stored_millis(record.expires_at) <= self.now() {
            return Ok(false);
        }
        let Some(change) = known.change_to(record) else { return Ok(false) };
        let mut before = known.mark.to_vec();
        pack_head_into(&mut before, record, known.record.version);
        let mut after = mark.to_vec();
        pack_head_into(&mut after, record, record.version);
        let numbers = [before.len() - 1, before.len() + change.start].map(|at| at.to_string());
        let arguments: [&[u8]; 5] = [
            &before,
            numbers[0].as_bytes(),
            &after,
            numbers[1].as_bytes(),
            &record.payload[change],
        ];
        let script = &self.shared.scripts.patch;
        let done: i64 = self.run("replace", script, None, &[&self.key(key)], &arguments).await?;
        if done == 1 {
            self.shared.known.put(key, mark, record);
        }
        Ok(done == 1)
    }

    async fn index(
        &self,
        operation: &'static str,
        key: &StoreKey,
        user: &str,
        expires: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        let ttl = expires.saturating_sub(now).to_string();
        let (expires, now) = (expires.to_string(), now.to_string());
        let arguments: [&[u8]; 4] =
            [now.as_bytes(), key.as_bytes(), expires.as_bytes(), ttl.as_bytes()];
        let set = self.user_key(user);
        let script = &self.shared.scripts.index;
        let _: i64 = self.run(operation, script, None, &[&set], &arguments).await?;
        Ok(())
    }

    /// The record in a value, if it is live.
    fn record(
        &self,
        operation: &'static str,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Record>, StoreError> {
        let Some(value) = value else { return Ok(None) };
        let record = value.get(MARK..).and_then(unpack).ok_or_else(|| {
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

/// Makes a [`RedisStore`]; from [`RedisStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "`connect` or `build` makes the store"]
pub struct RedisStoreBuilder {
    prefix: String,
    timeout: Duration,
    clock: Clock,
}

impl RedisStoreBuilder {
    /// What all keys begin with, before a colon; `sessions` unless told otherwise. In a cluster,
    /// a prefix must not have `{}` in it.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a call may take, and how long connecting; five seconds unless told otherwise.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the store's sessions expire by a clock that a test sets by hand. When Redis removes
    /// them remains a matter of its own clock.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::testing::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Connects to the server at `url`.
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or the server is not to be reached.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        let failed = |error| classify("connect", error);
        // While the server is away, each call tries for a moment and then says so; a later one
        // tries again.
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITES)
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500));
        let client = Client::open(url).map_err(failed)?;
        let connection = ConnectionManager::new_with_config(client, settings).await;
        Ok(self.build(connection.map_err(failed)?))
    }

    /// Connects to the cluster that the servers at `urls` belong to; some of them are enough.
    ///
    /// # Errors
    ///
    /// When a URL makes no sense, or no server is to be reached.
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(self, urls: &[&str]) -> Result<RedisStore, StoreError> {
        let failed = |error| classify("connect", error);
        let client = redis::cluster::ClusterClient::builder(urls.iter().copied())
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout)
            .overall_response_timeout(Some(self.timeout))
            .write_backpressure_boundary(WRITES)
            .build()
            .map_err(failed)?;
        let connection = client.get_async_connection().await.map_err(failed)?;
        Ok(self.assemble(connection.into()))
    }

    /// Connects to the master that these sentinels know by that name. After a failover the store
    /// finds the new master by itself; until there is one, its calls are errors that are
    /// [retryable](StoreError::is_retryable).
    ///
    /// `urls` are the sentinels, and some of them are enough. `master` is the name, or a URL with
    /// the name in place of the host, for a master that needs more: `rediss://:secret@mymaster/2`.
    ///
    /// # Errors
    ///
    /// When a URL makes no sense, or no sentinel knows such a master or none is to be reached.
    #[cfg(feature = "redis-sentinel")]
    pub async fn connect_sentinel(
        self,
        urls: &[&str],
        master: &str,
    ) -> Result<RedisStore, StoreError> {
        let failed = |error| classify("connect", error);
        let sentinels = sentinel::sentinels(urls, master).map_err(failed)?;
        self.build_sentinel(sentinels).await
    }

    /// On a client of the sentinels that the application has. It must be one for the
    /// [master](redis::sentinel::SentinelServerType::Master).
    #[cfg(feature = "redis-sentinel")]
    pub async fn build_sentinel(
        self,
        sentinels: redis::sentinel::SentinelClient,
    ) -> Result<RedisStore, StoreError> {
        let master = sentinel::Master::new(sentinels, self.timeout);
        master.connect().await.map_err(|error| classify("connect", error))?;
        Ok(self.assemble(Connection::Sentinel(master)))
    }

    /// On a connection that the application has.
    pub fn build(self, connection: ConnectionManager) -> RedisStore {
        self.assemble(connection.into())
    }

    /// On a connection to a cluster that the application has.
    #[cfg(feature = "redis-cluster")]
    pub fn build_cluster(self, connection: redis::cluster_async::ClusterConnection) -> RedisStore {
        self.assemble(connection.into())
    }

    fn assemble(self, connection: Connection) -> RedisStore {
        // Without random numbers there are no session ids either; the time will do for this.
        let mark = getrandom::u64().unwrap_or_else(|_| stored_millis(SystemTime::now()) << 20);
        let shared = Shared {
            connection,
            prefix: self.prefix,
            clock: self.clock,
            scripts: Scripts::new(),
            mark: AtomicU64::new(mark),
            known: KnownRecords::new(),
        };
        RedisStore { shared: Arc::new(shared) }
    }
}

/// What an error of the client means to whoever has to decide what to do.
fn classify(operation: &'static str, error: RedisError) -> StoreError {
    let advice = match error.code() {
        Some("OOM") => {
            let advice = "Redis is out of memory: raise `maxmemory`".to_string();
            return StoreError::new(NAME, operation, Advice { advice, source: error });
        }
        // Evicted, or expired while the server stood still.
        Some("UNSAVED") => return StoreError::new(NAME, operation, error),
        Some("NOAUTH" | "WRONGPASS") => "Redis refuses the password",
        Some("NOPERM") => {
            "this user of Redis lacks a permission: the store needs GET, GETRANGE, MGET, DEL, \
             RENAME, SET, SETRANGE, PEXPIRE, PTTL, EVAL, EVALSHA and sorted sets"
        }
        Some("FOREIGN" | "WRONGTYPE") => {
            "a key below the prefix holds no session; who else writes \
                                          there?"
        }
        Some("CROSSSLOT") => "this is a Redis Cluster: use `connect_cluster`",
        Some("MOVED") => "this is a Redis Cluster: use `connect_cluster`",
        _ => "",
    };
    if !advice.is_empty() {
        let advice = advice.to_string();
        return StoreError::permanent(NAME, operation, Advice { advice, source: error });
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::RESP3NotSupported
        | ErrorKind::EmptySentinelList
        | ErrorKind::Extension
        | ErrorKind::Server(
            ServerErrorKind::ResponseError
            | ServerErrorKind::ExecAbort
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::NoPerm,
        ) => StoreError::permanent(NAME, operation, error),
        _ => StoreError::new(NAME, operation, error),
    }
}

impl Store for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(self.key(key));
        let value: Option<Vec<u8>> = self.query("load", &get).await?;
        let mark = value.as_deref().and_then(<[u8]>::first_chunk).copied();
        let record = self.record("load", value)?;
        if let (Some(mark), Some(record)) = (mark, &record) {
            self.shared.known.put(key, mark, record);
        }
        Ok(record)
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let script = &self.shared.scripts.create;
        let answer = self.write("create", script, key, record, None, self.next_mark()).await?;
        Ok(if answer == 1 { Created::Done } else { Created::Exists })
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        // The same for both ways, so that a save which is sent again knows itself.
        let mark = self.next_mark();
        if let Some(known) = self.shared.known.take(key)
            && known.record.version == based_on
            && self.patch(key, &known, record, mark).await?
        {
            return Ok(Replaced::Done);
        }
        let script = &self.shared.scripts.replace;
        Ok(match self.write("replace", script, key, record, Some(based_on), mark).await? {
            1 => Replaced::Done,
            0 => Replaced::Changed,
            _ => Replaced::Missing,
        })
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let (expires, now) = (stored_millis(expires_at), self.now());
        let Some(ttl) = expires.checked_sub(now).filter(|ttl| *ttl > 0) else { return Ok(()) };
        let bytes = expires.to_be_bytes();
        let [now_text, ttl, text] = [now, ttl, expires].map(|number| number.to_string());
        let arguments: [&[u8]; 4] = [now_text.as_bytes(), text.as_bytes(), &bytes, ttl.as_bytes()];
        let script = &self.shared.scripts.touch;
        let user: Option<String> =
            self.run("touch", script, None, &[&self.key(key)], &arguments).await?;
        if let Some(user) = user {
            // In a task, because a caller that is dropped just now would leave it half done.
            let (store, key) = (self.clone(), *key);
            let index = async move { store.index("touch", &key, &user, expires, now).await };
            let index = tokio::spawn(index).await;
            index.map_err(|error| StoreError::new(NAME, "touch", error))??;
        }
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let script = &self.shared.scripts.delete;
        let now = self.now().to_string();
        let deleted: i64 =
            self.run("delete", script, None, &[&self.key(key)], &[now.as_bytes()]).await?;
        Ok(deleted == 1)
    }
}

impl UserIndex for RedisStore {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        const OPERATION: &str = "sessions_of";
        /// How many records are fetched at once.
        const BATCH: usize = 100;
        let set = self.user_key(user);
        let mut range = redis::cmd("ZRANGE");
        range.arg(&set).arg(0).arg(-1);
        let members: Vec<Vec<u8>> = self.query(OPERATION, &range).await?;
        let keys: Vec<StoreKey> = members
            .into_iter()
            .filter_map(|member| Some(StoreKey::from_bytes(member.try_into().ok()?)))
            .collect();
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for keys in keys.chunks(BATCH) {
            let mut get = redis::cmd("MGET");
            get.arg(keys.iter().map(|key| self.key(key)).collect::<Vec<_>>());
            let values: Vec<Option<Vec<u8>>> = self.query(OPERATION, &get).await?;
            for (key, value) in keys.iter().zip(values) {
                let Some(value) = value else {
                    gone.push(key);
                    continue;
                };
                // One that has expired, by our clock, may be extended just now.
                if let Some(record) = self.record(OPERATION, Some(value))?
                    && record.user.as_deref() == Some(user)
                {
                    found.push((*key, record));
                }
            }
        }
        // In a cluster the set is written before the session, so one that is missing may be just
        // about to begin; its entry goes when its time is over.
        if !gone.is_empty() && !self.shared.connection.is_cluster() {
            let mut remove = redis::cmd("ZREM");
            remove.arg(&set);
            for key in gone {
                remove.arg(key.as_bytes());
            }
            let _: i64 = self.query(OPERATION, &remove).await?;
        }
        Ok(found)
    }
}
