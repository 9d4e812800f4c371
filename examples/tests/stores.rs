//! The shop on each server that can keep its sessions, with one flag; part of `tests/run stores`.

#[path = "support/shop.rs"]
mod shop;
mod support;

use sessions_tests::{
    Client,
    servers::{Kind, RedisCluster, RedisSentinels, StoreServer},
};

use crate::{
    shop::{LISTENS, shop},
    support::Program,
};

const COOKIE: &str = "__Host-id";

/// What somebody has looked at is still known after the shop has been started again; `between` is
/// what happens while it is down.
async fn outlive_the_shop(store: &str, between: impl FnOnce()) {
    let keys = "c2Vzc2lvbnMgb2YgYSB0ZXN0LCBub3Qgb2YgYSBzaG9wIQ==";
    let shop = || {
        let mut command = shop();
        command.args(["--store", store]).env("SESSION_KEYS", keys);
        Program::start(&mut command, LISTENS)
    };
    let (first, address) = shop();
    let browser = Client::new(address);
    browser.get("/products/teapot").await.text();
    assert!(browser.get("/session").await.text().contains("teapot"), "{store}");
    assert_eq!(first.terminate(), Some(0));
    between();

    let (_second, address) = shop();
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, browser.cookie(COOKIE).as_deref());
    assert!(same_browser.get("/session").await.text().contains("teapot"), "{store}");
}

/// Those that are durable outlive a server that is killed as well.
async fn outlive_both(kind: Kind) {
    let Some(mut server) = StoreServer::start(kind) else { return };
    outlive_the_shop(&server.url(), || {
        server.kill();
        server.restart();
    })
    .await;
}

/// `host:port` of each, as the shop is told.
fn hosts(urls: Vec<String>) -> String {
    let hosts = urls.iter().map(|url| url.strip_prefix("redis://").expect("a server's URL"));
    hosts.collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn sessions_in_redis_outlive_shop_and_server() {
    outlive_both(Kind::Redis).await;
}

#[tokio::test]
async fn sessions_in_postgres_outlive_shop_and_server() {
    outlive_both(Kind::Postgres).await;
}

#[tokio::test]
async fn sessions_in_mariadb_outlive_shop_and_server() {
    outlive_both(Kind::MariaDb).await;
}

#[tokio::test]
async fn sessions_in_memcached_outlive_the_shop() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    outlive_the_shop(&server.url(), || {}).await;
}

#[tokio::test]
async fn sessions_in_a_cluster_outlive_the_shop() {
    let Some(cluster) = RedisCluster::start() else { return };
    outlive_the_shop(&format!("redis-cluster://{}", hosts(cluster.urls())), || {}).await;
}

#[tokio::test]
async fn sessions_behind_sentinel_outlive_the_shop() {
    let Some(servers) = RedisSentinels::start() else { return };
    let (hosts, name) = (hosts(servers.urls()), RedisSentinels::MASTER);
    outlive_the_shop(&format!("redis-sentinel://{hosts}/{name}"), || {}).await;
}
