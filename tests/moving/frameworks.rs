//! The layer in frameworks that are not axum: one that takes tower layers as they are, one that wants
//! other bodies, one that wants other requests.

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tokio::net::TcpListener;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

mod in_poem;
mod in_salvo;

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    visits: u32,
}

fn layer() -> SessionLayer<Visitor> {
    Visitor::layer(MemoryStore::new(), Keys::generate())
}

/// A service of gRPC that says how often the client has called it: in the status, which is a number.
struct Counting;

#[tonic::async_trait]
impl Health for Counting {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, tonic::Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let session = Session::<Visitor>::open(request.extensions()).await;
        let session = session.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut s = session.write().await;
        *s.visits_mut() += 1;
        Ok(tonic::Response::new(HealthCheckResponse { status: s.visits as i32 }))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }
}

#[tokio::test]
async fn tonic() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let mut server = tonic::transport::Server::builder().layer(layer());
    let server = server.add_service(HealthServer::new(Counting));
    tokio::spawn(server.serve_with_incoming(incoming));

    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let first = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(first.get_ref().status, 1);
    // A client of gRPC keeps no cookies by itself.
    let cookie = first.metadata().get("set-cookie").unwrap().to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let mut second = tonic::Request::new(HealthCheckRequest::default());
    second.metadata_mut().insert("cookie", cookie.parse().unwrap());
    assert_eq!(client.check(second).await.unwrap().get_ref().status, 2);
    let another = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(another.get_ref().status, 1);
}

/// One more visit, as the handlers of poem and salvo count them.
async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    format!("{} visits", s.visits)
}

struct Answer {
    status: StatusCode,
    cookie: Option<String>,
    text: String,
}

/// Sends a request without a body, with this cookie.
async fn ask(
    app: &impl AsyncFn(Request<Body>) -> Response<Body>,
    method: &str,
    path: &str,
    cookie: Option<&str>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let (head, body) = app(request.body(Body::empty()).unwrap()).await.into_parts();
    let cookie = head.headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap());
    let cookie = cookie.map(|value| value.split(';').next().unwrap().to_owned());
    let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
    Answer { status: head.status, cookie, text }
}

/// What has to hold of an application with `/`, `/fails`, `/login`, `/members/{name}` and
/// `/members/{name}/logout`.
async fn counts_and_guards(app: impl AsyncFn(Request<Body>) -> Response<Body>) {
    let first = ask(&app, "GET", "/", None).await;
    assert_eq!(first.text, "1 visits");
    let anonymous = first.cookie.as_deref();
    let second = ask(&app, "GET", "/", anonymous).await;
    assert_eq!((second.text.as_str(), second.cookie), ("2 visits", None));
    assert_eq!(ask(&app, "GET", "/", None).await.text, "1 visits");

    // A handler that fails has its own status and text, and what it wrote is saved.
    let failed = ask(&app, "GET", "/fails", anonymous).await;
    assert_eq!(failed.status, StatusCode::IM_A_TEAPOT);
    assert!(failed.text.contains("short and stout"), "{}", failed.text);

    let refused = ask(&app, "GET", "/members/ann", anonymous).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.text, "Please log in.");
    let member = ask(&app, "POST", "/login", anonymous).await.cookie;
    assert!(member.is_some() && member != first.cookie);
    // The framework's own path parameters are still there.
    let welcome = ask(&app, "GET", "/members/ann", member.as_deref()).await;
    assert_eq!((welcome.status, welcome.text.as_str()), (StatusCode::OK, "ann: 4 visits"));

    ask(&app, "POST", "/members/ann/logout", member.as_deref()).await;
    let refused = ask(&app, "GET", "/members/ann", member.as_deref()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}
