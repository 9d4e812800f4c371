//! The servers, and the connections to each: no more than the settings allow, and none that is left in the
//! middle of an answer.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{io::BufReader, net::TcpStream, sync::Semaphore, time::timeout};

use super::{
    NAME,
    protocol::{Connection, Failure},
};
use crate::{error::store::StoreError, identity::id::StoreKey};

/// A server, and the connections to it.
pub(super) struct Server {
    pub(super) address: String,
    /// How many connections there may be.
    pub(super) permits: Semaphore,
    /// The unused connections. A connection is here only between a whole answer and the next call.
    idle: Mutex<Vec<Connection>>,
}

impl Server {
    pub(super) fn new(address: String, max_connections: usize) -> Self {
        Self { address, permits: Semaphore::new(max_connections), idle: Mutex::default() }
    }

    /// Does `work` on a connection, within `limit`. A connection that `work` has left in the middle of an
    /// answer, by an error or because it was dropped, is closed.
    pub(super) async fn call<R>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Connection) -> Result<R, Failure>,
    ) -> Result<R, StoreError> {
        let call = async {
            let closed = |_| Failure::Io(io::Error::other("the store is closed"));
            let _permit = self.permits.acquire().await.map_err(closed)?;
            let mut connection = match self.idle_connection() {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let answer = work(&mut connection).await;
            // After anything but an answer, it is unknown what comes next on the connection.
            if !matches!(answer, Err(Failure::Io(_) | Failure::Nonsense(_))) {
                self.idle().push(connection);
            }
            answer
        };
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(|failure| failure.into_error(operation, &self.address)),
            Err(_) => {
                // The other connections lead as little to the server, as far as anybody can tell.
                let idle = std::mem::take(&mut *self.idle());
                drop(idle);
                let words = format!("{}: no answer within {limit:?}", self.address);
                Err(StoreError::new(NAME, operation, words))
            }
        }
    }

    async fn open(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is still open, as far as can be seen without asking.
    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            let nothing = connection.get_ref().try_read(&mut [0]);
            // The end, an error, or words that no call asked for: the connection is of no use.
            if nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
        None
    }
}

/// The server whose hash with the key is the highest. So each server that comes or goes moves no
/// session but those that it takes or leaves.
pub(super) fn server_of<'a>(servers: &'a [Server], key: &StoreKey) -> &'a Server {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_the_sessions_and_keep_theirs() {
        let servers = |count: u8| -> Vec<Server> {
            let address = |number| format!("{number}.example:11211");
            let server = |number| Server::new(address(number), 1);
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
}
