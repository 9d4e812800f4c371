//! A TCP proxy on a loopback port, as an address that moves from one server to another.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering::SeqCst},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards each connection to the server that is current when the connection is made, until the
/// proxy is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    server: Arc<AtomicU16>,
    cut: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts to forward to that port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let server = Arc::new(AtomicU16::new(server));
        let (cut, _) = watch::channel(());
        let (current, cuts) = (server.clone(), cut.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { continue };
                let (port, mut cut) = (current.load(SeqCst), cuts.subscribe());
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, server, cut, task }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forwards new connections to that port. The connections that there are stay where they are.
    pub fn switch(&self, server: u16) {
        self.server.store(server, SeqCst);
    }

    /// Closes the connections that there are.
    pub fn cut(&self) {
        let _ = self.cut.send(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}
