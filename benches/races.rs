//! What is left of writes that overlap: `cargo run --release -p sessions-benches --bin races`.
//!
//! The same handlers on `sessions` and on its peers, in memory, in one process, called without a
//! network.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use sessions_benches::peers::{NAME, Peer};
use tower::ServiceExt;

/// A browser, as far as cookies go.
#[derive(Clone, Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    async fn get(&mut self, app: &Router, path: &str) -> String {
        let line: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::get(path);
        if !line.is_empty() {
            request = request.header(header::COOKIE, line.join("; "));
        }
        let request = request.body(Body::empty()).expect("a path");
        let response = app.clone().oneshot(request).await.expect("a response");
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().expect("ASCII");
            let (name, rest) = cookie.split_once('=').expect("name=value");
            match cookie.contains("Max-Age=0") {
                true => self.0.remove(name),
                false => self.0.insert(name.into(), rest.split(';').next().unwrap_or("").into()),
            };
        }
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8_lossy(&body).into_owned()
    }
}

/// Requests of one browser that run at the same time, each with the cookies of before.
async fn at_once(app: &Router, browser: &Browser, paths: impl IntoIterator<Item = String>) {
    let requests: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let (app, mut browser) = (app.clone(), browser.clone());
            tokio::spawn(async move { browser.get(&app, &path).await })
        })
        .collect();
    for request in requests {
        request.await.expect("no handler panics");
    }
}

async fn measure(app: Router) -> [String; 3] {
    let mut browser = Browser::default();
    browser.get(&app, "/begin").await;
    at_once(&app, &browser, (0..200).map(|_| "/count_slowly".to_string())).await;
    let counted = browser.get(&app, "/counter").await;

    let mut fewest = u32::MAX;
    for _ in 0..100 {
        let mut browser = Browser::default();
        browser.get(&app, "/begin").await;
        at_once(&app, &browser, (0..5).map(|field| format!("/set/{field}"))).await;
        let kept = browser.get(&app, "/fields").await.parse().expect("a number");
        fewest = fewest.min(kept);
    }

    let mut back = 0;
    for _ in 0..20 {
        let mut browser = Browser::default();
        browser.get(&app, "/begin").await;
        let before = browser.clone();
        let slow = tokio::spawn({
            let (app, mut browser) = (app.clone(), browser.clone());
            async move { browser.get(&app, "/count_very_slowly").await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        browser.get(&app, "/logout").await;
        slow.await.expect("no handler panics");
        back += usize::from(before.clone().get(&app, "/name").await == NAME);
    }
    [format!("{counted} of 200"), format!("{fewest} of 5"), format!("{back} of 20")]
}

#[tokio::main]
async fn main() {
    println!(
        "| | 200 increments at once | five fields at once, worst of 100 | back after logout |"
    );
    println!("| --- | --- | --- | --- |");
    for peer in Peer::WITH_SESSIONS {
        let [increments, fields, back] = measure(peer.app().await).await;
        println!("| {} | {increments} | {fields} | {back} |", peer.name());
    }
}
