use std::{
    collections::BTreeMap,
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle};

/// A browser as far as cookies go: sends all that it has, keeps what it is sent, forgets what is
/// removed. A connection for every request, so that dropping the future of one hangs up.
///
/// Clones share their cookies.
#[derive(Clone)]
pub struct Client {
    server: SocketAddr,
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A response that has been read to its end.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// Every `Set-Cookie` line.
    pub fn set_cookies(&self) -> Vec<String> {
        let lines = self.headers.get_all(header::SET_COOKIE).iter();
        lines.map(|line| line.to_str().expect("cookies are ASCII").to_string()).collect()
    }

    /// The lines of a header, joined.
    pub fn header(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter();
        lines.map(|line| line.to_str().expect("ASCII")).collect::<Vec<_>>().join(" + ")
    }

    /// The body, of a response that succeeded.
    pub fn text(&self) -> &str {
        assert!(self.status.is_success(), "{self:?}");
        &self.body
    }
}

impl Client {
    /// A browser without cookies, for the server at this address.
    pub fn new(server: SocketAddr) -> Self {
        Self { server, cookies: Arc::default() }
    }

    /// Another browser with a copy of the cookies, as a thief has it: from now on each keeps its own.
    pub fn copy(&self) -> Self {
        let cookies = self.cookies.lock().unwrap().clone();
        Self { server: self.server, cookies: Arc::new(Mutex::new(cookies)) }
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// Puts a cookie into the browser, or takes it out.
    pub fn set_cookie(&self, name: &str, value: Option<&str>) {
        let mut cookies = self.cookies.lock().unwrap();
        match value {
            Some(value) => cookies.insert(name.to_string(), value.to_string()),
            None => cookies.remove(name),
        };
    }

    /// GET, with the browser's cookies.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path).await
    }

    /// The same in a task of its own. To abort the task is to hang up.
    pub fn spawn_get(&self, path: &str) -> JoinHandle<Reply> {
        let (client, path) = (self.clone(), path.to_string());
        tokio::spawn(async move { client.get(&path).await })
    }

    /// Any method, with the browser's cookies.
    pub async fn request(&self, method: Method, path: &str) -> Reply {
        let reply = self.send(method, path, &self.cookie_lines(), false).await;
        self.keep(&reply);
        reply
    }

    /// Any request, with the browser's cookies on top. Its URI is a path.
    pub async fn call<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Unpin + 'static,
    {
        let reply = self.exchange(request, &self.cookie_lines(), false).await;
        let reply = reply.expect("a response");
        self.keep(&reply);
        reply
    }

    /// The same over HTTP/2.
    pub async fn call_http2<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Unpin + 'static,
    {
        let reply = self.exchange(request, &self.cookie_lines(), true).await;
        let reply = reply.expect("a response");
        self.keep(&reply);
        reply
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        self.server
    }

    fn cookie_lines(&self) -> Vec<Vec<u8>> {
        let cookies = self.cookies.lock().unwrap();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        match pairs.is_empty() {
            true => vec![],
            false => vec![pairs.join("; ").into_bytes()],
        }
    }

    /// GET with these `Cookie` lines and no others, whatever bytes they are; keeps none.
    pub async fn get_with(&self, path: &str, lines: &[Vec<u8>]) -> Reply {
        self.send(Method::GET, path, lines, false).await
    }

    /// The same over HTTP/2, where several lines are usual.
    pub async fn get_with_http2(&self, path: &str, lines: &[Vec<u8>]) -> Reply {
        self.send(Method::GET, path, lines, true).await
    }

    /// Like [`get_with`](Self::get_with); nothing if the connection breaks.
    pub async fn try_get_with(&self, path: &str, lines: &[Vec<u8>]) -> Option<Reply> {
        self.try_send(Method::GET, path, lines, false).await.ok()
    }

    async fn send(&self, method: Method, path: &str, cookies: &[Vec<u8>], http2: bool) -> Reply {
        self.try_send(method, path, cookies, http2).await.expect("a response")
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        cookies: &[Vec<u8>],
        http2: bool,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Full::<Bytes>::default()).expect("a path");
        self.exchange(request, cookies, http2).await
    }

    async fn exchange<B>(&self, mut request: Request<B>, cookies: &[Vec<u8>], http2: bool) -> Answer
    where
        B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Unpin + 'static,
    {
        if http2 {
            let uri = format!("http://{}{}", self.server, request.uri());
            *request.uri_mut() = uri.parse().expect("a path");
        } else {
            let host = HeaderValue::try_from(self.server.to_string()).expect("an address");
            request.headers_mut().insert(header::HOST, host);
        }
        for line in cookies {
            let line = HeaderValue::from_bytes(line).expect("bytes that a header may have");
            request.headers_mut().append(header::COOKIE, line);
        }
        let stream = TokioIo::new(TcpStream::connect(self.server).await?);
        if http2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (mut sender, connection) = handshake.await?;
            drive(connection, async move { read(sender.send_request(request).await).await }).await
        } else {
            let handshake = hyper::client::conn::http1::handshake(stream);
            let (mut sender, connection) = handshake.await?;
            drive(connection, async move { read(sender.send_request(request).await).await }).await
        }
    }

    fn keep(&self, reply: &Reply) {
        for line in reply.set_cookies() {
            let (name, rest) = line.split_once('=').expect("name=value");
            let value = rest.split(';').next().unwrap_or_default();
            let is_removal = line.contains("Max-Age=0");
            self.set_cookie(name, (!is_removal).then_some(value));
        }
    }
}

type Answer = Result<Reply, Box<dyn Error + Send + Sync>>;

/// Waits for the reply while the connection does its work. Both live in this one future: to drop it
/// is to hang up.
async fn drive(connection: impl Future, reply: impl Future<Output = Answer>) -> Answer {
    tokio::pin!(connection, reply);
    tokio::select! {
        reply = &mut reply => reply,
        // It may be done with the connection before we have read all that came over it.
        _ = connection => reply.await,
    }
}

async fn read(response: hyper::Result<http::Response<hyper::body::Incoming>>) -> Answer {
    let (parts, body) = response?.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = String::from_utf8(body.into())?;
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}
