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

/// A certificate of `localhost`, signed with its own key, made by `openssl`.
#[derive(Debug)]
pub struct Certificate {
    folder: Folder,
    /// What Chromium knows the key by, to take it without a complaint
    /// (`--ignore-certificate-errors-spki-list`).
    pub key_hash: String,
}

impl Certificate {
    /// A new one.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let folder = Folder::new();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-euc", script]).current_dir(&folder.path).stderr(Stdio::null());
            let output = command.output().expect("a shell");
            assert!(output.status.success(), "`openssl` makes no certificate: is it installed?");
            String::from_utf8(output.stdout).expect("text")
        };
        shell(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem",
        );
        let key_hash = shell(
            "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | \
             openssl dgst -sha256 -binary | openssl base64",
        );
        Self { folder, key_hash: key_hash.trim().to_string() }
    }
}

/// A proxy with a cache.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    child: Child,
    folder: Folder,
}

impl Nginx {
    /// Starts one with TLS before the application at `upstream`, for tests in a browser. `None`, and a word
    /// about it, where nginx is not installed and no browser is demanded.
    pub fn start_with_tls(upstream: SocketAddr, certificate: &Certificate) -> Option<Self> {
        const VARIABLE: &str = "SESSIONS_TEST_BROWSER";
        let Some(program) = find("nginx") else {
            let is_demanded = env::var(VARIABLE).is_ok_and(|value| value == "1");
            assert!(!is_demanded, "{VARIABLE} is 1, but nginx is not installed");
            let _ = writeln!(stderr(), "left out: tests with nginx: it is not installed");
            return None;
        };
        let path = certificate.folder.path.display();
        let tls =
            format!(" ssl;\nssl_certificate {path}/cert.pem;\nssl_certificate_key {path}/key.pem");
        let more = "proxy_set_header Host $http_host;";
        let started = (0..5).find_map(|_| Self::try_start(&program, upstream, more, "", &tls));
        Some(started.expect("nginx starts"))
    }

    /// Starts one that hands everything on to the application at `upstream`; `locations` are more
    /// locations, and `more` is said in that of `/`, unless `locations` have one for `/` themselves. Both have
    /// `UPSTREAM` in place of the application's address. The variable `$session` is the cookie `__Host-id`.
    /// `None`, and a word about it, where nginx is not installed or not wanted.
    pub fn start(upstream: SocketAddr, more: &str, locations: &str) -> Option<Self> {
        const VARIABLE: &str = "SESSIONS_TEST_STORES";
        let why = match (env::var(VARIABLE).as_deref(), find("nginx")) {
            (Ok("0"), _) => format!("{VARIABLE} is 0"),
            (Ok("1"), None) => panic!("{VARIABLE} is 1, but nginx is not installed"),
            (_, None) => "it is not installed; `tests/run stores` does that".to_string(),
            (_, Some(program)) => {
                // Between the search for a free port and its use somebody else can take it.
                let started =
                    (0..5).find_map(|_| Self::try_start(&program, upstream, more, locations, ""));
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
        tls: &str,
    ) -> Option<Self> {
        let (folder, port) = (Folder::new(), free_port());
        let path = folder.path.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        let everything = match locations.contains("location / {") {
            true => String::new(),
            false => {
                format!("location / {{ proxy_pass http://UPSTREAM; proxy_cache pages; {more} }}\n")
            }
        };
        // One process, which is the one that is ended.
        let lines = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\naccess_log off;\n{temporary}\
             proxy_cache_path {path}/cache levels=1:2 keys_zone=pages:1m;\n\
             map $http_cookie $session {{ \"~(?:^|; )__Host-id=([^;]*)\" $1; }}\n\
             server {{\nlisten 127.0.0.1:{port}{tls};\n\
             add_header X-Cache $upstream_cache_status always;\n\
             {everything}{locations}\n}}\n}}\n"
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
