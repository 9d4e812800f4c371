//! A proxy between a store and its server that does what networks do: it cuts connections, loses
//! answers, and leads new connections to another server.

use std::sync::{
    Arc,
    atomic::{AtomicU16, AtomicU32, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

/// A proxy on a free port, until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: AtomicU16,
    cuts: watch::Sender<u32>,
    freezes: watch::Sender<u32>,
    /// The answer to this one of the next requests is lost; zero is none of them.
    loses: AtomicU32,
    is_lost: Notify,
    goes_on: Notify,
}

impl Proxy {
    /// Leads to a port on this machine.
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            cuts: watch::Sender::new(0),
            freezes: watch::Sender::new(0),
            loses: 0.into(),
            is_lost: Notify::new(),
            goes_on: Notify::new(),
        });
        let of_task = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, of_task.clone()));
            }
        });
        Self { port, shared, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections that there are, as a proxy does with idle ones.
    pub(crate) async fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
        // The client's side of it takes a moment to arrive.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    /// All connections that there are stay open, and nothing comes through them any more, as behind a
    /// firewall that has forgotten them.
    pub(crate) fn freeze(&self) {
        self.shared.freezes.send_modify(|freezes| *freezes += 1);
    }

    /// From now on new connections lead there; the open ones stay where they are.
    pub(crate) fn lead_to(&self, upstream: u16) {
        self.shared.upstream.store(upstream, SeqCst);
    }

    /// The next request but so many arrives, and its answer does not; its connection ends when
    /// [`go_on`](Self::go_on) says so.
    pub(crate) fn lose_answer(&self, after: u32) {
        self.shared.loses.store(after + 1, SeqCst);
    }

    /// Waits until the server has answered what the client is not told.
    pub(crate) async fn lost(&self) {
        self.shared.is_lost.notified().await;
    }

    pub(crate) fn go_on(&self) {
        self.shared.goes_on.notify_one();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn forward(mut client: TcpStream, shared: Arc<Shared>) {
    let (mut cuts, mut freezes) = (shared.cuts.subscribe(), shared.freezes.subscribe());
    let upstream = shared.upstream.load(SeqCst);
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut asked, mut answered) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut loses = false;
    loop {
        tokio::select! {
            // In this order: nothing that is sent after a freeze comes through.
            biased;
            _ = cuts.changed() => return,
            _ = freezes.changed() => {
                let _ = cuts.changed().await;
                return;
            }
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let less = |left: u32| left.checked_sub(1);
                    loses |= shared.loses.fetch_update(SeqCst, SeqCst, less) == Ok(1);
                    if server.write_all(&asked[..length]).await.is_err() {
                        return;
                    }
                }
            },
            read = server.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if loses => {
                    shared.is_lost.notify_one();
                    return shared.goes_on.notified().await;
                }
                Ok(length) => {
                    if client.write_all(&answered[..length]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}
