//! Sessions in memcached, over its text protocol.
//!
//! The protocol is spoken here, because what is wanted of a client is more than its commands: the
//! client on crates.io that knows `gets` and `cas` over tokio (`memcache-async`) is one bare
//! connection, and what a call that is dropped leaves half read on it would be the next one's answer.
//! Four commands are enough: `gets`, `add`, `cas`, `delete`.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
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

mod users;

/// The store's name in errors.
const NAME: &str = "memcached";

/// From here on memcached takes a time to live for a date.
const THIRTY_DAYS: u64 = 30 * 24 * 60 * 60;

/// How often a call begins anew when others are faster: each of them has changed the record.
const TRIES: usize = 32;

/// The largest line and the largest value that are read, whatever the server says.
const MAX_LINE: u64 = 2048;
const MAX_VALUE: usize = 128 * 1024 * 1024;

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

struct Server {
    address: String,
    /// How many connections there may be.
    permits: Semaphore,
    /// Those that nobody uses. A connection is here only between a whole answer and the next call.
    idle: Mutex<Vec<BufReader<TcpStream>>>,
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
        work: impl AsyncFnOnce(&mut BufReader<TcpStream>) -> Result<R, Failure>,
    ) -> Result<R, StoreError> {
        let shared = &*self.shared;
        let call = async {
            let closed = |_| Failure::Io(io::Error::other("the store is closed"));
            let _permit = server.permits.acquire().await.map_err(closed)?;
            let mut connection = match server.idle_connection() {
                Some(connection) => connection,
                None => open(&server.address).await?,
            };
            let answer = work(&mut connection).await;
            // After anything but an answer, nobody knows what comes next on it.
            if !matches!(answer, Err(Failure::Io(_) | Failure::Nonsense(_))) {
                let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.push(connection);
            }
            answer
        };
        match timeout(shared.timeout, call).await {
            Ok(answer) => answer.map_err(|failure| failure.into_error(operation, &server.address)),
            Err(_) => {
                // The other connections lead as little to the server, as far as anybody can tell.
                let idle = &mut *server.idle.lock().unwrap_or_else(PoisonError::into_inner);
                drop(std::mem::take(idle));
                let words = format!("{}: no answer within {:?}", server.address, shared.timeout);
                Err(StoreError::new(NAME, operation, words))
            }
        }
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

impl Server {
    /// One that is still open, as far as can be seen without asking.
    fn idle_connection(&self) -> Option<BufReader<TcpStream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            let nothing = connection.get_ref().try_read(&mut [0]);
            // The end, an error, or words that nobody asked for: all are of no use.
            if nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
        None
    }
}

/// A session's place.
struct Place<'a> {
    server: &'a Server,
    name: String,
}

/// The server whose hash with the key is the highest. So each server that comes or goes moves no
/// session but those that it takes or leaves.
fn server_of<'a>(servers: &'a [Server], key: &StoreKey) -> &'a Server {
    let [first, rest @ ..] = servers else { unreachable!("`connect` wants a server") };
    if rest.is_empty() {
        return first;
    }
    let score = |server: &&Server| {
        let mut hash = Sha256::new();
        hash.update(server.address.as_bytes());
        hash.update(key.as_bytes());
        hash.finalize()
    };
    servers.iter().max_by_key(score).unwrap_or(first)
}

enum Found {
    Nothing,
    Expired(u64),
    Live(Record, u64),
}

enum Stored {
    Done,
    Exists,
    Missing,
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
        self.max_connections = connections.clamp(1, Semaphore::MAX_PERMITS);
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
        let server = |address| Server {
            address,
            permits: Semaphore::new(self.max_connections),
            idle: Mutex::default(),
        };
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
            // A key that is always right, to see whether somebody is there.
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

/// Why there is no answer, or none that helps.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    /// The server says no. Its words.
    Refused(String),
    /// What it says is not the protocol.
    Nonsense(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    /// `server` tells which of several it was.
    fn into_error(self, operation: &'static str, server: &str) -> StoreError {
        match self {
            Self::Io(error) => {
                let source = io::Error::new(error.kind(), format!("{server}: {error}"));
                StoreError::new(NAME, operation, source)
            }
            Self::Refused(words) if words.contains("too large") => {
                let advice = "the record is larger than the server takes (its option `-I`)";
                StoreError::permanent(NAME, operation, format!("{advice}: {words}"))
            }
            Self::Refused(words) if words.contains("out of memory") => {
                let advice = "has no room left, and forgets nothing by itself (its option `-M`)";
                StoreError::new(NAME, operation, format!("{server} {advice}: {words}"))
            }
            Self::Refused(words) if words.starts_with("SERVER_ERROR") => {
                StoreError::new(NAME, operation, format!("{server}: {words}"))
            }
            Self::Refused(words) => StoreError::permanent(NAME, operation, words),
            Self::Nonsense(words) => {
                let words = format!("this is no answer of memcached: {words}");
                StoreError::new(NAME, operation, words)
            }
        }
    }
}

async fn open(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

async fn send(connection: &mut BufReader<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    connection.get_mut().write_all(bytes).await
}

/// One line of an answer, without its end.
async fn line(connection: &mut BufReader<TcpStream>) -> Result<String, Failure> {
    let mut line = Vec::new();
    (&mut *connection).take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        None => Err(nonsense(&String::from_utf8_lossy(&line))),
    }
}

/// An answer that nobody expects here.
fn nonsense(line: &str) -> Failure {
    let is_refusal =
        line == "ERROR" || line.starts_with("SERVER_ERROR") || line.starts_with("CLIENT_ERROR");
    let words = line.chars().take(100).collect::<String>().escape_debug().to_string();
    if is_refusal { Failure::Refused(words) } else { Failure::Nonsense(words) }
}

/// The bytes of an item, and the number of its last change.
type Item = (Vec<u8>, u64);

async fn gets<const COUNT: usize>(
    connection: &mut BufReader<TcpStream>,
    keys: [&str; COUNT],
) -> Result<[Option<Item>; COUNT], Failure> {
    send(connection, format!("gets {}\r\n", keys.join(" ")).as_bytes()).await?;
    let mut items = [const { None }; COUNT];
    // Those that are missing are left out; the others come in the order of the question.
    let mut asked = keys.iter().zip(&mut items);
    loop {
        let head = line(connection).await?;
        if head == "END" {
            return Ok(items);
        }
        let found = asked.find_map(|(key, item)| Some((parse_value(&head, key)?, item)));
        let ((length, unique), item) = found.ok_or_else(|| nonsense(&head))?;
        let mut value = Vec::new();
        // Grows with what really comes.
        (&mut *connection).take(length as u64 + 2).read_to_end(&mut value).await?;
        if value.len() < length + 2 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !value.ends_with(b"\r\n") {
            return Err(Failure::Nonsense("a value without an end".to_string()));
        }
        value.truncate(length);
        *item = Some((value, unique));
    }
}

/// `VALUE <key> <flags> <bytes> <unique>`: the length and the number of the last change.
fn parse_value(head: &str, key: &str) -> Option<(usize, u64)> {
    let rest = head.strip_prefix("VALUE ")?.strip_prefix(key)?.strip_prefix(' ')?;
    let mut words = rest.split(' ').skip(1);
    let length = words.next()?.parse().ok().filter(|&length| length <= MAX_VALUE)?;
    Some((length, words.next()?.parse().ok()?))
}

/// `cas` with the number of the last change, `add` without.
async fn put(
    connection: &mut BufReader<TcpStream>,
    key: &str,
    value: &[u8],
    lifetime: u64,
    unique: Option<u64>,
) -> Result<Stored, Failure> {
    let length = value.len();
    let head = match unique {
        Some(unique) => format!("cas {key} 0 {lifetime} {length} {unique}\r\n"),
        None => format!("add {key} 0 {lifetime} {length}\r\n"),
    };
    // In one write, so that it is one packet if it fits.
    let mut bytes = Vec::with_capacity(head.len() + length + 2);
    bytes.extend(head.as_bytes());
    bytes.extend(value);
    bytes.extend(b"\r\n");
    send(connection, &bytes).await?;
    let answer = line(connection).await?;
    match answer.as_str() {
        "STORED" => Ok(Stored::Done),
        "EXISTS" | "NOT_STORED" => Ok(Stored::Exists),
        "NOT_FOUND" => Ok(Stored::Missing),
        _ => Err(nonsense(&answer)),
    }
}

async fn delete(connection: &mut BufReader<TcpStream>, key: &str) -> Result<bool, Failure> {
    send(connection, format!("delete {key}\r\n").as_bytes()).await?;
    let answer = line(connection).await?;
    match answer.as_str() {
        "DELETED" => Ok(true),
        "NOT_FOUND" => Ok(false),
        _ => Err(nonsense(&answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_the_sessions_and_keep_theirs() {
        let servers = |count: u8| -> Vec<Server> {
            let address = |number| format!("{number}.example:11211");
            let server = |number| Server {
                address: address(number),
                permits: Semaphore::new(1),
                idle: Mutex::default(),
            };
            (0..count).map(server).collect()
        };
        let (three, mut four) = (servers(3), servers(4));
        four.reverse();
        let (mut share, mut moved) = ([0; 3], 0);
        for number in 0..3000_u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            let key = StoreKey::from_bytes(bytes);
            let (before, after) = (server_of(&three, &key), server_of(&four, &key));
            share[usize::from(before.address.as_bytes()[0] - b'0')] += 1;
            if before.address != after.address {
                assert_eq!(after.address, "3.example:11211", "only to the new one");
                moved += 1;
            }
        }
        assert!(share.iter().all(|share| (900..1100).contains(share)), "{share:?}");
        assert!((650..850).contains(&moved), "{moved}");
    }

    #[test]
    fn values_are_announced() {
        assert_eq!(parse_value("VALUE a:1 0 12 77", "a:1"), Some((12, 77)));
        for wrong in [
            "VALUE a:2 0 12 77",
            "VALUE a:1 0 12",
            "VALUE a:1 0 -1 77",
            "a:1",
            "VALUE a:1 0 999999999999 1",
        ] {
            assert_eq!(parse_value(wrong, "a:1"), None, "{wrong}");
        }
    }

    #[test]
    fn what_helps_and_what_does_not() {
        let error = |line| nonsense(line).into_error("create", "cache");
        assert!(!error("SERVER_ERROR object too large for cache").is_retryable());
        assert!(error("SERVER_ERROR out of memory storing object").is_retryable());
        assert!(!error("CLIENT_ERROR bad data chunk").is_retryable());
        assert!(error("HTTP/1.1 400 Bad Request").is_retryable());
    }
}
