//! The recipes, each used as a person or a browser would.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use axum::{
    body::Bytes,
    http::{Request, StatusCode, header},
};
use http_body_util::Full;
use sessions_tests::{Client, Reply, eventually, servers::Folder};

use crate::{COOKIE, copies, support::Program};

/// A recipe on ports that the system picks, and where it listens.
fn start(program: &str) -> (Program, Client) {
    let (program, address) = Program::start(
        Command::new(copies::program(program)).args(["0", "0"]),
        "listens on http://",
    );
    (program, Client::new(address))
}

async fn post(client: &Client, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.call(request.body(Full::new(Bytes::from(body.to_string()))).expect("a path")).await
}

/// What stands in a page between these two.
fn between<'a>(page: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = page.split_once(before).expect("the page has it");
    rest.split(after).next().expect("the text before")
}

fn read(path: &str) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    fs::read_to_string(repository.join(path)).expect("a file of the repository")
}

#[test]
fn the_guide_shows_this_program_and_it_has_forty_lines_at_most() {
    let (guide, program) =
        (read("sessions/docs/guide/first_steps.md"), read("examples/recipes/first_steps.rs"));
    assert!(guide.contains(&program), "the guide shows another program");
    let lines = program.lines().filter(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//")
    });
    let lines = lines.count();
    assert!(lines <= 40, "{lines} lines");
    assert!(guide.contains(&format!("{lines} lines of code")), "the guide counts {lines}");
    let readme = read("README.md");
    assert!(readme.contains(&format!("({lines} lines from `cargo new`")), "README counts {lines}");
}

#[tokio::test]
async fn actix_logs_in_by_its_form_and_refuses_another_sites() {
    let (_program, client) = start(env!("CARGO_BIN_EXE_actix"));
    assert!(client.get("/").await.text().contains("1 visits"));
    let page = client.get("/").await;
    assert!(page.text().contains("2 visits"));
    let refused = client.get("/members").await;
    assert_eq!(refused.status, StatusCode::SEE_OTHER);
    assert_eq!(refused.header("location"), "/?next=%2Fmembers");

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let token = between(&page.body, "value=\"", "\"").to_string();
    let from_elsewhere = [form[0], ("origin", "https://evil.example")];
    let body = format!("csrf_token={token}");
    let refused = post(&client, "/login", &from_elsewhere, &body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let login = post(&client, "/login", &form, &body).await;
    assert_eq!(login.header("location"), "/members");
    let members = client.get("/members").await;
    assert!(members.text().contains("Customer 7"));

    let stale = post(&client, "/members/logout", &form, &body).await;
    assert_eq!(stale.status, StatusCode::FORBIDDEN, "the token of before the login");
    let token = between(&members.body, "value=\"", "\"");
    let logout = post(&client, "/members/logout", &form, &format!("csrf_token={token}")).await;
    assert_eq!(logout.header("location"), "/");
    assert_eq!(client.get("/members").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn first_steps_stay_logged_in_over_a_restart() {
    let folder = Folder::new();
    let database = format!("sqlite:{}", folder.path.join("shop.db").display());
    let start = || -> (Program, SocketAddr) {
        let mut command = Command::new(copies::program(env!("CARGO_BIN_EXE_first_steps")));
        let keys = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";
        command.env("DATABASE", &database).env("SESSION_KEYS", keys).env("ADDRESS", "127.0.0.1:0");
        Program::start(&mut command, "listens on http://")
    };
    let (program, address) = start();
    let client = Client::new(address);
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    post(&client, "/login", &form, "password=wrong").await;
    assert_eq!(client.cookie(COOKIE), None);
    let reply = post(&client, "/login", &form, "password=correct+horse").await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    assert!(reply.header("set-cookie").contains("; Max-Age=25"), "{reply:?}");
    assert_eq!(client.get("/").await.text(), r#"user 7: ["teapot"]"#);
    let cross = [form[0], ("sec-fetch-site", "cross-site")];
    let refused = post(&client, "/login", &cross, "password=correct+horse").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    drop(program);
    let (_program, address) = start();
    let again = Client::new(address);
    again.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    assert_eq!(again.get("/").await.text(), r#"user 7: ["teapot", "teapot"]"#);
}

#[tokio::test]
async fn htmx_is_sent_to_the_login() {
    let (_program, client) = start(env!("CARGO_BIN_EXE_htmx"));
    let token = async || {
        let page = client.get("/").await;
        between(page.text(), r#""x-csrf-token": ""#, "\"").to_string()
    };
    let like = async |token: &str| {
        post(&client, "/like", &[("hx-request", "true"), ("x-csrf-token", token)], "").await
    };
    let reply = like(&token().await).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(reply.header("hx-redirect"), "/login");
    assert_eq!(reply.header("location"), "");
    assert_eq!(post(&client, "/login", &[], "").await.status, StatusCode::SEE_OTHER);
    assert_eq!(like("made up").await.status, StatusCode::FORBIDDEN);
    assert_eq!(like(&token().await).await.text(), "<p>1 likes</p>");
}

#[tokio::test]
async fn a_page_of_one_origin_uses_the_api_of_another() {
    let (_program, page) = start(env!("CARGO_BIN_EXE_spa"));
    let origin = format!("http://{}", page.address());
    let html = page.get("/").await.body;
    let api =
        Client::new(between(&html, "const api = \"http://", "\"").parse().expect("an address"));

    let preflight = Request::options("/visits")
        .header(header::ORIGIN, &origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-csrf-token");
    let reply = api.call(preflight.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(reply.header("access-control-allow-origin"), origin);
    assert_eq!(reply.header("access-control-allow-credentials"), "true");
    assert!(reply.header("access-control-allow-headers").contains("x-csrf-token"));
    assert_eq!(api.cookie(COOKIE), None, "a preflight begins no session");

    let token = Request::get("/token").header(header::ORIGIN, &origin);
    let reply = api.call(token.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(reply.header("access-control-allow-credentials"), "true");
    let token = reply.text().to_string();
    let from = async |origin: &str, token: &str| {
        let headers =
            [("origin", origin), ("sec-fetch-site", "same-site"), ("x-csrf-token", token)];
        post(&api, "/visits", &headers, "").await
    };
    assert_eq!(from(&origin, &token).await.text(), "1");
    assert_eq!(from(&origin, &token).await.text(), "2");
    assert_eq!(from(&origin, "made up").await.status, StatusCode::FORBIDDEN);
    let other = from("http://evil.example", &token).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    assert_ne!(other.header("access-control-allow-origin"), "http://evil.example");
}

#[tokio::test]
async fn tenants_have_sessions_of_their_own() {
    let (_program, client) = start(env!("CARGO_BIN_EXE_tenants"));
    let get = async |host: &str, path: &str| {
        let cookie = client.cookie(COOKIE).map(|value| format!("{COOKIE}={value}"));
        let lines: Vec<_> = [format!("GET {path} HTTP/1.1"), format!("Host: {host}")]
            .into_iter()
            .chain(cookie.map(|cookie| format!("Cookie: {cookie}")))
            .chain(["Connection: close\r\n\r\n".to_string()])
            .collect();
        raw(client.address(), &lines.join("\r\n")).await
    };
    let reply = get("teapots.localhost", "/login").await;
    let value = between(&reply, &format!("{COOKIE}="), ";");
    client.set_cookie(COOKIE, Some(value));
    let body = |reply: &str| reply.split_once("\r\n\r\n").expect("a body").1.to_string();
    assert_eq!(body(&get("teapots.localhost", "/").await), "Some(7)");
    assert_eq!(body(&get("teapots.localhost", "/logins").await), "1");
    assert_eq!(body(&get("kettles.localhost", "/").await), "None");
    assert_eq!(body(&get("kettles.localhost", "/logins").await), "0");
    assert_eq!(body(&get("pans.localhost", "/").await), "no such shop");
}

/// One request with the `Host` that it says, which the client would replace with the address.
async fn raw(address: SocketAddr, request: &str) -> String {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("it answers, and closes");
    reply
}

#[tokio::test]
async fn a_job_ends_the_sessions_of_a_suspended_account() {
    let (_program, member) = start(env!("CARGO_BIN_EXE_job"));
    let other = Client::new(member.address());
    assert!(member.get("/login/7").await.status.is_success());
    assert!(other.get("/login/8").await.status.is_success());
    assert_eq!(member.get("/").await.text(), "member 7");
    assert!(other.get("/suspend/7").await.status.is_success());
    eventually("the member is logged out", async || {
        member.get("/").await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(other.get("/").await.text(), "member 8");
}

#[tokio::test]
async fn plain_hyper_counts_visits() {
    let (_program, client) = start(env!("CARGO_BIN_EXE_plain_hyper"));
    assert_eq!(client.get("/").await.text(), "1 visits");
    assert_eq!(client.get("/").await.text(), "2 visits");
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.call_http2(request).await.text(), "3 visits");
}

#[tokio::test]
async fn a_counter_counts_and_a_store_of_ones_own_keeps_it() {
    for program in [env!("CARGO_BIN_EXE_counter"), env!("CARGO_BIN_EXE_custom_store")] {
        let (_program, client) = start(program);
        assert_eq!(client.get("/").await.text(), "1 visits");
        assert_eq!(client.get("/").await.text(), "2 visits");
        assert_eq!(Client::new(client.address()).get("/").await.text(), "1 visits");
    }
}

#[tokio::test]
async fn an_administrator_has_a_session_beside_the_visitors() {
    let (_program, client) = start(env!("CARGO_BIN_EXE_two_sessions"));
    client.get("/").await.text();
    assert!(client.get("/admin").await.text().contains("Log in"));
    assert_eq!(client.cookie("__Secure-admin"), None);
    assert_eq!(post(&client, "/admin/login", &[], "").await.status, StatusCode::SEE_OTHER);
    let page = client.get("/admin").await;
    assert!(page.text().contains("Action 1, after 1 visits."), "{page:?}");
    assert_eq!(post(&client, "/admin/logout", &[], "").await.status, StatusCode::SEE_OTHER);
    assert_eq!(client.cookie("__Secure-admin"), None);
    assert!(client.get("/").await.text().contains("2 visits"));
}

/// Of each program that the guide has as a recipe: `tests/run copies` runs what these tests start.
#[test]
fn each_recipe_says_what_it_needs_and_is_tried_as_a_copy() {
    let (guide, tests) = (
        read("sessions/docs/guide/recipes.md"),
        ["programs.rs", "programs/recipes.rs", "support/provider.rs"]
            .map(|file| read(&format!("examples/tests/{file}")))
            .join("")
            + &read("examples/passkeys/tests/passkeys.rs"),
    );
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<_> = rows.filter(|name| *name != "shop").collect();
    assert!(names.len() > 9, "the table is not read: {names:?}");
    for name in names {
        assert!(!copies::needs(name).is_empty(), "`{name}` does not say what it needs");
        let started = format!(r#"env!("CARGO_BIN_EXE_{name}")"#);
        assert!(tests.contains(&started), "no test starts `{name}`");
    }
}
