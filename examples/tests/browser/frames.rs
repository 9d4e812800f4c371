//! An application in a frame of another site's page, in a browser that blocks the cookies of other
//! sites: a partitioned one gets through.

use axum::{Router, extract::RawQuery, response::Html, routing::get};
use sessions::{Keys, MemoryStore, SameSite, Session, SessionLayer};
use sessions_tests::Server;
use tokio::runtime::Runtime;

use crate::webdriver::Browser;

#[derive(Session)]
struct Framed {
    visits: u32,
}

/// What the page around it is told.
fn tell(words: &str) -> Html<String> {
    Html(format!("<p>{words}</p><script>parent.postMessage('{words}', '*')</script>"))
}

async fn visit(session: Session<Framed>) -> Html<String> {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    tell(&s.visits.to_string())
}

async fn leave(session: Session<Framed>) -> sessions::Result<Html<String>> {
    session.destroy().await?;
    Ok(tell("left"))
}

/// A page that shows another address in a frame, and keeps what it is told from there.
async fn around(RawQuery(address): RawQuery) -> Html<String> {
    Html(format!(
        "<script>addEventListener('message', event => window.told = event.data)</script>\
         <iframe src=\"{}\"></iframe>",
        address.expect("an address")
    ))
}

async fn framed(name: &'static str, is_partitioned: bool) -> Server {
    let builder = SessionLayer::<Framed>::builder(MemoryStore::new(), Keys::generate())
        .with_cookie_name(name)
        .with_same_site(SameSite::None);
    let builder = if is_partitioned { builder.with_partitioned_cookie() } else { builder };
    let layer = builder.build().expect("possible settings");
    let routes = Router::new().route("/", get(visit)).route("/leave", get(leave));
    Server::start(routes.layer(layer)).await
}

#[test]
fn a_partitioned_cookie_lives_in_the_frames_of_a_site_and_is_removed_there() {
    let Some(browser) = Browser::start_blocking("frames") else { return };
    let runtime = Runtime::new().expect("a runtime");
    let (plain, partitioned, site) = runtime.block_on(async {
        let site = Server::start(Router::new().route("/", get(around))).await;
        (framed("__Host-plain", false).await, framed("__Host-id", true).await, site)
    });
    let port = |server: &Server| server.client().address().port();
    // To a browser, `127.0.0.1` and `localhost` are two sites.
    let in_frame = |server: &Server, path: &str| {
        let frame = format!("http://localhost:{}{path}", port(server));
        browser.go(&format!("http://127.0.0.1:{}/?{frame}", port(&site)));
        browser.until("window.told");
        browser.script("return window.told")
    };
    let by_itself = |server: &Server| {
        browser.go(&format!("http://localhost:{}/", port(server)));
        browser.script("return document.querySelector('p').innerText")
    };
    let partitions = || {
        let cookies = browser.devtools("Network.getAllCookies", serde_json::json!({}));
        let cookies = cookies["cookies"].as_array().expect("a list").clone();
        cookies.iter().filter(|cookie| cookie.get("partitionKey").is_some()).count()
    };
    assert_eq!([in_frame(&plain, "/"), in_frame(&plain, "/")], ["1", "1"], "it is blocked");
    assert_eq!([in_frame(&partitioned, "/"), in_frame(&partitioned, "/")], ["1", "2"]);
    assert_eq!(partitions(), 1);
    // Opened by itself, it is another session.
    assert_eq!([by_itself(&partitioned), by_itself(&partitioned)], ["1", "2"]);
    assert_eq!(in_frame(&partitioned, "/"), "3");
    assert_eq!(partitions(), 2);

    assert_eq!(in_frame(&partitioned, "/leave"), "left");
    assert_eq!(partitions(), 1, "the removal has reached the frame's");
    assert_eq!(in_frame(&partitioned, "/"), "1");
    assert_eq!(by_itself(&partitioned), "3");
}
