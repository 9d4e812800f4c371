//! What `#[derive(Session)]` makes of a struct, seen from outside.
#![allow(unreachable_pub, reason = "how visible things are is part of what is tested")]

mod accessors;
mod attributes;
mod lints;
mod names;
mod shapes;

use std::{convert::Infallible, sync::Mutex};

use http::{HeaderValue, Request, Response, header};
use sessions::{Keys, MemoryStore, Session, SessionData, SessionLayer};
use tower::{Layer, ServiceExt, service_fn};

/// A browser with a session, and what its server leaves to the next one: the store and the keys.
struct Browser {
    store: MemoryStore,
    keys: Keys,
    cookie: Option<HeaderValue>,
}

impl Browser {
    fn new() -> Self {
        Self { store: MemoryStore::new(), keys: Keys::generate(), cookie: None }
    }

    /// Sends one request to a server that has just been started, maybe from a newer build.
    async fn request<T, R>(&mut self, handler: impl AsyncFnOnce(Session<T>) -> R) -> R
    where
        T: SessionData,
    {
        let layer = SessionLayer::<T>::new(self.store.clone(), self.keys.clone());
        let mut handler = Some(handler);
        let result = Mutex::new(None);
        let service = layer.layer(service_fn(|request: Request<()>| {
            let (handler, result) = (handler.take().expect("one request"), &result);
            async move {
                let session = Session::open(request.extensions()).await.expect("a session");
                let returned = handler(session).await;
                *result.lock().expect("one request") = Some(returned);
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        }));
        let mut request = Request::new(());
        request.headers_mut().extend(self.cookie.clone().map(|cookie| (header::COOKIE, cookie)));
        let Ok(response) = service.oneshot(request).await;
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            self.cookie = Some(cookie.clone());
        }
        result.into_inner().expect("no panic").expect("a result")
    }
}

/// Runs `test` in a request that begins a session.
async fn in_session<T: SessionData, R>(test: impl AsyncFnOnce(Session<T>) -> R) -> R {
    Browser::new().request(test).await
}
