//! Sessions of several types and tenants on one store and one ring of keys: none is another's. And a
//! layer inside of itself.

use axum::{
    Router,
    extract::{Path, Request},
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use sessions::{
    Keys, LoggedIn, MemoryStore, Session, SessionLayer, SessionLayerBuilder, SessionUser,
};
use sessions_tests::{Client, Server};

use crate::COOKIE;

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    note: String,
    hits: u32,
}

#[derive(Session)]
struct Admin {
    #[session(user)]
    user: Option<u64>,
}

/// What `Customer` is called in the next build.
#[derive(Session)]
#[session(name = "Customer")]
struct Client2 {
    #[session(user)]
    user: Option<u64>,
}

fn routes<T: SessionUser<User = u64>>() -> Router {
    async fn login<T: SessionUser<User = u64>>(
        Path(user): Path<u64>,
        session: Session<T>,
    ) -> sessions::Result<()> {
        session.login(user).await
    }
    async fn who<T: SessionUser<User = u64>>(LoggedIn { user, .. }: LoggedIn<T>) -> String {
        user.to_string()
    }
    Router::new().route("/login/{user}", get(login::<T>)).route("/who", get(who::<T>))
}

async fn serve<T: SessionUser<User = u64>>(builder: SessionLayerBuilder<T>) -> Server {
    let layer = builder.in_another_process().build().expect("possible settings");
    Server::start(routes::<T>().layer(layer)).await
}

/// A browser with the cookie that `client` has, in front of `server`.
fn with_cookie_of(client: &Client, server: &Server) -> Client {
    let thief = server.client();
    thief.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    thief
}

#[tokio::test]
async fn a_cookie_of_one_type_opens_no_session_of_another() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let customers = serve(SessionLayer::<Customer>::builder(store.clone(), keys.clone())).await;
    let admins = serve(SessionLayer::<Admin>::builder(store.clone(), keys.clone())).await;
    let (customer, admin) = (customers.client(), admins.client());
    customer.get("/login/7").await.text();
    admin.get("/login/7").await.text();
    assert_eq!(with_cookie_of(&customer, &customers).get("/who").await.text(), "7");
    assert_eq!(with_cookie_of(&customer, &admins).get("/who").await.status, 401);
    assert_eq!(with_cookie_of(&admin, &customers).get("/who").await.status, 401);
}

#[tokio::test]
async fn a_private_cookie_of_one_type_opens_no_session_of_another() {
    let keys = Keys::generate();
    let customers =
        serve(SessionLayer::<Customer>::builder(sessions::PrivateCookie, keys.clone())).await;
    let admins = serve(SessionLayer::<Admin>::builder(sessions::PrivateCookie, keys)).await;
    let customer = customers.client();
    customer.get("/login/7").await.text();
    assert_eq!(with_cookie_of(&customer, &customers).get("/who").await.text(), "7");
    assert_eq!(with_cookie_of(&customer, &admins).get("/who").await.status, 401);
}

/// Renamed with `name`, a struct keeps its sessions and its users; without, it begins anew.
#[tokio::test]
async fn a_struct_that_keeps_its_name_keeps_its_sessions() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let before = serve(SessionLayer::<Customer>::builder(store.clone(), keys.clone())).await;
    let builder = || SessionLayer::<Client2>::builder(store.clone(), keys.clone());
    let after = serve(builder()).await;
    let customer = before.client();
    customer.get("/login/7").await.text();
    assert_eq!(with_cookie_of(&customer, &after).get("/who").await.text(), "7");
    let sessions = builder().in_another_process().build().unwrap().user_sessions().unwrap();
    assert_eq!(sessions.end_all(&7).await.unwrap(), 1);
    assert_eq!(customer.get("/who").await.status, 401);
}

#[tokio::test]
async fn two_layers_that_would_answer_to_each_other_are_an_error_when_the_second_is_built() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let first = SessionLayer::<Customer>::new(store.clone(), keys.clone());
    let message =
        |built: Result<SessionLayer<Client2>, sessions::BuildError>| built.unwrap_err().to_string();
    let same_name = message(SessionLayer::builder(store.clone(), keys.clone()).build());
    assert!(same_name.contains("both types are called `Customer`"), "{same_name}");
    let admins = || SessionLayer::<Admin>::builder(store.clone(), keys.clone());
    let same_cookie = admins().build().unwrap_err().to_string();
    assert!(same_cookie.contains("with_cookie_name"), "{same_cookie}");
    assert!(admins().with_cookie_name("__Host-admin").build().is_ok());
    // One type twice is what two processes are, and a clone is the layer itself.
    let again = SessionLayer::<Customer>::new(store.clone(), keys.clone());
    drop((first.clone(), again));
    // Nobody answers for a layer that is gone.
    drop(first);
    assert!(admins().build().is_ok());
}

/// Two shops of one program, by host name, with one store and the same cookie name.
#[tokio::test]
async fn tenants_have_nothing_in_common() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let layer = |tenant| {
        let builder = SessionLayer::<Customer>::builder(store.clone(), keys.for_tenant(tenant));
        builder.build().expect("possible settings")
    };
    let layers = ["a.example", "b.example"].map(layer);
    let [a, b] = layers.clone().map(|layer| routes::<Customer>().layer(layer));
    let (a, b) = (Server::start(a).await, Server::start(b).await);
    let (at_a, at_b) = (a.client(), b.client());
    at_a.get("/login/7").await.text();
    at_b.get("/login/7").await.text();
    assert_eq!(with_cookie_of(&at_a, &b).get("/who").await.status, 401);
    assert_eq!(with_cookie_of(&at_b, &a).get("/who").await.status, 401);
    let [of_a, of_b] = layers.each_ref().map(|layer| layer.user_sessions().unwrap());
    assert_eq!((of_a.list(&7).await.unwrap().len(), of_b.list(&7).await.unwrap().len()), (1, 1));
    assert_eq!(of_a.end_all(&7).await.unwrap(), 1);
    assert_eq!(at_a.get("/who").await.status, 401);
    assert_eq!(at_b.get("/who").await.text(), "7");
}

/// Counts its requests in the session, also of those whose handler logs in.
async fn counting(request: Request, next: Next) -> Response {
    let session = Session::<Customer>::open(request.extensions()).await.unwrap();
    *session.write().await.hits_mut() += 1;
    let response = next.run(request).await;
    session.write().await.set_note("seen from outside");
    response
}

#[tokio::test]
async fn a_layer_inside_of_itself_has_one_session_a_request() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let layer = || SessionLayer::<Customer>::new(store.clone(), keys.clone());
    let one = layer();
    for (how, outer, inner) in [("a clone", one.clone(), one), ("built again", layer(), layer())] {
        let show = async |session: Session<Customer>| {
            let s = session.read().await;
            format!("{:?} {} {}", s.user(), s.hits(), s.note())
        };
        let inside = routes::<Customer>().route("/show", get(show)).layer(inner);
        let app = Router::new().nest("/in", inside).layer(from_fn(counting)).layer(outer);
        let server = Server::start(app).await;
        let stored = store.len();
        let client = server.client();
        let login = client.get("/in/login/7").await;
        assert_eq!(login.set_cookies().len(), 1, "{how}");
        assert_eq!(client.get("/in/who").await.text(), "7", "{how}");
        assert_eq!(client.get("/in/show").await.text(), "Some(7) 3 seen from outside", "{how}");
        assert_eq!(store.len(), stored + 1, "{how}: nothing is stored that nobody can reach");
    }
}
