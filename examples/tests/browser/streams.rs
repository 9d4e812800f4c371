//! A page that listens, behind a proxy that has nobody behind itself for a moment, as in a deploy.

use std::{
    io::{Read, Write, copy},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use crate::{PASSWORD, Visitor};

const PATIENCE: Duration = Duration::from_secs(30);

/// Hands on what comes, or answers 502.
#[derive(Default)]
struct Proxy {
    is_alone: AtomicBool,
    refused: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// In front of the shop, and its port.
    fn start(shop: u16) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Arc::new(Self::default());
        let this = proxy.clone();
        spawn(move || {
            for client in listener.incoming() {
                let (this, client) = (this.clone(), client.expect("a client"));
                spawn(move || this.serve(client, shop));
            }
        });
        (proxy, port)
    }

    fn serve(&self, mut client: TcpStream, shop: u16) {
        if self.is_alone.load(SeqCst) {
            let _ = client.read(&mut [0; 8192]);
            let answer =
                "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.write_all(answer.as_bytes());
            self.refused.fetch_add(1, SeqCst);
            return;
        }
        let server = TcpStream::connect(("127.0.0.1", shop)).expect("the shop");
        let twin = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        self.open.lock().unwrap().extend([twin(&client), twin(&server)]);
        let (up, down) = ((twin(&client), twin(&server)), (server, client));
        let relay = |(mut from, mut to): (TcpStream, TcpStream)| {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        };
        spawn(move || relay(up));
        relay(down);
    }

    /// Nobody is behind it, until somebody has been told.
    fn be_alone(&self) {
        self.is_alone.store(true, SeqCst);
        for connection in self.open.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let began = Instant::now();
        while self.refused.load(SeqCst) == 0 {
            assert!(began.elapsed() < PATIENCE, "nobody has asked");
            sleep(Duration::from_millis(20));
        }
        self.is_alone.store(false, SeqCst);
    }
}

#[test]
fn an_open_page_that_was_answered_with_502_hears_of_the_end_of_its_login() {
    let Some(mut here) = Visitor::start("listens") else { return };
    let Some(there) = here.another("ends") else { return };
    let (proxy, port) = Proxy::start(here.port);
    here.port = port;
    here.open("/signup");
    here.identify("/signup", "Ada", PASSWORD);
    there.open("/login");
    there.identify("/login", "Ada", PASSWORD);
    here.open("/account");
    here.browser.until("login.readyState === EventSource.OPEN");
    proxy.be_alone();
    there.open("/account");
    there.press("/account/end-others");
    here.browser.until("location.pathname === '/login'");
}
