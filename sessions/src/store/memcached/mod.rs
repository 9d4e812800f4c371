//! Sessions in memcached: [`protocol`] speaks with a server, [`pool`] has the connections, and the store
//! here makes of both what a [`Store`] promises.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::{
    pool::{Server, server_of},
    protocol::{Connection, Failure, Item, Stored, delete, forget, gets, put},
};

use crate::{clock::Clock, identity::id::StoreKey, record::Record};
use crate::{
    error::store::StoreError,
    store::{
        Created, DynUserIndex, Replaced, Store,
        known_users::KnownUsers,
        packed::{pack, stored_millis, unpack},
    },
};

mod pool;
mod protocol;
mod users;

/// The store's name in errors.
const NAME: &str = "memcached";

/// From here on memcached takes a time to live for a date.
const THIRTY_DAYS: u64 = 30 * 24 * 60 * 60;

/// How often a call begins anew when other processes are faster: each has changed the record.
const TRIES: usize = 32;

/// Sessions in memcached (feature `memcached`).
///
/// ```no_run
/// # async fn start() -> Result<(), sessions::StoreError> {
/// use sessions::MemcachedStore;
///
/// let store = MemcachedStore::connect("memcached://cache.example:11211").await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share the connections.
///
/// # Several servers
///
/// `memcached://one.example,two.example,three.example` spreads the sessions over three servers, by
/// their keys alone, so that all processes agree (rendezvous hashing). All processes must name the
/// same servers in the same words; their order does not matter. Nothing is kept twice: while a
/// server is away, calls for its share of the sessions are errors that are
/// [retryable](StoreError::is_retryable), and the other sessions go on. A server that is added takes
/// over its share of each of the others, and those sessions end; with one that is taken out of the
/// list only its own do.
///
/// # What survives
///
/// Nothing survives a restart of memcached: everybody is logged out. When its memory is full,
/// memcached forgets the sessions that were used least recently. Watch its `evictions`, and use
/// another store for sessions that must not end early.
///
/// # Round trips
///
/// One to load and to create; two to save, to touch and to delete: memcached compares its own
/// number of the last change, not ours, so it is asked for that first. A save that was overtaken
/// by a `touch` tries again.
///
/// # Keys and sizes
///
/// A key is `sessions:` and 64 hexadecimal digits; the prefix is
/// [yours to choose](MemcachedStoreBuilder::with_prefix). A record that is larger than the server's
/// item size (one megabyte unless it was started with `-I`) is an error that is not
/// [retryable](StoreError::is_retryable). A user may be any text.
///
/// The sessions of a user are listed in an item `sessions:user:` and the hash of the user, which is
/// written before a session is, at most once a day for each, and after it has ended: two round trips more
/// then. The list has room for some 29,000 sessions in an item of a megabyte.
///
/// A server that forgets what was used least recently may forget a list before its sessions: those
/// are not listed then, and "log out everywhere" misses them, until they are used. A process looks at
/// the list together with a session, from its second use of that session on, and enters a session
/// that is missing; at lists of more than about a hundred sessions only once a day. With the option `-M`
/// a server forgets nothing, and answers with an error instead when it is full.
///
/// # Expiry
///
/// Whether a record has expired is decided by this process's clock, to the millisecond. memcached
/// is told how long to keep it, so that its clock does not matter; only for lives of more than
/// thirty days it wants a date, and its clock should be right then.
///
/// # Errors
///
/// A lost connection, a timeout and a server without memory are
/// [retryable](StoreError::is_retryable). A connection that fails is replaced by the next call. One
/// that was ended between two calls (a restart, a proxy that ends what is idle) is replaced without an
/// error. One that a firewall has forgotten costs one call its timeout.
///
/// A server with the option `-C` does not number changes: no save can be compared there, and each call that finds a
/// session is an error. One with `-Y` wants a password, which the store has none of.
///
/// # Cancellation
///
/// A future that is dropped may have been carried out or not, never in part. Its connection is
/// closed.
#[derive(Clone)]
pub struct MemcachedStore {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<Server>,
    prefix: String,
    timeout: Duration,
    clock: Clock,
    max_connections: usize,
    users: KnownUsers,
    lists: users::Lists,
}

impl MemcachedStore {
    /// Connects to the server at `url`, `memcached://host:port` or just `host:port`, or to several
    /// with commas between them, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or a server is not to be reached.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// To set the prefix, the number of connections or the timeout.
    pub fn builder() -> MemcachedStoreBuilder {
        MemcachedStoreBuilder {
            prefix: "sessions".to_string(),
            timeout: Duration::from_secs(5),
            max_connections: 16,
            clock: Clock::System,
        }
    }

    fn now(&self) -> u64 {
        stored_millis(self.shared.clock.now())
    }

    /// Where a session is, and what it is called there.
    fn place(&self, key: &StoreKey) -> Place<'_> {
        let name = format!("{}:{key}", self.shared.prefix);
        Place { server: server_of(&self.shared.servers, key), name }
    }

    /// How memcached is told when to forget: no earlier than the record expires, a second or two
    /// later. Its seconds are coarse, and it is the record that decides.
    fn lifetime(&self, record: &Record) -> u64 {
        let seconds =
            stored_millis(record.expires_at).saturating_sub(self.now()).div_ceil(1000) + 1;
        if seconds < THIRTY_DAYS {
            return seconds;
        }
        // The date counts by the real clock, also when a test has set ours.
        let today = stored_millis(SystemTime::now()) / 1000;
        // Later than this is forever (0).
        if seconds > u64::from(u32::MAX >> 1) - today { 0 } else { today + seconds }
    }

    /// Does `work` on a connection to a server, within the timeout.
    async fn on<R>(
        &self,
        operation: &'static str,
        server: &Server,
        work: impl AsyncFnOnce(&mut Connection) -> Result<R, Failure>,
    ) -> Result<R, StoreError> {
        server.call(operation, self.shared.timeout, work).await
    }

    /// The record under a key, if it is live, and memcached's number of its last change.
    async fn get(&self, operation: &'static str, at: &Place<'_>) -> Result<Found, StoreError> {
        let get = async |connection: &mut _| gets(connection, [&at.name]).await;
        let [value] = self.on(operation, at.server, get).await?;
        self.found(operation, value)
    }

    /// What there is in an item.
    fn found(&self, operation: &'static str, value: Option<Item>) -> Result<Found, StoreError> {
        let Some((value, unique)) = value else { return Ok(Found::Nothing) };
        if unique == 0 {
            let words = "this memcached does not number changes (its option `-C`), so that no save can be compared \
                         with what is there: start it without `-C`";
            return Err(StoreError::permanent(NAME, operation, words));
        }
        let record = unpack(&value).ok_or_else(|| {
            let words = "a key below the prefix holds no session; who else writes there?";
            StoreError::permanent(NAME, operation, words)
        })?;
        Ok(match stored_millis(record.expires_at) > self.now() {
            true => Found::Live(record, unique),
            false => Found::Expired(unique),
        })
    }

    async fn put(
        &self,
        operation: &'static str,
        at: &Place<'_>,
        record: &Record,
        unique: Option<u64>,
    ) -> Result<Stored, StoreError> {
        let value = pack(record);
        let lifetime = self.lifetime(record);
        let name = &at.name;
        let put = async |connection: &mut _| put(connection, name, &value, lifetime, unique).await;
        self.on(operation, at.server, put).await
    }

    fn overtaken(operation: &'static str) -> StoreError {
        StoreError::new(NAME, operation, "others changed the record each time that it was tried")
    }
}

/// A session's place.
struct Place<'a> {
    server: &'a Server,
    name: String,
}

enum Found {
    Nothing,
    Expired(u64),
    Live(Record, u64),
}

/// Shows the servers and the number of connections.
impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &*self.shared;
        let in_use = |server: &Server| shared.max_connections - server.permits.available_permits();
        let in_use: usize = shared.servers.iter().map(in_use).sum();
        let servers: Vec<&str> = shared.servers.iter().map(|it| it.address.as_str()).collect();
        f.debug_struct("MemcachedStore")
            .field("servers", &servers)
            .field("prefix", &shared.prefix)
            .field("connections_in_use", &in_use)
            .finish_non_exhaustive()
    }
}

/// Makes a [`MemcachedStore`]; from [`MemcachedStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "`connect` makes the store"]
pub struct MemcachedStoreBuilder {
    prefix: String,
    timeout: Duration,
    max_connections: usize,
    clock: Clock,
}

impl MemcachedStoreBuilder {
    /// What all keys begin with, before a colon; `sessions` unless told otherwise. At most 100
    /// visible ASCII characters.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a call may take, connecting included; five seconds unless told otherwise.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections to a server are opened at most, 16 unless told otherwise. Calls beyond
    /// that wait.
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Lets the store's sessions expire by a clock that a test sets by hand. When memcached forgets
    /// them remains a matter of its own clock.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Connects to the server at `url`, `memcached://host:port` or just `host:port`, or to several
    /// with commas between them; the port is 11211 unless it says otherwise.
    ///
    /// # Errors
    ///
    /// When the URL or the prefix makes no sense, or a server is not to be reached.
    pub async fn connect(self, url: &str) -> Result<MemcachedStore, StoreError> {
        let no = |words: &str| Err(StoreError::permanent(NAME, "connect", words));
        let list = url.strip_prefix("memcached://").unwrap_or(url).trim_end_matches('/');
        let mut addresses = Vec::new();
        for address in list.split(',') {
            if address.is_empty() || address.contains(['/', '@', ' ', '?']) {
                return no("an address reads `memcached://host:port`, or `host:port,host:port`");
            }
            // A colon in an IPv6 address stands before the bracket.
            let has_port = address.rfind(':').is_some_and(|at| !address[at..].contains(']'));
            let full = if has_port { address.to_string() } else { format!("{address}:11211") };
            if addresses.contains(&full) {
                return no("a server is named twice");
            }
            addresses.push(full);
        }
        if self.prefix.len() > 100 || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return no("a prefix has at most 100 visible ASCII characters");
        }
        let server = |address| Server::new(address, self.max_connections);
        let shared = Shared {
            servers: addresses.into_iter().map(server).collect(),
            prefix: self.prefix,
            timeout: self.timeout,
            clock: self.clock,
            max_connections: self.max_connections,
            users: KnownUsers::new(),
            lists: users::Lists::new(),
        };
        let store = MemcachedStore { shared: Arc::new(shared) };
        for server in &store.shared.servers {
            // A key that is always right, to see whether a server answers.
            let ask = async |connection: &mut _| gets(connection, ["sessions"]).await;
            store.on("connect", server, ask).await?;
        }
        Ok(store)
    }
}

impl Store for MemcachedStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(match self.find("load", key, &self.place(key)).await? {
            Found::Live(record, _) => Some(record),
            Found::Expired(_) | Found::Nothing => None,
        })
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        const OPERATION: &str = "create";
        let at = &self.place(key);
        self.enter(OPERATION, key, record, None).await?;
        self.shared.users.put(key, record.user.as_ref());
        for _ in 0..TRIES {
            if let Stored::Done = self.put(OPERATION, at, record, None).await? {
                return Ok(Created::Done);
            }
            match self.get(OPERATION, at).await? {
                Found::Live(..) => return Ok(Created::Exists),
                Found::Expired(unique) => {
                    if let Stored::Done = self.put(OPERATION, at, record, Some(unique)).await? {
                        return Ok(Created::Done);
                    }
                }
                Found::Nothing => {}
            }
        }
        Err(Self::overtaken(OPERATION))
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        const OPERATION: &str = "replace";
        let at = &self.place(key);
        for _ in 0..TRIES {
            let (before, unique) = match self.find(OPERATION, key, at).await? {
                Found::Live(found, unique) if found.version == based_on => {
                    self.enter(OPERATION, key, record, Some(&found)).await?;
                    (found.user, unique)
                }
                Found::Live(..) => return Ok(Replaced::Changed),
                Found::Expired(_) | Found::Nothing => return Ok(Replaced::Missing),
            };
            match self.put(OPERATION, at, record, Some(unique)).await? {
                Stored::Done => {
                    self.shared.users.put(key, record.user.as_ref());
                    if let Some(user) = before.filter(|user| Some(user) != record.user.as_ref()) {
                        self.leave(OPERATION, &user, std::slice::from_ref(key)).await;
                    }
                    return Ok(Replaced::Done);
                }
                Stored::Missing => return Ok(Replaced::Missing),
                // By a save or by a `touch`: that is seen at the next look.
                Stored::Exists => {}
            }
        }
        Err(Self::overtaken(OPERATION))
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        const OPERATION: &str = "touch";
        let at = &self.place(key);
        for _ in 0..TRIES {
            let Found::Live(found, unique) = self.find(OPERATION, key, at).await? else {
                return Ok(());
            };
            if found.expires_at >= expires_at {
                return Ok(());
            }
            let record = Record { expires_at, ..found.clone() };
            self.enter(OPERATION, key, &record, Some(&found)).await?;
            match self.put(OPERATION, at, &record, Some(unique)).await? {
                Stored::Done | Stored::Missing => return Ok(()),
                Stored::Exists => {}
            }
        }
        Err(Self::overtaken(OPERATION))
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        const OPERATION: &str = "delete";
        let Some(ended) = self.end(OPERATION, key).await? else { return Ok(false) };
        if let Some(user) = &ended.user {
            self.leave(OPERATION, user, std::slice::from_ref(key)).await;
        }
        Ok(true)
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        const OPERATION: &str = "delete";
        let at = &self.place(key);
        for _ in 0..TRIES {
            let (record, unique) = match self.get(OPERATION, at).await? {
                Found::Live(found, unique) if found.version == version => (found, unique),
                _ => return Ok(false),
            };
            let end = async |connection: &mut _| forget(connection, &at.name, unique).await;
            match self.on(OPERATION, at.server, end).await? {
                Stored::Done => {
                    if let Some(user) = &record.user {
                        self.leave(OPERATION, user, std::slice::from_ref(key)).await;
                    }
                    return Ok(true);
                }
                Stored::Missing => return Ok(false),
                // By a save or by a `touch`: that is seen at the next look.
                Stored::Exists => {}
            }
        }
        Err(Self::overtaken(OPERATION))
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl MemcachedStore {
    /// Deletes a record, and gives it; but leaves it in its user's list.
    async fn end(
        &self,
        operation: &'static str,
        key: &StoreKey,
    ) -> Result<Option<Record>, StoreError> {
        let at = &self.place(key);
        let Found::Live(record, _) = self.get(operation, at).await? else { return Ok(None) };
        let delete = async |connection: &mut _| delete(connection, &at.name).await;
        Ok(self.on(operation, at.server, delete).await?.then_some(record))
    }
}
