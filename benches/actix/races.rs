//! What is left of writes that overlap in actix-web:
//! `cargo run --manifest-path benches/actix/Cargo.toml`.
//!
//! The same handlers on `sessions` and on actix-session, each on a server with two workers, over sockets. Of
//! actix-session both stores: its cookie, and Redis, if there is a `redis-server`.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use actix_session::{
    SessionMiddleware,
    config::CookieContentSecurity,
    storage::{CookieSessionStore, RedisSessionStore, SessionStore},
};
use actix_web::{App, HttpServer, cookie::Key, web};
use sessions::{Keys, MemoryStore, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// What `/begin` writes.
const NAME: &str = "Grace Hopper";
/// Between reading and writing the counter.
const PAUSE: Duration = Duration::from_millis(2);
const LONG_PAUSE: Duration = Duration::from_millis(50);
/// What `/set/{field}` writes.
const OTHER: u32 = 100;

/// `sessions`, in memory.
mod ours {
    use super::*;

    #[derive(Session)]
    pub(super) struct Visitor {
        name: String,
        counter: u32,
        one: u32,
        two: u32,
        three: u32,
        four: u32,
        five: u32,
    }

    async fn begin(session: Session<Visitor>) -> String {
        session.write().await.set_name(NAME);
        String::new()
    }

    async fn name(session: Session<Visitor>) -> String {
        session.read().await.name().to_string()
    }

    async fn counter(session: Session<Visitor>) -> String {
        session.read().await.counter().to_string()
    }

    async fn count_after(session: Session<Visitor>, pause: Duration) -> String {
        let mut s = session.write().await;
        let counter = s.counter();
        sleep(pause).await;
        s.set_counter(counter + 1);
        String::new()
    }

    async fn set(field: web::Path<u32>, session: Session<Visitor>) -> String {
        let mut s = session.write().await;
        match *field {
            0 => s.set_one(OTHER),
            1 => s.set_two(OTHER),
            2 => s.set_three(OTHER),
            3 => s.set_four(OTHER),
            _ => s.set_five(OTHER),
        };
        String::new()
    }

    async fn fields(session: Session<Visitor>) -> String {
        let s = session.read().await;
        let fields = [s.one(), s.two(), s.three(), s.four(), s.five()];
        fields.into_iter().filter(|field| *field == OTHER).count().to_string()
    }

    async fn logout(session: Session<Visitor>) -> sessions::Result<String> {
        session.destroy().await?;
        Ok(String::new())
    }

    pub(super) fn routes(config: &mut web::ServiceConfig) {
        config
            .route("/begin", web::get().to(begin))
            .route("/name", web::get().to(name))
            .route("/counter", web::get().to(counter))
            .route("/count_slowly", web::get().to(|session| count_after(session, PAUSE)))
            .route("/count_very_slowly", web::get().to(|session| count_after(session, LONG_PAUSE)))
            .route("/set/{field}", web::get().to(set))
            .route("/fields", web::get().to(fields))
            .route("/logout", web::get().to(logout));
    }
}

/// actix-session.
mod theirs {
    use actix_session::{Session, SessionGetError, SessionInsertError};

    use super::*;

    type Inserted = Result<String, SessionInsertError>;
    type Got = Result<String, SessionGetError>;

    async fn begin(session: Session) -> Inserted {
        session.insert("name", NAME)?;
        Ok(String::new())
    }

    async fn name(session: Session) -> Got {
        Ok(session.get("name")?.unwrap_or_default())
    }

    async fn counter(session: Session) -> Got {
        Ok(session.get::<u32>("counter")?.unwrap_or_default().to_string())
    }

    async fn count_after(session: Session, pause: Duration) -> actix_web::Result<String> {
        let counter: u32 = session.get("counter")?.unwrap_or_default();
        sleep(pause).await;
        session.insert("counter", counter + 1)?;
        Ok(String::new())
    }

    async fn set(field: web::Path<u32>, session: Session) -> Inserted {
        session.insert(field.to_string(), OTHER)?;
        Ok(String::new())
    }

    async fn fields(session: Session) -> Got {
        let mut count = 0;
        for field in 0..5 {
            count += u32::from(session.get(&field.to_string())? == Some(OTHER));
        }
        Ok(count.to_string())
    }

    async fn logout(session: Session) -> String {
        session.purge();
        String::new()
    }

    pub(super) fn routes(config: &mut web::ServiceConfig) {
        config
            .route("/begin", web::get().to(begin))
            .route("/name", web::get().to(name))
            .route("/counter", web::get().to(counter))
            .route("/count_slowly", web::get().to(|session| count_after(session, PAUSE)))
            .route("/count_very_slowly", web::get().to(|session| count_after(session, LONG_PAUSE)))
            .route("/set/{field}", web::get().to(set))
            .route("/fields", web::get().to(fields))
            .route("/logout", web::get().to(logout));
    }
}

fn serve_ours() -> SocketAddr {
    let layer = ours::Visitor::layer(MemoryStore::new(), Keys::generate());
    let app = move || App::new().configure(ours::routes).wrap(layer.clone());
    let server = HttpServer::new(app).workers(2).bind("127.0.0.1:0").expect("a free port");
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

fn serve_theirs<S: SessionStore + 'static>(
    store: impl Fn() -> S + Clone + Send + 'static,
) -> SocketAddr {
    let key = Key::generate();
    let app = move || {
        let sessions = SessionMiddleware::builder(store(), key.clone())
            .cookie_content_security(CookieContentSecurity::Signed);
        App::new().configure(theirs::routes).wrap(sessions.build())
    };
    let server = HttpServer::new(app).workers(2).bind("127.0.0.1:0").expect("a free port");
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

/// A browser, as far as cookies go.
#[derive(Clone)]
struct Browser {
    server: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn get(&mut self, path: &str) -> String {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncookie: {}\r\n\r\n",
            pairs.join("; ")
        );
        let mut stream = TcpStream::connect(self.server).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("a response");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {reply}");
        for line in head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (name, rest) = line.split_once('=').expect("name=value");
            match line.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => {
                    let value = rest.split(';').next().unwrap_or_default();
                    self.cookies.insert(name.to_string(), value.to_string())
                }
            };
        }
        body.to_string()
    }
}

/// Requests of one browser that run at the same time, each with the cookies of before. Whatever cookies come
/// back the browser has in the end, the last of them for good.
async fn at_once(browser: &mut Browser, paths: impl IntoIterator<Item = String>) {
    let requests: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let mut browser = browser.clone();
            tokio::spawn(async move {
                browser.get(&path).await;
                browser.cookies
            })
        })
        .collect();
    for request in requests {
        browser.cookies = request.await.expect("a response");
    }
}

async fn measure(server: SocketAddr) -> [String; 3] {
    let begin = async || {
        let mut browser = Browser { server, cookies: BTreeMap::new() };
        browser.get("/begin").await;
        browser
    };
    let mut browser = begin().await;
    at_once(&mut browser, (0..200).map(|_| "/count_slowly".to_string())).await;
    let counted = browser.get("/counter").await;

    let mut fewest = u32::MAX;
    for _ in 0..100 {
        let mut browser = begin().await;
        at_once(&mut browser, (0..5).map(|field| format!("/set/{field}"))).await;
        fewest = fewest.min(browser.get("/fields").await.parse().expect("a number"));
    }

    let mut back = 0;
    for _ in 0..20 {
        let mut browser = begin().await;
        let mut before = browser.clone();
        let slow = tokio::spawn({
            let mut browser = browser.clone();
            async move {
                browser.get("/count_very_slowly").await;
                browser
            }
        });
        sleep(Duration::from_millis(10)).await;
        browser.get("/logout").await;
        // By its cookie of before, or by one that the slow response has brought.
        let mut after = slow.await.expect("a response");
        let is_back = before.get("/name").await == NAME || after.get("/name").await == NAME;
        back += u32::from(is_back);
    }
    [format!("{counted} of 200"), format!("{fewest} of 5"), format!("{back} of 20")]
}

/// A Redis of its own, until it is dropped.
struct Redis(Child);

impl Redis {
    async fn start() -> Option<(Self, String)> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"]);
        let server = Self(command.stdout(Stdio::null()).spawn().ok()?);
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some((server, format!("redis://127.0.0.1:{port}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    println!(
        "| | 200 increments at once | five fields at once, worst of 100 | back after logout |"
    );
    println!("| --- | --- | --- | --- |");
    let show = |name: &str, [increments, fields, back]: [String; 3]| {
        println!("| {name} | {increments} | {fields} | {back} |");
    };
    show("sessions, in memory", measure(serve_ours()).await);
    let cookie = serve_theirs(CookieSessionStore::default);
    show("actix-session 0.11, in its cookie", measure(cookie).await);
    match Redis::start().await {
        Some((_redis, url)) => {
            let store = RedisSessionStore::new(url).await.expect("Redis answers");
            let server = serve_theirs(move || store.clone());
            show("actix-session 0.11, in Redis", measure(server).await);
        }
        None => println!("left out: there is no `redis-server`"),
    }
}
