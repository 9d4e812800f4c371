//! salvo takes tower layers whose responses have a body that is `Sync`.

use axum::body::Body;
use salvo::{
    conn::SocketAddr,
    http::{ReqBody, ResBody, uri::Scheme},
    hyper,
    prelude::*,
};
use sessions::{RequireLogin, Session};
use tower::ServiceBuilder;

use crate::{Visitor, counts_and_guards, layer};

fn sync(response: hyper::Response<Body>) -> hyper::Response<ResBody> {
    response.map(|body| ResBody::stream(body.into_data_stream()))
}

/// Writes the text of an error inside of the layer: outside, salvo sees a response that has a body.
#[handler]
async fn errors(req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    ctrl.call_next(req, depot, res).await;
    if res.body.is_error() {
        salvo::catcher::write_error_default(req, res, None);
    }
}

async fn session(req: &Request) -> Session<Visitor> {
    Session::open(req.extensions()).await.unwrap()
}

#[handler]
async fn index(req: &mut Request) -> String {
    crate::visit(session(req).await).await
}

#[handler]
async fn fails(req: &mut Request) -> StatusError {
    crate::visit(session(req).await).await;
    StatusError::im_a_teapot().brief("short and stout")
}

#[handler]
async fn login(req: &mut Request) -> &'static str {
    session(req).await.login(7).await.unwrap();
    "in"
}

#[handler]
async fn logout(req: &mut Request) -> &'static str {
    session(req).await.logout().await.unwrap();
    "out"
}

#[handler]
async fn member(req: &mut Request) -> String {
    let name: String = req.param("name").unwrap();
    format!("{name}: {}", crate::visit(session(req).await).await)
}

#[tokio::test]
async fn salvo() {
    let sessions = ServiceBuilder::new().map_response(sync).layer(layer());
    let members = ServiceBuilder::new().map_response(sync).layer(RequireLogin::<Visitor>::new());
    let members = Router::with_path("members/{name}")
        .hoop(members.compat())
        .get(member)
        .push(Router::with_path("logout").post(logout));
    let router = Router::new()
        .hoop(sessions.compat())
        .hoop(errors)
        .get(index)
        .push(Router::with_path("fails").get(fails))
        .push(Router::with_path("login").post(login))
        .push(members);
    let service = Service::new(router);

    counts_and_guards(async |request| {
        let (address, scheme) = (SocketAddr::Unknown, Scheme::HTTP);
        let control = salvo::ConnCtrl::new();
        let handler = service.hyper_handler(address.clone(), address, scheme, None, control, None);
        let mut inner = Request::new();
        inner.merge_hyper(request.map(|_| ReqBody::None));
        handler.handle(inner).await.strip_to_hyper().map(Body::new)
    })
    .await;
}
