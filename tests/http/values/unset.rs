//! What was set is stored, and be it the default; what never was follows the build's default.

use sessions::testing::{Calls, ManualClock, SpyStore};

use super::*;

/// The first build.
#[derive(Session)]
#[session(name = "Visitor")]
struct First {
    #[session(default = "light")]
    theme: String,
    #[session(default = true)]
    mails: bool,
    #[session(default = 10)]
    lines: u32,
    #[session(default = "none")]
    sort: String,
    #[session(ttl = "1h", default = 5)]
    code: u32,
    visits: u32,
}

/// The next build, with other defaults.
#[derive(Session)]
#[session(name = "Visitor")]
struct Next {
    #[session(default = "dark")]
    theme: String,
    #[session(default = false)]
    mails: bool,
    #[session(default = 20)]
    lines: u32,
    #[session(default = "name")]
    sort: String,
    #[session(ttl = "1h", default = 6)]
    code: u32,
    visits: u32,
}

/// Two builds on one store, and one browser.
struct Builds {
    servers: [Server; 2],
    client: Client,
    clock: ManualClock,
}

async fn keep(session: Session<First>) {
    session.write().await.set_visits(1);
}

async fn set(session: Session<First>) {
    {
        let mut s = session.write().await;
        s.set_theme("light");
        s.set_mails(true);
        s.set_code(5);
    }
}

/// Nothing of this sets anything.
async fn touch(session: Session<First>) {
    let mut s = session.write().await;
    let _ = s.theme_mut();
    let _ = s.mails_mut();
    s.reset_lines();
    s.take_sort();
}

async fn other(session: Session<First>) {
    {
        let mut s = session.write().await;
        s.set_theme("blue");
        s.set_mails(false);
        s.set_lines(3);
        s.set_sort("age");
    }
}

async fn back(session: Session<First>) {
    let mut s = session.write().await;
    *s.theme_mut() = "light".to_string();
    s.reset_lines();
    s.take_sort();
}

async fn show(session: Session<Next>) -> String {
    let s = session.read().await;
    format!("{} {} {} {} {}", s.theme(), s.mails(), s.lines(), s.sort(), s.code())
}

impl Builds {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let (store, keys) =
            (Arc::new(MemoryStore::builder().with_clock(&clock).build()), Keys::generate());
        let builder = SessionLayer::<First>::builder(store.clone(), keys.clone());
        let first = Router::new()
            .route("/keep", get(keep))
            .route("/set", get(set))
            .route("/touch", get(touch))
            .route("/other", get(other))
            .route("/back", get(back))
            .layer(builder.with_clock(&clock).in_another_process().build().unwrap());
        let builder = SessionLayer::<Next>::builder(store, keys);
        let next = Router::new()
            .route("/", get(show))
            .layer(builder.with_clock(&clock).in_another_process().build().unwrap());
        let servers = [Server::start(first).await, Server::start(next).await];
        let client = servers[0].client();
        Self { servers, client, clock }
    }

    async fn at_first(&self, paths: &[&str]) {
        for path in paths {
            self.client.get(path).await.text();
        }
    }

    /// What the next build shows.
    async fn at_next(&self) -> String {
        let client = self.servers[1].client();
        client.set_cookie(COOKIE, self.client.cookie(COOKIE).as_deref());
        client.get("/").await.text().to_string()
    }
}

#[tokio::test]
async fn what_was_never_set_follows_the_next_builds_default() {
    let builds = Builds::new().await;
    builds.at_first(&["/keep", "/touch"]).await;
    assert_eq!(builds.at_next().await, "dark false 20 name 6");
}

#[tokio::test]
async fn what_was_set_stays_also_if_it_was_the_default() {
    let builds = Builds::new().await;
    builds.at_first(&["/set"]).await;
    assert!(builds.client.cookie(COOKIE).is_some(), "it is worth a session");
    assert_eq!(builds.at_next().await, "light true 20 name 5");
    builds.clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(builds.at_next().await, "light true 20 name 6", "it ends as any other value");
}

#[tokio::test]
async fn what_was_set_back_in_place_is_stored_and_what_was_reset_is_not() {
    let builds = Builds::new().await;
    builds.at_first(&["/other"]).await;
    assert_eq!(builds.at_next().await, "blue false 3 age 6");
    builds.at_first(&["/back"]).await;
    assert_eq!(builds.at_next().await, "light false 20 name 6");
}

#[tokio::test]
async fn a_setter_that_changes_nothing_still_writes_nothing() {
    #[derive(Session)]
    struct Themed {
        #[session(default = "light")]
        theme: String,
        name: Option<String>,
        #[session(flash)]
        notice: Option<String>,
    }
    async fn light(session: Session<Themed>) {
        session.write().await.set_theme("light");
    }
    async fn idle(session: Session<Themed>) {
        let mut s = session.write().await;
        s.reset_theme();
        s.clear_name();
        let _ = s.theme_mut();
        let _ = s.name_mut();
        let _ = (s.take_theme(), s.take_name(), s.take_notice());
    }
    let store = SpyStore::new(MemoryStore::new());
    let layer = SessionLayer::<Themed>::new(store.clone(), Keys::generate());
    let routes = Router::new().route("/light", get(light)).route("/idle", get(idle));
    let server = Server::start(routes.layer(layer)).await;
    let client = server.client();
    client.get("/idle").await.text();
    assert_eq!(client.cookie(COOKIE), None, "nothing was set");
    client.get("/light").await.text();
    let Calls { create, replace, .. } = store.calls();
    assert_eq!((create, replace), (1, 0));
    client.get("/light").await.text();
    assert_eq!(store.calls().replace, 0);
    client.get("/idle").await.text();
    assert_eq!(store.calls().replace, 1, "the theme was set back");
    client.get("/idle").await.text();
    assert_eq!(store.calls().replace, 1);
}
