//! One way to send a command, whosever the connection is: the store's own, the application's, or one to a
//! cluster.
//!
//! A call whose connection ends before the answer is there is sent once more. So only what may be carried out
//! twice is sent here. [`Call`] takes along what becomes known beside the answer: whether it was sent twice, and
//! what a near cache needs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager},
};
use tokio::time::{Instant as TokioInstant, timeout_at};

#[cfg(feature = "redis-cluster")]
use redis::cluster_async::ClusterConnection;

use super::{
    managed::{Managed, PATIENCE},
    tracking::Expected,
};
#[cfg(feature = "redis-cluster")]
use super::{masters::Masters, nodes::Nodes};
use crate::{identity::id::StoreKey, store::watch::Feed};

/// What becomes known of a call beside its answer.
#[derive(Default)]
pub(super) struct Call<'a> {
    /// The error of the first time, if the call was made once more.
    pub(super) lost: Option<RedisError>,
    /// What tells of the changes of the keys that were read on the connection that has answered.
    pub(super) feed: Option<Feed>,
    /// The session that it loads for a near cache, in a cluster. All keys of the call are that one's.
    #[cfg(feature = "redis-cluster")]
    pub(super) loads: Option<&'a StoreKey>,
    /// The session that it saves, if the near cache knows of that.
    pub(super) saves: Option<&'a StoreKey>,
    /// The echo of that save, which the server sends if the save was carried out.
    pub(super) echo: Option<Expected>,
}

impl<'a> Call<'a> {
    /// Of a save that the near cache knows of.
    pub(super) fn saving(key: &'a StoreKey) -> Self {
        Self { saves: Some(key), ..Self::default() }
    }

    /// Of a load for a near cache.
    pub(super) fn loading(key: &'a StoreKey) -> Self {
        let call = Self::default();
        #[cfg(feature = "redis-cluster")]
        let call = Self { loads: Some(key), ..call };
        let _ = key;
        call
    }

    /// What tells of the changes after this save, once it is known to have been carried out. Nothing if it
    /// was sent more than once: then the one that was answered may have found it done.
    pub(super) fn feed_after_save(self) -> Option<Feed> {
        if self.lost.is_some() {
            return None;
        }
        if let Some(echo) = self.echo {
            echo.comes();
        }
        self.feed
    }
}

/// A connection that connects again by itself.
pub(super) struct Connection {
    server: Server,
    /// How long a call may take that is made once more.
    timeout: Duration,
}

pub(super) enum Server {
    /// A connection of the store's own, to an address or to a master.
    Own(Managed),
    /// The application's, and when it was last told to connect again.
    Application(ConnectionManager, Mutex<Option<Instant>>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Box<Cluster>),
}

/// What is done on a connection, perhaps on several one after another.
pub(super) trait Work<R>: Sync {
    fn on(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> impl Future<Output = RedisResult<R>> + Send;

    /// The answer; or an error if the answer says that another server is wanted.
    fn wanted(answer: R) -> RedisResult<R> {
        Ok(answer)
    }
}

/// A command.
pub(super) struct One<'a>(pub(super) &'a Cmd);

impl<R: FromRedisValue> Work<R> for One<'_> {
    async fn on(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<R> {
        self.0.query_async(connection).await
    }
}

/// A [`batch`] of commands in one round trip: the answer to each, errors included.
pub(super) struct Several<'a>(pub(super) &'a Pipeline);

impl Work<Vec<Value>> for Several<'_> {
    async fn on(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Vec<Value>> {
        self.0.query_async(connection).await
    }

    fn wanted(answers: Vec<Value>) -> RedisResult<Vec<Value>> {
        let mut errors = answers.iter().filter_map(|answer| match answer {
            Value::ServerError(error) => Some(RedisError::from(error.clone())),
            _ => None,
        });
        match errors.find(|error| is_demotion(error) || is_elsewhere(error)) {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }
}

/// For so many commands that are sent together. An error among the answers is handed on in its place:
/// otherwise all errors come in one that hides which it is.
pub(super) fn batch(commands: usize) -> Pipeline {
    let mut batch = Pipeline::with_capacity(commands);
    batch.ignore_errors();
    batch
}

#[cfg(feature = "redis-cluster")]
pub(super) struct Cluster {
    pub(super) connection: ClusterConnection,
    /// For what a near cache wants to hear of; not where the connection is the application's.
    pub(super) nodes: Option<Nodes>,
}

#[cfg(feature = "redis-cluster")]
impl Cluster {
    /// Does `work` on a connection to the session's node, if a near cache wants to know what changes; nothing
    /// if the connection to the cluster has to do it.
    async fn near<R>(&self, work: &impl Work<R>, call: &mut Call<'_>) -> Option<RedisResult<R>> {
        let key = call.loads.or(call.saves)?;
        let nodes = self.nodes.as_ref().filter(|nodes| nodes.are_tracked())?;
        let error = match nodes.query(key, &self.connection, work, call).await {
            Ok(answer) => return Some(Ok(answer)),
            Err(error) => error,
        };
        let is_unknown = error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        // Twice the time is too much.
        if is_unknown || error.is_timeout() {
            return Some(Err(error));
        }
        // It may have been carried out.
        if error.is_io_error() || error.is_connection_dropped() {
            call.lost.get_or_insert(error);
        }
        None
    }
}

impl Connection {
    pub(super) fn new(server: Server, timeout: Duration) -> Self {
        Self { server, timeout }
    }

    /// What may be carried out twice: when the connection ends before the answer is there, it is sent
    /// once more. The error of the first time is left in the call then.
    pub(super) async fn query<R>(
        &self,
        work: &impl Work<R>,
        call: &mut Call<'_>,
    ) -> RedisResult<R> {
        let begun = TokioInstant::now();
        match self.query_once(work, call, begun).await {
            Err(error) if may_help(&error) => {
                let mut again = Again::new(self.timeout, begun, error);
                // Boxed, for a call that needs it is rare.
                Box::pin(async move {
                    while again.goes_on(&self.server).await {
                        let once = self.query_once(work, call, TokioInstant::now());
                        if let Some(answer) = again.result(once).await {
                            call.lost = again.lost.or(call.lost.take());
                            return answer;
                        }
                    }
                    call.lost = again.lost.or(call.lost.take());
                    Err(again.error)
                })
                .await
            }
            answer => answer,
        }
    }

    async fn query_once<R, W: Work<R>>(
        &self,
        work: &W,
        call: &mut Call<'_>,
        begun: TokioInstant,
    ) -> RedisResult<R> {
        match &self.server {
            Server::Own(own) => own.query(work, call, begun).await,
            Server::Application(manager, _) => W::wanted(work.on(&mut manager.clone()).await?),
            #[cfg(feature = "redis-cluster")]
            Server::Cluster(cluster) => match Box::pin(cluster.near(work, call)).await {
                Some(answer) => answer,
                None => work.on(&mut Masters(cluster.connection.clone())).await,
            },
        }
    }

    /// What it leads to, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match &self.server {
            Server::Own(own) => own.kind,
            Server::Application(..) => "single",
            #[cfg(feature = "redis-cluster")]
            Server::Cluster(_) => "cluster",
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn is_cluster(&self) -> bool {
        match &self.server {
            #[cfg(feature = "redis-cluster")]
            Server::Cluster(_) => true,
            _ => false,
        }
    }
}

impl Server {
    /// Makes sure that the next call has another connection, after an error that says that this one's
    /// server takes no writes. False if that has just been tried.
    async fn leave(&self) -> bool {
        let Self::Application(manager, last) = self else {
            // A connection of the store's own was left with the error; a cluster looks by itself.
            return matches!(self, Self::Own(_));
        };
        {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PATIENCE) {
                return false;
            }
            *last = Some(Instant::now());
        }
        // The manager connects again when a connection ends, and at no other time.
        let _: RedisResult<Value> = redis::cmd("QUIT").query_async(&mut manager.clone()).await;
        true
    }
}

/// A call that is made once more.
struct Again {
    deadline: TokioInstant,
    /// The last error.
    error: RedisError,
    /// That of the call which may have been carried out, though its caller was not told.
    lost: Option<RedisError>,
    has_left: bool,
}

impl Again {
    fn new(timeout: Duration, begun: TokioInstant, error: RedisError) -> Self {
        Self { deadline: begun + timeout, error, lost: None, has_left: false }
    }

    /// Whether it is worth a try after that error. Each kind is, once.
    async fn goes_on(&mut self, server: &Server) -> bool {
        if is_demotion(&self.error) {
            return !std::mem::replace(&mut self.has_left, true) && server.leave().await;
        }
        let is_first = self.lost.is_none();
        if is_first && may_help(&self.error) {
            self.lost = Some(self.error.clone());
            return true;
        }
        false
    }

    /// What becomes of it, unless that is one more try.
    async fn result<R>(
        &mut self,
        call: impl Future<Output = RedisResult<R>>,
    ) -> Option<RedisResult<R>> {
        match timeout_at(self.deadline, call).await {
            Ok(Err(error)) if may_help(&error) => {
                self.error = error;
                None
            }
            Ok(answer) => Some(answer),
            Err(_) => Some(Err(self.error.clone())),
        }
    }
}

/// Whether the same call may be answered on another connection.
fn may_help(error: &RedisError) -> bool {
    error.is_connection_dropped() || is_demotion(error)
}

/// Whether another node of a cluster has the slot, or none has it just now.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    [Ask, ClusterDown, Moved, TryAgain].map(ErrorKind::Server).contains(&error.kind())
}

/// Whether the server was a master and is none any more, or never was: it has done nothing.
pub(super) fn is_demotion(error: &RedisError) -> bool {
    let kinds = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown].map(ErrorKind::Server);
    kinds.contains(&error.kind())
}
