//! Real servers for stores: each on a free loopback port, with its files in a folder of its own,
//! for as long as the value lives.
//!
//! Where a program is not installed, the tests that need it say so and pass;
//! `SESSIONS_TEST_STORES=1` demands them all, and `SESSIONS_TEST_STORES=0` leaves them out.
//!
//! Another server that speaks the same is tested where its program is named:
//! `SESSIONS_TEST_REDIS_SERVER=valkey-server` in place of `redis-server`,
//! `SESSIONS_TEST_MYSQLD=mysqld` (MySQL's own) in place of `mariadbd`.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write, stderr},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a server may take to start: a machine that runs tests may be slow, and does other things as well.
const PATIENCE: Duration = Duration::from_secs(90);

/// Names a program to start in place of `redis-server`.
const REDIS_SERVER: &str = "SESSIONS_TEST_REDIS_SERVER";

/// Names MySQL's program, to be started in place of MariaDB's.
const MYSQLD: &str = "SESSIONS_TEST_MYSQLD";

/// Keeps MySQL away from a folder that only its own user can read.
const NO_FILES: &str = "--secure-file-priv=NULL";

/// Where, in its folder, a PostgreSQL looks for the languages that it speaks.
const LOCALES: &str = "locales";

/// Debian's `nobody`: servers that refuse to run as root do so as this.
const NOBODY: u32 = 65534;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `redis-server` that writes every command to the disk before it answers.
    Redis,
    /// One node of a Redis cluster.
    RedisNode,
    /// A Redis Sentinel; `more` are lines of its file.
    RedisSentinel,
    /// PostgreSQL, database `postgres`.
    Postgres,
    /// MariaDB (or MySQL, if its program is named), database `test`.
    MariaDb,
    /// `memcached`.
    Memcached,
    /// PgBouncer, in transaction mode; `more` are lines of its file, of which the first say where its
    /// databases are.
    PgBouncer,
    /// Pgpool-II, in raw mode; `more` are lines of its file.
    Pgpool,
}

impl Kind {
    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Redis | Self::RedisNode | Self::RedisSentinel => {
                find(&env::var(REDIS_SERVER).unwrap_or("redis-server".into()))
            }
            Self::Postgres => postgres_program("postgres"),
            Self::MariaDb => find(&env::var(MYSQLD).unwrap_or("mariadbd".into())),
            Self::Memcached => find("memcached"),
            Self::PgBouncer => find("pgbouncer"),
            Self::Pgpool => find("pgpool"),
        }
    }

    /// Makes the folder of data that some servers need before their first start.
    fn prepare(self, program: &Path, folder: &Path) {
        let data_of_mysql = format!("--datadir={}", folder.join("data").display());
        let mut command = match self {
            Self::Postgres => {
                let mut command = Command::new(postgres_program("initdb").expect("initdb"));
                command.args(["--auth=trust", "--username=postgres", "--no-sync", "--no-locale"]);
                command.args(["--encoding=UTF8", "--pgdata"]).arg(folder.join("data"));
                command
            }
            Self::MariaDb if is_mysql() => {
                let file = folder.join("init.sql");
                let words = "CREATE DATABASE test;\nCREATE USER root@127.0.0.1;\n\
                             GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION;\n";
                fs::write(&file, words).expect("a folder of ours");
                let mut command = Command::new(program);
                command.args(["--no-defaults", "--initialize-insecure", NO_FILES, &data_of_mysql]);
                command.arg(format!("--init-file={}", file.display()));
                command
            }
            Self::MariaDb => {
                let mut command = Command::new(find("mariadb-install-db").expect("its installer"));
                let method = "--auth-root-authentication-method=normal";
                command.args(["--no-defaults", method, &data_of_mysql]);
                command.arg(own_tmpdir(folder));
                command
            }
            _ => return,
        };
        command.current_dir(folder).stdin(Stdio::null());
        command.stdout(log(folder)).stderr(log(folder));
        as_nobody(&mut command);
        let status = command.status().expect("the program starts");
        assert!(status.success(), "{self:?} makes its folder: {}", read_log(folder));
    }

    fn command(self, program: &Path, folder: &Path, port: u16, more: &[&str]) -> Command {
        let mut command = Command::new(program);
        let (data, port_text) = (folder.join("data"), port.to_string());
        match self {
            Self::Redis | Self::RedisNode => {
                command.args(["--port", &port_text, "--bind", "127.0.0.1", "--save", ""]);
                command.args(["--appendonly", "yes", "--dir"]).arg(folder);
                let sync = if self == Self::Redis { "always" } else { "everysec" };
                command.args(["--appendfsync", sync]);
            }
            Self::RedisSentinel => {
                // A sentinel keeps what it learns in this file.
                let file = folder.join("sentinel.conf");
                if !file.exists() {
                    let lines = format!("port {port}\nbind 127.0.0.1\n{}\n", more.join("\n"));
                    fs::write(&file, lines).expect("a folder of ours");
                }
                command.arg(file).arg("--sentinel");
            }
            Self::Postgres => {
                command.args(["-p", &port_text, "-h", "127.0.0.1", "-k"]).arg(folder);
                command.env("LOCPATH", folder.join(LOCALES));
                command.args(["-c", "max_connections=100", "-c", "shared_buffers=32MB"]);
                command.args(["-c", "shared_preload_libraries=pg_stat_statements", "-D"]);
                command.arg(data);
            }
            Self::MariaDb => {
                let socket = folder.join("socket");
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
                command.arg("--innodb-buffer-pool-size=32M");
                // MySQL takes no connections without grants, and has a second port.
                let own: &[&str] = match is_mysql() {
                    true => &["--mysqlx=OFF", NO_FILES],
                    false => &["--skip-grant-tables"],
                };
                command.args(own);
                command.arg(format!("--datadir={}", data.display()));
                command.arg(format!("--socket={}", socket.display()));
                command.arg(format!("--pid-file={}", folder.join("pid").display()));
                command.arg(format!("--port={port}"));
                command.arg(own_tmpdir(folder));
            }
            Self::Memcached => {
                command.args(["-l", "127.0.0.1", "-p", &port_text, "-U", "0", "-u", "nobody"]);
            }
            Self::PgBouncer => {
                let file = folder.join("pgbouncer.ini");
                let own = format!(
                    "listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                     auth_type = any\npool_mode = transaction\n"
                );
                let lines = format!("[databases]\n{}\n{own}", more.join("\n"));
                fs::write(&file, lines).expect("a folder of ours");
                command.arg(file);
            }
            Self::Pgpool => {
                let (file, own) = (folder.join("pgpool.conf"), folder.display());
                let lines = format!(
                    "backend_clustering_mode = 'raw'\nlisten_addresses = '127.0.0.1'\nport = {port}\n\
                     socket_dir = '{own}'\npcp_listen_addresses = ''\npcp_socket_dir = '{own}'\n\
                     pid_file_name = '{own}/pid'\nlogdir = '{own}'\nmemqcache_oiddir = '{own}'\n\
                     pool_passwd = ''\nenable_pool_hba = off\nnum_init_children = 16\n\
                     max_pool = 1\n{}\n",
                    more.join("\n")
                );
                fs::write(&file, lines).expect("a folder of ours");
                for name in ["pcp.conf", "pool_hba.conf"] {
                    fs::write(folder.join(name), "").expect("a folder of ours");
                }
                command.arg("-n").arg("-f").arg(file).arg("-F").arg(folder.join("pcp.conf"));
                command.arg("-a").arg(folder.join("pool_hba.conf"));
            }
        }
        if !matches!(self, Self::RedisSentinel | Self::PgBouncer | Self::Pgpool) {
            command.args(more);
        }
        command.current_dir(folder).stdin(Stdio::null());
        command.stdout(log(folder)).stderr(log(folder));
        if matches!(self, Self::Postgres | Self::MariaDb | Self::PgBouncer | Self::Pgpool) {
            as_nobody(&mut command);
        }
        command
    }

    /// Whether a server answers there.
    fn answers(self, port: u16) -> bool {
        if self == Self::Postgres {
            let mut command = Command::new(postgres_program("pg_isready").expect("pg_isready"));
            command.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            return command.status().expect("it starts").success();
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        let second = Some(Duration::from_secs(1));
        stream.set_read_timeout(second).expect("a time that is not zero");
        if matches!(self, Self::PgBouncer | Self::Pgpool) {
            // Asked for TLS, it says no.
            let mut answer = [0];
            let asked = stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).is_ok();
            return asked && stream.read_exact(&mut answer).is_ok() && answer == *b"N";
        }
        let (question, answer): (&[u8], &[u8]) = match self {
            Self::Redis | Self::RedisNode | Self::RedisSentinel => (b"PING\r\n", b"+PONG"),
            Self::Memcached => (b"version\r\n", b"VERSION"),
            // Speaks first: a length of three bytes, 0, and the protocol's version.
            Self::MariaDb | Self::Postgres | Self::PgBouncer | Self::Pgpool => (b"", b""),
        };
        let mut bytes = [0; 5];
        let heard = stream.write_all(question).is_ok() && stream.read_exact(&mut bytes).is_ok();
        match self {
            Self::MariaDb => heard && bytes[4] == 10,
            _ => heard && bytes == answer[..5],
        }
    }
}

/// A server, until it is dropped.
#[derive(Debug)]
pub struct StoreServer {
    kind: Kind,
    port: u16,
    folder: Folder,
    more: Vec<String>,
    child: Child,
}

impl StoreServer {
    /// Starts one; `None`, and a word about it, where it is not installed or not wanted.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// The same with more arguments.
    pub fn start_with(kind: Kind, more: &[&str]) -> Option<Self> {
        let program = wanted(kind)?;
        let mut folder = Folder::new();
        kind.prepare(&program, &folder.path);
        // Between the search for a free port and its use somebody else can take it.
        for _ in 0..5 {
            let port = free_port();
            let own: Vec<String> = match kind {
                // Beside its port a node has another for the others.
                Kind::RedisNode => vec!["--cluster-port".into(), free_port().to_string()],
                _ => vec![],
            };
            let more: Vec<String> = more.iter().map(|word| word.to_string()).chain(own).collect();
            let words: Vec<&str> = more.iter().map(String::as_str).collect();
            let child = kind.command(&program, &folder.path, port, &words).spawn();
            let mut server = Self { kind, port, folder, more, child: child.expect("it starts") };
            if server.wait() {
                return Some(server);
            }
            folder = server.into_folder();
            // This file has the port that was taken.
            let _ = fs::remove_file(folder.path.join("sentinel.conf"));
        }
        panic!("{kind:?} does not start: {}", read_log(&folder.path));
    }

    /// PgBouncer before a PostgreSQL, with that many connections to it and more lines of settings.
    pub fn start_pooler(server: &Self, connections: u32, more: &[&str]) -> Option<Self> {
        let database = format!("* = host=127.0.0.1 port={} user=postgres", server.port);
        let size = format!("default_pool_size = {connections}");
        let lines = [&[&database, "[pgbouncer]", "max_client_conn = 500", &size], more].concat();
        Self::start_with(Kind::PgBouncer, &lines)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Gives a PostgreSQL one more language, such as `de_DE`; what it is called there. `None`, and a word about it,
    /// where the system does not know it.
    pub fn add_language(&self, name: &str) -> Option<String> {
        let (folder, full) = (self.folder().join(LOCALES), format!("{name}.UTF-8"));
        fs::create_dir_all(&folder).expect("a folder of ours");
        let mut command = Command::new("localedef");
        command.args(["-i", name, "-f", "UTF-8"]).arg(folder.join(&full));
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some(full);
        }
        let _ = writeln!(stderr(), "not tested in {name}: Debian's `locales` has it");
        None
    }

    /// What a store connects to.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::Redis | Kind::RedisNode | Kind::RedisSentinel => {
                format!("redis://127.0.0.1:{port}")
            }
            Kind::Postgres | Kind::PgBouncer | Kind::Pgpool => {
                format!("postgres://postgres@127.0.0.1:{port}/postgres")
            }
            Kind::MariaDb => format!("mysql://root@127.0.0.1:{port}/test"),
            Kind::Memcached => format!("memcached://127.0.0.1:{port}"),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if self.kind == Kind::Pgpool {
            // Its children, and the memory that it shares with them, outlive one that is killed.
            let _ = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(10) {
                if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                    return;
                }
                sleep(Duration::from_millis(20));
            }
            self.signal("KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it stand still: it keeps its connections, and takes new ones, and answers none.
    pub fn pause(&self) {
        self.signal("STOP");
        // It takes a moment until the last of its threads stands.
        sleep(Duration::from_millis(200));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// To the server and, for PostgreSQL, the processes that it has for its connections.
    fn signal(&self, name: &str) {
        let own = self.child.id().to_string();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let mut command = Command::new("kill");
        command.arg(format!("-{name}")).arg(&own).args(children.split_whitespace());
        // A child that has just ended makes `kill` complain.
        let _ = command.stderr(Stdio::null()).status();
    }

    /// Starts it again where it was, on what it has on disk.
    pub fn restart(&mut self) {
        let program = self.kind.program().expect("it was there");
        let more = self.more.clone();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let begun = Instant::now();
        loop {
            let mut command = self.kind.command(&program, &self.folder.path, self.port, &more);
            self.child = command.spawn().expect("it starts");
            if self.wait() {
                return;
            }
            // What the killed one has left behind (children of PostgreSQL, a port) goes by itself.
            assert!(begun.elapsed() < PATIENCE, "{}", read_log(&self.folder.path));
            sleep(Duration::from_millis(200));
        }
    }

    /// Whether it answers; `false` if it has ended.
    fn wait(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.child.try_wait().expect("our child").is_some() {
                return false;
            }
            if self.kind.answers(self.port) {
                return true;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{:?} does not answer: {}", self.kind, read_log(&self.folder.path));
    }

    fn into_folder(mut self) -> Folder {
        std::mem::replace(&mut self.folder, Folder { path: PathBuf::new() })
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        // What a failed test has left standing must be able to end.
        self.resume();
        self.kill();
    }
}

/// A Redis with a replica, watched by three sentinels, until it is dropped.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The first began as the master.
    pub servers: [StoreServer; 2],
    sentinels: Vec<StoreServer>,
}

impl RedisSentinels {
    /// The name that the sentinels know the master by.
    pub const MASTER: &str = "visitors";

    /// Starts them; `None`, and a word about it, where Redis is not installed or not wanted.
    pub fn start() -> Option<Self> {
        let master = StoreServer::start_with(Kind::Redis, &["--repl-diskless-sync-delay", "0"])?;
        let port = master.port.to_string();
        let settings = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = StoreServer::start_with(Kind::Redis, &settings)?;
        wait_for("the replica has the master's data", || {
            redis_cli(&replica, &["info", "replication"]).contains("master_link_status:up")
        });
        let name = Self::MASTER;
        let lines = [
            format!("sentinel monitor {name} 127.0.0.1 {port} 2"),
            // A server that only waits for a busy machine is not to be taken for dead.
            format!("sentinel down-after-milliseconds {name} 5000"),
            format!("sentinel failover-timeout {name} 6000"),
        ];
        let lines = lines.each_ref().map(String::as_str);
        let sentinels = (0..3).map(|_| StoreServer::start_with(Kind::RedisSentinel, &lines));
        let sentinels = sentinels.collect::<Option<Vec<_>>>()?;
        // Each knows the replica and the two others: then they can act.
        wait_for("the sentinels know each other", || {
            sentinels.iter().all(|sentinel| {
                let told = redis_cli(sentinel, &["info", "sentinel"]);
                told.contains("status=ok") && told.contains("slaves=1,sentinels=3")
            })
        });
        Some(Self { servers: [master, replica], sentinels })
    }

    /// What a store connects to.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(StoreServer::url).collect()
    }

    /// Waits until the replica has what the master had when this was called.
    pub fn wait_for_replica(&self) {
        wait_for_replica(&self.servers[0]);
    }

    /// Ends the sentinels: from here on the master stays the master.
    pub fn stop_watching(&mut self) {
        self.sentinels.clear();
    }

    /// Waits until that server says it is the replica of the other, and has its data.
    pub fn wait_until_it_follows(&self, server: usize) {
        wait_for("it is a replica", || {
            let told = redis_cli(&self.servers[server], &["info", "replication"]);
            told.contains("role:slave") && told.contains("master_link_status:up")
        });
    }
}

/// Waits as long as anybody may.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never happened: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until a master's replica has what the master had when this was called. At once, if it has
/// none.
fn wait_for_replica(master: &StoreServer) {
    let number = |info: &str, name: &str| -> Option<u64> {
        let (_, rest) = info.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let info = redis_cli(master, &["info", "replication"]);
    let written = number(&info, "master_repl_offset:").expect("Redis says where it is");
    wait_for("the replica follows", || {
        let info = redis_cli(master, &["info", "replication"]);
        let replica = info.split_once("slave0:").map(|(_, replica)| replica);
        replica.is_none_or(|replica| number(replica, "offset=") >= Some(written))
    });
}

/// A Redis cluster of three masters and three replicas, until it is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// The first three began as masters.
    pub nodes: Vec<StoreServer>,
}

impl RedisCluster {
    /// Starts one; `None`, and a word about it, where Redis is not installed or not wanted.
    pub fn start() -> Option<Self> {
        let settings = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "1500"],
            // A replica copies its master at once, and may always take over.
            ["--repl-diskless-sync-delay", "0"],
            ["--cluster-replica-validity-factor", "0"],
        ];
        let settings = settings.as_flattened();
        let nodes = (0..6).map(|_| StoreServer::start_with(Kind::RedisNode, settings));
        let nodes = nodes.collect::<Option<Vec<_>>>()?;
        let mut command = Command::new(find("redis-cli").expect("it comes with the server"));
        command.args(["--cluster", "create"]);
        command.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        command.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "the nodes form a cluster: {said}");
        let cluster = Self { nodes };
        let begun = Instant::now();
        while !cluster.nodes.iter().all(is_ready_in_cluster) {
            assert!(begun.elapsed() < PATIENCE, "the cluster gets ready: {}", cluster.describe());
            sleep(Duration::from_millis(100));
        }
        Some(cluster)
    }

    /// What a store connects to.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(StoreServer::url).collect()
    }

    /// Waits until the replicas have what their masters had when this was called.
    pub fn wait_for_replicas(&self) {
        self.nodes.iter().for_each(wait_for_replica);
    }

    /// The keys that match, on whatever node.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let lines = |node| redis_cli(node, &["keys", pattern]);
        let all: String = self.nodes.iter().map(lines).collect();
        all.lines().filter(|line| !line.is_empty()).map(String::from).collect()
    }

    /// Moves a key to another master, whose slot is as it was for all but that key, and its replicas know that.
    pub fn begin_to_move(&self, key: &str) -> SlotMove {
        let ask = |node: &StoreServer, words: &[&str]| redis_cli(node, words).trim().to_string();
        let nodes = || self.nodes.iter().enumerate();
        let has_it = |node: &StoreServer| ask(node, &["exists", key]) == "1";
        let (from, old) = nodes().find(|(_, node)| has_it(node)).expect("a master has it");
        let is_master = |node: &StoreServer| ask(node, &["role"]).starts_with("master");
        let mut others = nodes().filter(|(at, node)| *at != from && is_master(node));
        let (to, new) = others.next().expect("there is another master");
        let slot = ask(old, &["cluster", "keyslot", key]);
        let (old_id, new_id) = (ask(old, &["cluster", "myid"]), ask(new, &["cluster", "myid"]));
        for (node, words) in [
            (new, &["cluster", "setslot", &slot, "importing", &old_id][..]),
            (old, &["cluster", "setslot", &slot, "migrating", &new_id]),
            (old, &["migrate", "127.0.0.1", &new.port.to_string(), key, "0", "5000"]),
        ] {
            assert_eq!(ask(node, words), "OK", "{words:?}");
        }
        self.wait_for_replicas();
        SlotMove { slot, from, to }
    }

    /// Moves what is left in the slot, and tells the masters who has it.
    pub fn finish_move(&self, SlotMove { slot, from, to }: SlotMove) {
        let (old, new) = (&self.nodes[from], &self.nodes[to]);
        let port = new.port.to_string();
        loop {
            let left = redis_cli(old, &["cluster", "getkeysinslot", &slot, "1000"]);
            let mut words = vec!["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
            words.extend(left.lines().filter(|name| !name.is_empty()));
            if words.len() == 7 {
                break;
            }
            // "NOKEY" if another client has deleted the last of them meanwhile.
            let moved = redis_cli(old, &words);
            assert!(["OK", "NOKEY"].contains(&moved.trim()), "{moved}");
        }
        let new_id = redis_cli(new, &["cluster", "myid"]);
        let is_master = |node: &&StoreServer| redis_cli(node, &["role"]).starts_with("master");
        let others = self.nodes.iter().filter(|node| ![old.port, new.port].contains(&node.port));
        for node in [new, old].into_iter().chain(others.filter(is_master)) {
            let told = redis_cli(node, &["cluster", "setslot", &slot, "node", new_id.trim()]);
            assert_eq!(told.trim(), "OK");
        }
    }

    /// Has Valkey move the slot of a key to another master by itself, and waits until that is done. False where the server
    /// knows no such thing (Valkey does from 9.0 on).
    pub fn migrate_slot_of(&self, key: &str) -> bool {
        let ask = |node: &StoreServer, words: &[&str]| redis_cli(node, words).trim().to_string();
        let slot = ask(&self.nodes[0], &["cluster", "keyslot", key]);
        let masters = self.nodes.iter().filter(|node| ask(node, &["role"]).starts_with("master"));
        let (here, others): (Vec<_>, Vec<_>) =
            masters.partition(|node| ask(node, &["exists", key]) == "1");
        let ([from, ..], [to, ..]) = (&here[..], &others[..]) else { panic!("no master has it") };
        let id = ask(to, &["cluster", "myid"]);
        let words = ["cluster", "migrateslots", "slotsrange", &slot, &slot, "node", &id];
        let said = ask(from, &words);
        if said != "OK" {
            assert!(said.contains("unknown subcommand"), "{said}");
            return false;
        }
        wait_for("the slot has moved", || ask(to, &["exists", key]) == "1");
        true
    }

    /// What each node thinks of the cluster, and what it said last: to find out why it does not do
    /// what a test expects.
    pub fn describe(&self) -> String {
        let describe = |node: &StoreServer| {
            let log = read_log(node.folder());
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let (port, nodes) = (node.port, redis_cli(node, &["cluster", "nodes"]));
            format!("node {port}:\n{nodes}\n{}\n", tail.join("\n"))
        };
        self.nodes.iter().map(describe).collect()
    }
}

/// A slot that is being moved to another master.
pub struct SlotMove {
    slot: String,
    /// Which of the nodes.
    from: usize,
    to: usize,
}

/// Whether it sees all slots served and three replicas, and, if it is one, has its master's data:
/// one that never had them cannot take over.
fn is_ready_in_cluster(node: &StoreServer) -> bool {
    let nodes = redis_cli(node, &["cluster", "nodes"]);
    let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
    let replication = redis_cli(node, &["info", "replication"]);
    replicas == 3
        && redis_cli(node, &["cluster", "info"]).contains("cluster_state:ok")
        && (replication.contains("role:master") || replication.contains("master_link_status:up"))
}

fn redis_cli(node: &StoreServer, words: &[&str]) -> String {
    let mut command = Command::new(find("redis-cli").expect("it comes with the server"));
    let output = command.args(["-p", &node.port.to_string()]).args(words).output();
    String::from_utf8_lossy(&output.expect("it starts").stdout).into_owned()
}

/// The program of a server that shall be tested.
fn wanted(kind: Kind) -> Option<PathBuf> {
    const VARIABLE: &str = "SESSIONS_TEST_STORES";
    let why = match (env::var(VARIABLE).as_deref(), kind.program()) {
        (Ok("0"), _) => format!("{VARIABLE} is 0"),
        (Ok("1"), None) => panic!("{VARIABLE} is 1, but {kind:?} is not installed"),
        (_, None) => "it is not installed; `tests/run stores` does that".to_string(),
        (_, Some(program)) => return Some(program),
    };
    // Past the capture of the test harness: who looks at a run shall see what was not tested.
    let _ = writeln!(stderr(), "left out: tests with {kind:?}: {why}");
    None
}

/// Whether MySQL takes MariaDB's place.
pub fn is_mysql() -> bool {
    env::var_os(MYSQLD).is_some()
}

/// A program on the path or where Debian has servers.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), "/usr/bin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Debian has PostgreSQL's programs in a folder for each version; the newest.
fn postgres_program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = versions.flatten().map(|entry| entry.path());
    let newest = folders.filter(|folder| folder.join("bin").join(name).is_file());
    newest.max_by_key(version).map(|folder| folder.join("bin").join(name))
}

/// A server that starts removes what looks like its own from the folder for temporary files.
fn own_tmpdir(folder: &Path) -> String {
    format!("--tmpdir={}", folder.display())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn as_nobody(command: &mut Command) {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A new folder, which goes with the value.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
}

impl Folder {
    /// Makes one, in the folder for temporary files, that belongs to the user of the servers.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let path = env::temp_dir().join(format!("sessions-test-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        if is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may do so");
        }
        Self { path }
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

pub(crate) fn log(folder: &Path) -> File {
    let file = folder.join("log");
    File::options().create(true).append(true).open(file).expect("a folder of ours")
}

pub(crate) fn read_log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}
