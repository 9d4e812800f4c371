use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    Advice, Created, Replaced, Store, StoreError, UserIndex,
    packed::{pack, stored_millis, unpack},
};
use crate::{Record, StoreKey, clock::Clock};

/// The store's name in errors.
const NAME: &str = "redis";

/// What a value begins with: the mark of the save that wrote it. The packed record follows.
const MARK: usize = 8;

/// At the head of each script: reads the head of a record, and says whether it is live.
///
/// Positions are those of `packed`, behind the mark, counted from one: format 9, version 10 to 17,
/// expiry 18 to 25.
const HEAD: &str = "
local head = redis.call('GETRANGE', KEYS[1], 0, 24)
local function number(text)
  local a, b, c, d, e, f, g, h = string.byte(text, 1, 8)
  return ((((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g) * 256 + h
end
if #head > 0 and (#head < 25 or string.byte(head, 9) ~= 1) then
  return redis.error_reply('FOREIGN the key holds no session')
end
local function live(now)
  return #head > 0 and number(string.sub(head, 18, 25)) > tonumber(now)
end
";

/// Puts a session into its user's set, whose scores are when they expire, and forgets there what
/// has expired a day ago: until then a `touch` whose answer got lost may have made it live longer.
const INDEX: &str = "
local function index(key, member, expires, now, ttl)
  local day = 86400000
  local score = redis.call('ZSCORE', key, member)
  if not score or tonumber(score) < tonumber(expires) then
    redis.call('ZADD', key, expires, member)
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', tonumber(now) - day)
  if redis.call('PTTL', key) < tonumber(ttl) + day then
    redis.call('PEXPIRE', key, tonumber(ttl) + day)
  end
end
";

/// `ARGV`: value, now, time to live, expiry, the key as a member of the user's set. `KEYS[2]`, if
/// it is there, is that set.
const CREATE: &str = "
if live(ARGV[2]) then
  -- Our own, sent again because the answer got lost.
  return string.sub(head, 1, 8) == string.sub(ARGV[1], 1, 8) and 1 or 0
end
if tonumber(ARGV[3]) <= 0 then
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
if KEYS[2] then index(KEYS[2], ARGV[5], ARGV[4], ARGV[2], ARGV[3]) end
return 1
";

/// The same, and at last the version that it is based on. 1 is done, 0 changed, -1 missing.
const REPLACE: &str = "
if not live(ARGV[2]) then return -1 end
if string.sub(head, 10, 17) ~= ARGV[6] then
  return string.sub(head, 1, 8) == string.sub(ARGV[1], 1, 8) and 1 or 0
end
if tonumber(ARGV[3]) <= 0 then
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
if KEYS[2] then index(KEYS[2], ARGV[5], ARGV[4], ARGV[2], ARGV[3]) end
return 1
";

/// `ARGV`: expiry as eight bytes, now, time to live, expiry. Returns the user of a session that
/// lives longer now.
const TOUCH: &str = "
if not live(ARGV[2]) or number(string.sub(head, 18, 25)) >= tonumber(ARGV[4]) then
  return false
end
redis.call('SETRANGE', KEYS[1], 17, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local size = redis.call('GETRANGE', KEYS[1], 33, 36)
local length = 0
for at = 1, 4 do length = length * 256 + string.byte(size, at) end
if length == 0 then return false end
if length == 1 then return '' end
return redis.call('GETRANGE', KEYS[1], 37, 35 + length)
";

/// `ARGV`: now. Whether a live session was there.
const DELETE: &str = "
local was = live(ARGV[1]) and 1 or 0
redis.call('DEL', KEYS[1])
return was
";

/// `ARGV`: member, expiry, now, time to live.
const INDEX_ALONE: &str = "
index(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return 1
";

/// Sessions in Redis or Valkey (feature `redis`), or in a cluster of them (feature
/// `redis-cluster`).
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
/// One for each call: a `GET` to load, a script to save, which compares the version, writes, sets
/// the expiry and adds to the user's set. The script is sent by its hash; a server that does not
/// know it (after a `SCRIPT FLUSH`, a restart, a failover) is sent the text once. In a cluster,
/// saving a session that has a user takes two, because the set may live elsewhere; and a `touch` of
/// one takes two everywhere.
///
/// # Keys
///
/// `sessions:` and 64 hexadecimal digits is a session, `sessions:user:` and the user is a sorted set
/// of that user's sessions, which outlives the last of them by a day. The prefix is
/// [yours to choose](RedisStoreBuilder::with_prefix). A session is one key, and so in one slot of a
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
/// everything. Replication is asynchronous: a failover loses what the new master had not received
/// yet, which can be a logout as well. Set `maxmemory-policy noeviction`, or sessions end when
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
}

/// A connection that the application has; it is shared by its clones and connects again by itself.
#[derive(Clone)]
enum Connection {
    Single(ConnectionManager),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl From<ConnectionManager> for Connection {
    fn from(connection: ConnectionManager) -> Self {
        Self::Single(connection)
    }
}

#[cfg(feature = "redis-cluster")]
impl From<redis::cluster_async::ClusterConnection> for Connection {
    fn from(connection: redis::cluster_async::ClusterConnection) -> Self {
        Self::Cluster(connection)
    }
}

impl Connection {
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    fn is_cluster(&self) -> bool {
        match self {
            Self::Single(_) => false,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => true,
        }
    }
}

struct Scripts {
    create: Code,
    replace: Code,
    touch: Code,
    delete: Code,
    index: Code,
}

impl Scripts {
    fn new() -> Self {
        Self {
            create: Code::new(&[HEAD, INDEX, CREATE]),
            replace: Code::new(&[HEAD, INDEX, REPLACE]),
            touch: Code::new(&[HEAD, TOUCH]),
            delete: Code::new(&[HEAD, DELETE]),
            index: Code::new(&[INDEX, INDEX_ALONE]),
        }
    }
}

struct Code {
    text: String,
    hash: String,
}

impl Code {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = Script::new(&text).get_hash().to_string();
        Self { text, hash }
    }
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
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(urls: &[&str]) -> Result<Self, StoreError> {
        Self::builder().connect_cluster(urls).await
    }

    /// On a connection that the application has.
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

    fn key(&self, key: &StoreKey) -> String {
        format!("{}:{key}", self.shared.prefix)
    }

    fn user_key(&self, user: &str) -> String {
        format!("{}:user:{user}", self.shared.prefix)
    }

    fn now(&self) -> u64 {
        stored_millis(self.shared.clock.now())
    }

    /// The record behind a mark of its own.
    fn value(&self, record: &Record) -> Vec<u8> {
        let mark = self.shared.mark.fetch_add(1, Relaxed).to_be_bytes();
        let mut value = Vec::with_capacity(MARK + 64 + record.payload.len());
        value.extend(mark);
        value.extend(pack(record));
        value
    }

    async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.shared.connection.query(command).await.map_err(|error| classify(operation, error))
    }

    /// Runs a script by its hash, and sends its text to a server that does not know it.
    async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &Code,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, StoreError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let known = self.shared.connection.query(&command("EVALSHA", &script.hash)).await;
        match known {
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
    ) -> Result<i64, StoreError> {
        let (expires, now) = (stored_millis(record.expires_at), self.now());
        let ttl = expires.saturating_sub(now);
        if let (true, Some(user)) = (self.shared.connection.is_cluster(), &record.user) {
            // The set first: a session that is not in it would escape a logout everywhere.
            self.index(operation, key, user, expires, now).await?;
        }
        let value = self.value(record);
        let [now, ttl, expires] = [now, ttl, expires].map(|number| number.to_string());
        let based_on = based_on.unwrap_or(0).to_be_bytes();
        let arguments: [&[u8]; 6] =
            [&value, now.as_bytes(), ttl.as_bytes(), expires.as_bytes(), key.as_bytes(), &based_on];
        let key = self.key(key);
        let user = record.user.as_deref().filter(|_| !self.shared.connection.is_cluster());
        match user.map(|user| self.user_key(user)) {
            Some(set) => self.run(operation, script, &[&key, &set], &arguments).await,
            None => self.run(operation, script, &[&key], &arguments).await,
        }
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
            [key.as_bytes(), expires.as_bytes(), now.as_bytes(), ttl.as_bytes()];
        let set = self.user_key(user);
        let _: i64 = self.run(operation, &self.shared.scripts.index, &[&set], &arguments).await?;
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
            .field("cluster", &self.shared.connection.is_cluster())
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
    /// What all keys begin with, before a colon; `sessions` unless told otherwise.
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
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500));
        let client = Client::open(url).map_err(failed)?;
        let connection = ConnectionManager::new_with_config(client, settings).await;
        Ok(self.build(connection.map_err(failed)?))
    }

    /// Connects to the cluster that the servers at `urls` belong to; some of them are enough.
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(self, urls: &[&str]) -> Result<RedisStore, StoreError> {
        let failed = |error| classify("connect", error);
        let client = redis::cluster::ClusterClient::builder(urls.iter().copied())
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout)
            .overall_response_timeout(Some(self.timeout))
            .build()
            .map_err(failed)?;
        let connection = client.get_async_connection().await.map_err(failed)?;
        Ok(self.assemble(connection.into()))
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
        Some("NOAUTH" | "WRONGPASS") => "Redis refuses the password",
        Some("NOPERM") => {
            "this user of Redis lacks a permission: the store needs GET, MGET, DEL, \
                           SET, PEXPIRE, EVAL, EVALSHA and sorted sets"
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
        let value = self.query("load", &get).await?;
        self.record("load", value)
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let script = &self.shared.scripts.create;
        let answer = self.write("create", script, key, record, None).await?;
        Ok(if answer == 1 { Created::Done } else { Created::Exists })
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let script = &self.shared.scripts.replace;
        Ok(match self.write("replace", script, key, record, Some(based_on)).await? {
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
        let arguments: [&[u8]; 4] = [&bytes, now_text.as_bytes(), ttl.as_bytes(), text.as_bytes()];
        let script = &self.shared.scripts.touch;
        let user: Option<String> = self.run("touch", script, &[&self.key(key)], &arguments).await?;
        if let Some(user) = user {
            self.index("touch", key, &user, expires, now).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let script = &self.shared.scripts.delete;
        let now = self.now().to_string();
        let deleted: i64 = self.run("delete", script, &[&self.key(key)], &[now.as_bytes()]).await?;
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
                match self.record(OPERATION, value)? {
                    Some(record) if record.user.as_deref() == Some(user) => {
                        found.push((*key, record));
                    }
                    Some(_) => {}
                    None => gone.push(key),
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

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for (key, _) in self.sessions_of(user).await? {
            if Some(&key) != except && self.delete(&key).await? {
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}
