//! Connections on which the server tells what changes (`CLIENT TRACKING`), so that a near cache knows.
//!
//! The server tells of a key that was read on the connection when a client changes it, once: until it is
//! read again. So a save ends with a read of what it has saved.
//!
//! The news come in order with the answers, so that an answer proves: whatever was acknowledged before
//! its question was sent has been told.
//!
//! # What the connection itself changes
//!
//! It is told that as well, right after the answer, and that news is an echo: the cache knows what it has
//! written. `NOLOOP` would keep the server from sending echoes, and from more than that: a key that the
//! server drops in the middle of one of our commands, because its table of readers is full or its memory
//! is, it would not tell us of either, and the cache would keep that for ever. So the echoes come, and one
//! is [expected](Echoes) for each save. What is wrong about that is safe as long as an echo that is
//! expected does come: one too many takes a record out of the cache. Whether this server sends them is
//! tried out on every new connection.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, Pipeline, ProtocolVersion, PushInfo, PushKind,
    RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection,
};

use super::{connection::is_elsewhere, errors::classify};
use crate::{
    identity::id::{KeyMap, StoreKey},
    store::watch::{Feed, Watcher},
};

/// What the server tells on one connection.
#[derive(Clone)]
pub(super) struct News {
    pub(super) feed: Feed,
    echoes: Option<Arc<Echoes>>,
}

impl News {
    /// A save of this session is about to be sent: its echo is no change that the cache has to hear of.
    pub(super) fn expect_echo(&self, key: &StoreKey) -> Option<Expected> {
        let echoes = self.echoes.as_ref()?;
        *echoes.lock().entry(*key).or_default() += 1;
        Some(Expected { echoes: echoes.clone(), key: *key, is_certain: false })
    }
}

/// How many echoes of each session are to come.
#[derive(Default)]
struct Echoes(Mutex<KeyMap<u32>>);

impl Echoes {
    fn lock(&self) -> MutexGuard<'_, KeyMap<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One fewer, if there is any.
    fn take(&self, key: &StoreKey) -> bool {
        let mut expected = self.lock();
        let Some(count) = expected.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            expected.remove(key);
        }
        true
    }
}

/// One of the echoes that are to come. Dropped, it is not expected any more: a save that has written
/// nothing has none, and of one whose answer nobody got it is not known.
pub(super) struct Expected {
    echoes: Arc<Echoes>,
    key: StoreKey,
    is_certain: bool,
}

impl Expected {
    /// The save has written: its echo has come, or will.
    pub(super) fn comes(mut self) {
        self.is_certain = true;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if !self.is_certain {
            self.echoes.take(&self.key);
        }
    }
}

/// A connection, and what became of the question whether the server tells what changes.
pub(super) struct Tracked {
    pub(super) connection: MultiplexedConnection,
    /// Nothing if this server does not tell, or not this user.
    pub(super) news: Option<News>,
    /// The server was loading, or short of memory: another connection may be told more later.
    pub(super) may_tell_more: bool,
}

pub(super) struct Tracking {
    watcher: Watcher,
    /// What the name of a session begins with.
    prefix: String,
    /// A session of the node that is asked, in a cluster: a node takes no other keys.
    near: Option<Arc<Mutex<Option<StoreKey>>>>,
    has_warned: AtomicBool,
}

impl Tracking {
    pub(super) fn new(watcher: Watcher, prefix: &str) -> Self {
        let prefix = format!("{prefix}:{{");
        Self { watcher, prefix, near: None, has_warned: AtomicBool::new(false) }
    }

    /// For a node of a cluster.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn near(self, session: &Arc<Mutex<Option<StoreKey>>>) -> Self {
        Self { near: Some(session.clone()), ..self }
    }

    /// The name of a key that is nobody's.
    fn trial(&self) -> String {
        let near = self.near.as_ref();
        let key = near.and_then(|key| *key.lock().unwrap_or_else(PoisonError::into_inner));
        // Braces as a session's name has them.
        let place = key.map_or_else(|| "trial".to_string(), |key| key.to_string());
        format!("{}{place}}}:{:016x}", self.prefix, getrandom::u64().unwrap_or_default())
    }

    /// A connection on which the server tells what changes, if it does.
    pub(super) async fn connect(
        &self,
        client: &Client,
        settings: AsyncConnectionConfig,
    ) -> RedisResult<Tracked> {
        let info = client.get_connection_info();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tracking = Client::open(info.clone().set_redis_settings(redis))?;
        let receiver = Arc::new(Receiver {
            feed: self.watcher.feed(),
            prefix: self.prefix.clone(),
            echoes: Arc::default(),
            trial: self.trial(),
            heard: AtomicU32::new(0),
        });
        let receives = receiver.clone();
        let told = settings.clone().set_push_sender(move |push| {
            receives.receive(push);
            Ok::<(), ()>(())
        });
        let connection = match tracking.get_multiplexed_async_connection_with_config(&told).await {
            // A server that knows no RESP3 knows no tracking.
            Err(error) if knows_no_resp3(&error) => {
                self.warn(&error);
                let plain = client.get_multiplexed_async_connection_with_config(&settings).await?;
                return Ok(Tracked { connection: plain, news: None, may_tell_more: false });
            }
            connection => connection?,
        };
        let mut on = redis::cmd("CLIENT");
        on.arg("TRACKING").arg("ON");
        match on.query_async::<Value>(&mut connection.clone()).await {
            Ok(_) => {
                let trial = receiver.hears_echoes(connection.clone()).await?;
                let echoes = (trial == Trial::Heard).then(|| receiver.echoes.clone());
                let news = Some(News { feed: receiver.feed.clone(), echoes });
                Ok(Tracked { connection, news, may_tell_more: trial == Trial::NotNow })
            }
            Err(error) if error.is_io_error() || error.is_unrecoverable_error() => Err(error),
            Err(error) => {
                let may_tell_more = passes(&error);
                if !may_tell_more {
                    self.warn(&error);
                }
                Ok(Tracked { connection, news: None, may_tell_more })
            }
        }
    }

    /// Once: a store that connects again finds the same every time.
    fn warn(&self, error: &RedisError) {
        if !self.has_warned.swap(true, SeqCst) {
            let error = error.to_string();
            tracing::warn!(
                error,
                "Redis does not tell what changes, and a near cache keeps nothing: it needs Redis 6 \
                 and a user with `+client|tracking` (`+client` before Redis 7)"
            );
        }
    }
}

fn knows_no_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || (error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
            && error.detail().is_some_and(|words| words.contains("HELLO")))
}

/// Whether the server may answer otherwise a little later.
fn passes(error: &RedisError) -> bool {
    classify("watch", error.clone()).is_retryable()
}

/// What became of the trial of echoes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    Heard,
    NotHeard,
    /// The server takes no writes just now.
    NotNow,
}

/// Gets what the server tells on one connection, in order with the answers.
struct Receiver {
    feed: Feed,
    prefix: String,
    echoes: Arc<Echoes>,
    /// The name of a key that is nobody's, and how often it was told to have changed.
    trial: String,
    heard: AtomicU32,
}

impl Receiver {
    fn receive(&self, push: PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.feed.end(),
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(names)) => names.iter().for_each(|name| self.changed(name)),
                // Of everything, after a `FLUSHALL`; and of what we do not understand.
                _ => self.feed.forget_all(),
            },
            _ => {}
        }
    }

    fn changed(&self, name: &Value) {
        let Value::BulkString(name) = name else { return self.feed.forget_all() };
        if let Some(key) = session_in(name, &self.prefix) {
            if !self.echoes.take(&key) {
                self.feed.changed(&key);
            }
        } else if name == self.trial.as_bytes() {
            self.heard.fetch_add(1, SeqCst);
        }
    }

    /// Whether one echo comes for each save, before the answer to what is asked next: tried with the
    /// steps of a save.
    async fn hears_echoes(&self, connection: MultiplexedConnection) -> RedisResult<Trial> {
        const STEPS: &str = "
            redis.call('GETRANGE', KEYS[1], '0', '0')
            redis.call('SET', KEYS[1], '', 'PX', '1000')
            return redis.call('GETRANGE', KEYS[1], '0', '0')";
        const SAVES: u32 = 2;
        let mut commands = Pipeline::new();
        for _ in 0..SAVES {
            commands.cmd("EVAL").arg(STEPS).arg(1).arg(&self.trial);
        }
        commands.cmd("PTTL").arg(&self.trial);
        let answers: RedisResult<Vec<Value>> = commands.query_async(&mut { connection }).await;
        match answers {
            Ok(_) if self.heard.load(SeqCst) == SAVES => Ok(Trial::Heard),
            Ok(_) => Ok(Trial::NotHeard),
            Err(error) if error.is_io_error() || error.is_unrecoverable_error() => Err(error),
            // A slot that has just moved will be asked of another node.
            Err(error) if passes(&error) || is_elsewhere(&error) => Ok(Trial::NotNow),
            Err(_) => Ok(Trial::NotHeard),
        }
    }
}

/// The session that a key of this name is; nothing if it is something else.
pub(super) fn session_in(name: &[u8], prefix: &str) -> Option<StoreKey> {
    StoreKey::from_digits(name.strip_prefix(prefix.as_bytes())?.strip_suffix(b"}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sessions_are_read_and_no_others() {
        let key = StoreKey::from_bytes(std::array::from_fn(|at| at as u8 * 7));
        let name = format!("app:{{{key}}}");
        assert_eq!(session_in(name.as_bytes(), "app:{"), Some(key));
        let beside = format!("{name}:0123456789abcdef");
        let short = name.replacen("00", "", 1);
        let no_digits = name.replacen("00", "0g", 1);
        for other in [&*beside, &short, &no_digits, "app:user:7", "app:{}", "other", ""] {
            assert_eq!(session_in(other.as_bytes(), "app:{"), None, "{other}");
        }
        assert_eq!(session_in(name.as_bytes(), "other:{"), None);
    }
}
