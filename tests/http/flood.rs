//! Many requests without a cookie, each of which begins a session. `SESSIONS_FLOOD=1000000` sends a
//! million to a store with its default limit, as `tests/run flood` does.

use std::{convert::Infallible, env};

use http::{Request, Response, header};
use http_body_util::BodyExt;
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
    note: String,
}

/// Says who is logged in, or logs in, or begins a session.
async fn handle(request: Request<()>) -> Result<Response<String>, Infallible> {
    let session = Session::<Customer>::open(request.extensions()).await.unwrap();
    let text = match request.uri().path().strip_prefix("/login/") {
        Some(user) => {
            session.login(user.parse().unwrap()).await.unwrap();
            String::new()
        }
        None if request.uri().path() == "/who" => format!("{:?}", session.read().await.user()),
        None => {
            {
                let mut s = session.write().await;
                s.set_cart([1, 2, 3]);
                s.set_note("as long as a few small fields are");
            }
            String::new()
        }
    };
    Ok(Response::new(text))
}

#[tokio::test]
async fn those_who_are_logged_in_outlive_a_flood_and_the_memory_stays_bounded() {
    const USERS: u64 = 1_000;
    let asked_for = env::var("SESSIONS_FLOOD").ok().map(|number| number.parse().unwrap());
    let (requests, limit, store) = match asked_for {
        Some(requests) => (requests, 128 << 20, MemoryStore::new()),
        None => {
            let limit = 2 << 20;
            (20_000, limit, MemoryStore::builder().with_memory_limit(limit).build())
        }
    };
    let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
    let mut service = layer.layer(service_fn(handle));
    let mut send = async |path: &str, cookie: Option<&str>| {
        let mut request = Request::builder().uri(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        service.ready().await.unwrap().call(request.body(()).unwrap()).await.unwrap()
    };
    let mut cookies = Vec::new();
    for user in 0..USERS {
        let response = send(&format!("/login/{user}"), None).await;
        let line = response.headers()[header::SET_COOKIE].to_str().unwrap();
        cookies.push(line.split(';').next().unwrap().to_string());
    }
    let (mut most, before) = (0, resident());
    for _ in 0..requests {
        assert!(send("/", None).await.status().is_success());
        most = most.max(store.memory_used());
    }
    let stats = store.stats();
    assert!(most <= limit && most > limit - 1_000, "{most} of {limit}: it is full");
    assert!(stats.evicted > 0 && stats.refused == 0, "{stats:?}");
    for (user, cookie) in (0..).zip(&cookies) {
        let body = send("/who", Some(cookie)).await.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), format!("Some({user})"));
    }
    if asked_for.is_some() {
        let grown = resident().saturating_sub(before);
        eprintln!("{requests} requests: {store:?}; of the system's memory: {grown} bytes");
        // The requests leave a little behind as well.
        assert!(grown < limit + limit / 20, "{grown} of {limit}");
    }
}

/// How much of the system's memory this process has, where that can be told.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .map_or(0, |kb: usize| kb << 10)
}
