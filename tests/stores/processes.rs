//! Four processes on one store, killed at random.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use sessions_tests::{
    Client, at_once,
    cases::variable,
    eventually,
    history::{NEAR_STALENESS, Plan, Process, Random, judge, run},
    servers::{Folder, Kind, RedisCluster, StoreServer, free_port},
};
use tokio::time::sleep;

const PROCESSES: usize = 4;
/// Base64 of 32 bytes: all of them have the same key.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How many increments each way is tested with. `SESSIONS_CASES=1000` for more.
fn increments() -> usize {
    variable("SESSIONS_CASES").unwrap_or(200) as usize
}

/// A process, started again whenever it has been killed.
struct Server {
    url: String,
    address: SocketAddr,
    child: Mutex<Child>,
}

impl Server {
    async fn start(url: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Mutex::new(spawn(url, address));
        let server = Self { url: url.to_string(), address, child };
        server.answers().await;
        server
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    async fn answers(&self) {
        eventually("the process answers", async || {
            self.client().try_get_with("/show", &[]).await.is_some()
        })
        .await;
    }

    /// SIGKILL: nothing can be saved any more.
    fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        *child = spawn(&self.url, self.address);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(url: &str, address: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_history-server"))
        .args([url, &address.port().to_string(), KEY])
        .stdin(Stdio::null())
        .spawn()
        .expect("the program is built with the tests")
}

/// Whatever was acknowledged is there, however often the processes die in the middle; and increments
/// of all of them are exact.
async fn survive_kills(url: &str) {
    let is_near = url.starts_with("near");
    let staleness = if is_near { NEAR_STALENESS } else { Duration::ZERO };
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        servers.push(Server::start(url).await);
    }
    let servers = Arc::new(servers);
    count_exactly(&servers).await;

    let is_over = AtomicBool::new(false);
    let kill = async {
        let (mut random, mut kills) = (Random(1), 0);
        while !is_over.load(SeqCst) {
            sleep(Duration::from_millis(100 + random.below(300))).await;
            let server = &servers[random.below(PROCESSES as u64) as usize];
            server.kill();
            server.answers().await;
            kills += 1;
        }
        kills
    };
    let plan = Plan { seed: 1, sessions: 6, clients: 4, requests: 60, hang_ups: 20, ends: 5 };
    let processes: Vec<_> = servers.iter().map(|it| Process::There(it.client())).collect();
    let play = run(&plan, &processes, async || {
        is_over.store(true, SeqCst);
        // A lease of a process that has died is waited for.
        sleep(Duration::from_secs(2)).await;
        for server in &*servers {
            server.answers().await;
            eventually("it is quiet", async || server.client().get("/quiet").await.text() == "0")
                .await;
        }
    });
    let (histories, kills) = tokio::join!(play, kill);
    assert!(kills > 3, "only {kills} were killed");
    judge("four processes", &histories, staleness);
}

/// From four processes at once: `update`, plain setters of a field with `merge = add`, and `lock`.
async fn count_exactly(servers: &Arc<Vec<Server>>) {
    let first = servers[0].client();
    first.get("/begin/7").await.text();
    let cookie = first.cookie("__Host-id").expect("a session");
    let count = increments();
    for path in ["/update", "/add", "/lock"] {
        // As many clients at once as four processes may have.
        at_once(40, |client| {
            let (servers, cookie) = (servers.clone(), cookie.clone());
            async move {
                for number in (client..count).step_by(40) {
                    let client = servers[number % PROCESSES].client();
                    client.set_cookie("__Host-id", Some(&cookie));
                    assert_eq!(client.get(path).await.text(), "done");
                }
            }
        })
        .await;
    }
    let shown = first.get("/show").await;
    assert_eq!(shown.text(), format!("7 {count} {count} {count} 0 0 0 []"));
    first.get("/destroy").await.text();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_sqlite_file() {
    let folder = Folder::new();
    survive_kills(&format!("sqlite:{}", folder.path.join("sessions.db").display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_postgres() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    survive_kills(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_mariadb() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    survive_kills(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_redis() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    survive_kills(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_with_near_caches_on_one_redis() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    survive_kills(&format!("near:{}", server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_with_near_caches_on_one_postgres() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    survive_kills(&format!("near-{}", server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_redis_cluster() {
    let Some(cluster) = RedisCluster::start() else { return };
    survive_kills(&format!("cluster:{}", cluster.urls().join(","))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_with_near_caches_on_one_redis_cluster() {
    let Some(cluster) = RedisCluster::start() else { return };
    survive_kills(&format!("near-cluster:{}", cluster.urls().join(","))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_memcached() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    survive_kills(&server.url()).await;
}
