//! hyper without a framework: the layer goes around any tower service.
//!
//! Run it with `cargo run -p sessions-examples --bin plain_hyper`, and reload the page.
//!
//! ```text
//! cargo add http sessions
//! cargo add hyper --features http1,http2,server
//! cargo add hyper-util --features server-auto,service,tokio
//! cargo add tokio --features macros,net,rt-multi-thread
//! cargo add tower --features util
//! ```

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use sessions::{Keys, MemoryStore, Session};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn index(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    // Without extractors: the session is in the request's extensions.
    let session = match Session::<Visitor>::open(request.extensions()).await {
        Ok(session) => session,
        Err(error) => {
            let mut response = Response::new("The session is not available just now.".to_string());
            *response.status_mut() = error.status();
            return Ok(response);
        }
    };
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    Ok(Response::new(format!("{} visits", s.visits)))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let service = ServiceBuilder::new()
        .layer(Visitor::layer(MemoryStore::new(), Keys::generate()))
        .service_fn(index);

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("plain_hyper listens on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}
