//! poem gives tower layers a request of its own: `through` gives them one of `http`.

use std::{convert::Infallible, io, mem, sync::Arc};

use axum::{body::Body, http};
use poem::{
    Endpoint, EndpointExt, Request, Response, Result, Route, get, handler, post, web::Path,
};
use sessions::{RequireLogin, Session};
use tokio_stream::StreamExt;
use tower::{Layer, Service, ServiceExt, util::BoxCloneService};

use crate::{Visitor, counts_and_guards, layer};

/// poem's request, as the body of one that has its head.
type Carried = http::Request<Request>;
type Inner = BoxCloneService<Carried, http::Response<Body>, Infallible>;

/// Sends a request through a tower layer to an endpoint of poem.
async fn through<L>(
    layer: L,
    endpoint: Arc<impl Endpoint + 'static>,
    mut request: Request,
) -> Result<Response>
where
    L: Layer<Inner>,
    L::Service: Service<Carried, Response = http::Response<Body>, Error = Infallible>,
{
    let inner = tower::service_fn(move |carried: Carried| {
        let endpoint = endpoint.clone();
        async move {
            let (head, mut request) = carried.into_parts();
            *request.extensions_mut() = head.extensions;
            let response: http::Response<_> = endpoint.get_response(request).await.into();
            Ok(response.map(Body::new))
        }
    });
    let mut head = http::Request::new(()).into_parts().0;
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.headers = request.headers().clone();
    head.extensions = mem::take(request.extensions_mut());
    let carried = http::Request::from_parts(head, request);
    let Ok(response) = layer.layer(BoxCloneService::new(inner)).oneshot(carried).await;

    let (head, body) = response.into_parts();
    let body = body.into_data_stream().map(|part| part.map_err(io::Error::other));
    let mut response = Response::from(poem::Body::from_bytes_stream(body));
    response.set_status(head.status);
    *response.headers_mut() = head.headers;
    *response.extensions_mut() = head.extensions;
    Ok(response)
}

async fn session(request: &Request) -> Session<Visitor> {
    Session::open(request.extensions()).await.unwrap()
}

#[handler]
async fn index(request: &Request) -> String {
    crate::visit(session(request).await).await
}

#[handler]
async fn fails(request: &Request) -> Result<()> {
    crate::visit(session(request).await).await;
    Err(poem::Error::from_string("short and stout", http::StatusCode::IM_A_TEAPOT))
}

#[handler]
async fn login(request: &Request) {
    session(request).await.login(7).await.unwrap();
}

#[handler]
async fn logout(request: &Request) {
    session(request).await.logout().await.unwrap();
}

#[handler]
async fn member(request: &Request, Path(name): Path<String>) -> String {
    format!("{name}: {}", crate::visit(session(request).await).await)
}

#[tokio::test]
async fn poem() {
    let sessions = layer();
    let members = || RequireLogin::<Visitor>::new();
    let app = Route::new()
        .at("/", get(index))
        .at("/fails", get(fails))
        .at("/login", post(login))
        .at("/members/:name", get(member).around(move |e, r| through(members(), e, r)))
        .at("/members/:name/logout", post(logout).around(move |e, r| through(members(), e, r)))
        .around(move |endpoint, request| through(sessions.clone(), endpoint, request));

    counts_and_guards(async |request| {
        let mut inner = Request::builder().method(request.method().clone());
        inner = inner.uri(request.uri().clone());
        if let Some(cookie) = request.headers().get(http::header::COOKIE) {
            inner = inner.header(http::header::COOKIE, cookie);
        }
        let response: http::Response<_> = app.get_response(inner.finish()).await.into();
        response.map(Body::new)
    })
    .await;
}
