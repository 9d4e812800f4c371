//! nginx before an application, on a free loopback port, for as long as the value lives.

use std::{
    env, fs,
    io::{Write, stderr},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Client,
    servers::{Folder, find, free_port, log, read_log},
};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy with a cache.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    child: Child,
    folder: Folder,
}

impl Nginx {
    /// Starts one that hands everything on to the application at `upstream`; `locations` are more
    /// locations, and `more` is said in that of `/`. Both have `UPSTREAM` in place of the
    /// application's address. `None`, and a word about it, where nginx is not installed or not wanted.
    pub fn start(upstream: SocketAddr, more: &str, locations: &str) -> Option<Self> {
        const VARIABLE: &str = "SESSIONS_TEST_STORES";
        let why = match (env::var(VARIABLE).as_deref(), find("nginx")) {
            (Ok("0"), _) => format!("{VARIABLE} is 0"),
            (Ok("1"), None) => panic!("{VARIABLE} is 1, but nginx is not installed"),
            (_, None) => "it is not installed; `tests/run stores` does that".to_string(),
            (_, Some(program)) => {
                // Between the search for a free port and its use somebody else can take it.
                let started =
                    (0..5).find_map(|_| Self::try_start(&program, upstream, more, locations));
                return Some(started.expect("nginx starts"));
            }
        };
        // Past the capture of the test harness: who looks at a run shall see what was not tested.
        let _ = writeln!(stderr(), "left out: tests with nginx: {why}");
        None
    }

    fn try_start(
        program: &std::path::Path,
        upstream: SocketAddr,
        more: &str,
        locations: &str,
    ) -> Option<Self> {
        let (folder, port) = (Folder::new(), free_port());
        let path = folder.path.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        // One process, which is the one that is ended.
        let lines = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\naccess_log off;\n{temporary}\
             proxy_cache_path {path}/cache levels=1:2 keys_zone=pages:1m;\n\
             server {{\nlisten 127.0.0.1:{port};\n\
             add_header X-Cache $upstream_cache_status always;\n\
             location / {{ proxy_pass http://UPSTREAM; proxy_cache pages; {more} }}\n\
             {locations}\n}}\n}}\n"
        );
        let file = folder.path.join("nginx.conf");
        fs::write(&file, lines.replace("UPSTREAM", &upstream.to_string()))
            .expect("a folder of ours");
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder.path).arg("-e").arg(folder.path.join("log"));
        command.arg("-c").arg(file).stdin(Stdio::null());
        command.stdout(log(&folder.path)).stderr(log(&folder.path));
        let child = command.spawn().expect("it starts");
        let mut nginx = Self { port, child, folder };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if nginx.child.try_wait().expect("our child").is_some() {
                eprintln!("{}", nginx.log());
                return None;
            }
            if TcpStream::connect(nginx.address()).is_ok() {
                return Some(nginx);
            }
            sleep(Duration::from_millis(20));
        }
        panic!("nginx does not answer: {}", nginx.log());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A browser without cookies that looks at the application through it.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// What it had to say.
    pub fn log(&self) -> String {
        read_log(&self.folder.path)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
