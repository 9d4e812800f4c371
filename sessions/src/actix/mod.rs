//! actix-web 4 (feature `actix`): the same sessions, with the same names, promises and settings.
//!
//! ```
//! # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))] {
//! use actix_web::{App, HttpServer, web};
//! use sessions::{CsrfLayer, Keys, LoggedIn, MemoryStore, RequireLogin, Session};
//!
//! #[derive(Session)]
//! struct Visitor {
//!     #[session(user)]
//!     user: Option<u64>,
//!     visits: u32,
//! }
//!
//! async fn index(session: Session<Visitor>) -> String {
//!     let mut s = session.write().await;
//!     let visits = s.visits() + 1;
//!     s.set_visits(visits);
//!     format!("{visits} visits")
//! }
//!
//! async fn account(LoggedIn { user, .. }: LoggedIn<Visitor>) -> String {
//!     format!("user {user}")
//! }
//!
//! async fn serve() -> std::io::Result<()> {
//!     // Once, and not in each worker: two layers are to each other like two processes.
//!     let layer = Visitor::layer(MemoryStore::new(), Keys::generate());
//!     let app = move || {
//!         let members = web::scope("/members").wrap(RequireLogin::<Visitor>::new());
//!         App::new()
//!             .service(members.route("/account", web::get().to(account)))
//!             .route("/", web::get().to(index))
//!             .wrap(CsrfLayer::<Visitor>::new())
//!             // Outside of it: what is added later is passed earlier.
//!             .wrap(layer.clone())
//!     };
//!     HttpServer::new(app).bind("127.0.0.1:3000")?.run().await
//! }
//! # }
//! ```
//!
//! # How it is made
//!
//! [`SessionLayer`], [`CsrfLayer`](crate::CsrfLayer) and [`RequireLogin`](crate::RequireLogin) are
//! middleware of actix-web too: they implement its `Transform` beside tower's `Layer`. What of a request they
//! have to see is translated to the types of `http` 1 once; from there on it is the code that runs under tower,
//! up to the headers of the response. Slots, locks and saves are shared by all workers, for they belong to the
//! layer.
//!
//! # What is other than under axum
//!
//! - `Option<Session<T>>` and `Option<LoggedIn<T>>` are actix-web's own, and `None` whatever went wrong, also if
//!   the store did not answer. `Result<LoggedIn<T>, sessions::Error>` tells the two apart.
//! - A middleware opens the session by `request.extract::<Session<T>>().await`.
//! - [`OriginCheck::check`](crate::OriginCheck::check) takes what [`head`] gives.
//! - The function of `with_rejection_response` is given a head without extensions. The rejection is among
//!   the extensions of the response, as everywhere; that of an extractor or a handler has no
//!   [`error`](crate::Rejection::error), which actix-web keeps: `response.error()`.
//! - A middleware that returns an error, rather than a response, leaves the error to actix-web, which makes a
//!   response of it outside of all middleware. It has the session's headers. If the session wants any, the
//!   error is another one for the middleware outside of the layer: it has the response, and the text. So is
//!   that of a request that was given up because a lock was not to be had.
//! - A handler does not hear that its client has hung up, and goes on, unless the server has
//!   `h1_allow_half_closed(false)`; then it is dropped, with the promises of a dropped request.
//! - A worker's runtime ends with the server. What of a dropped request is not saved by then is saved in the
//!   runtime that the layer was built in, so build it where the server is awaited, and end the program with
//!   [`wait_for_background_saves`](SessionLayer::wait_for_background_saves).
//! - `testing::TestClient` drives tower services alone; actix-web has `test::init_service`.

use std::pin::Pin;

use actix_web::{HttpMessage, HttpRequest};

#[allow(unused_imports, reason = "for the documentation")]
use crate::layer::SessionLayer;
use crate::{data::SessionData, session::Lazy};

mod convert;
mod csrf;
mod extract;
mod login;
mod middleware;

pub use convert::head;
pub use csrf::CsrfMiddleware;
pub use login::RequireLoginMiddleware;
pub use middleware::{SessionFuture, SessionMiddleware};

/// A future that stays in its worker.
pub type LocalFuture<R> = Pin<Box<dyn Future<Output = R>>>;

/// What the layer has left in the request's extensions.
fn lazy<T: SessionData>(request: &HttpRequest) -> Option<Lazy<T>> {
    request.extensions().get::<Lazy<T>>().cloned()
}
