//! A process of its own for `processes.rs`, which kills it at random: `history-server STORE PORT
//! KEY`.

use std::{env, time::Duration};

use axum::{Router, routing::get};
use sessions::{
    Keys, MemcachedStore, MySqlStore, PostgresStore, RedisStore, SessionLayer, SessionLayerBuilder,
    SqliteStore, StoreError, store::NearCache,
};
use sessions_tests::history::{HistorySession, NEAR_STALENESS, routes};
use tokio::net::TcpListener;

async fn builder(url: &str, keys: Keys) -> Result<SessionLayerBuilder<HistorySession>, StoreError> {
    Ok(match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "sqlite" => {
            let store = SqliteStore::connect(url).await?;
            store.migrate().await?;
            SessionLayer::builder(store, keys)
        }
        "postgres" => {
            let store = PostgresStore::connect(url).await?;
            store.migrate().await?;
            SessionLayer::builder(store, keys)
        }
        "mysql" => {
            let store = MySqlStore::connect(url).await?;
            store.migrate().await?;
            SessionLayer::builder(store, keys)
        }
        "redis" => SessionLayer::builder(RedisStore::connect(url).await?, keys),
        // The same with a near cache.
        "near" => {
            let store = RedisStore::connect(&url["near:".len()..]).await?;
            let near =
                NearCache::builder().with_staleness(NEAR_STALENESS).build(store).expect("it tells");
            SessionLayer::builder(near, keys)
        }
        "near-postgres" => {
            let store = PostgresStore::builder().with_notifications();
            let store = store.connect(&url["near-".len()..]).await?;
            store.migrate().await?;
            let near = NearCache::builder().with_staleness(NEAR_STALENESS).build(store);
            SessionLayer::builder(near.expect("it tells"), keys)
        }
        "near-cluster" => {
            let nodes: Vec<&str> = url["near-cluster:".len()..].split(',').collect();
            let store = RedisStore::connect_cluster(&nodes).await?;
            let near = NearCache::builder().with_staleness(NEAR_STALENESS).build(store);
            SessionLayer::builder(near.expect("it tells"), keys)
        }
        // The URLs of its nodes.
        "cluster" => {
            let nodes: Vec<&str> = url["cluster:".len()..].split(',').collect();
            SessionLayer::builder(RedisStore::connect_cluster(&nodes).await?, keys)
        }
        "memcached" => SessionLayer::builder(MemcachedStore::connect(url).await?, keys),
        other => panic!("no store `{other}`"),
    })
}

// One thread: what a request discards must not be saved by another one between its guard and its
// `discard`, which is no fault of the library's.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [url, port, key] = [1, 2, 3].map(|at| env::args().nth(at).expect("STORE PORT KEY"));
    let keys = Keys::from_base64(&key).expect("a key");
    let builder = builder(&url, keys).await.expect("the store answers");
    let layer = builder.with_lease_time(Duration::from_millis(600)).build().expect("settings");
    let quiet = layer.clone();
    let app: Router = routes().layer(layer).route(
        "/quiet",
        get(async move || {
            quiet.wait_for_background_saves().await;
            quiet.sessions_in_use().to_string()
        }),
    );
    let address = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind(address).await.expect("the port is free");
    axum::serve(listener, app).await.expect("it runs until it is killed");
}
