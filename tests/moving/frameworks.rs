//! The layer in a framework that takes tower layers and is not axum.

use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tokio::net::TcpListener;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

#[derive(Session)]
struct Visitor {
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
