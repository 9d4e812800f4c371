//! A small shop, to see sessions at work: a cart, a theme, what was viewed last, accounts with all
//! the devices that they are used on, and a page that shows the session itself. `cargo run -p sessions-examples -- --help` tells how to start it.

mod accounts;
mod catalogue;
mod customer;
mod pages;
mod session;
mod shop;
mod store;

use std::{
    env,
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use sessions::{Keys, MemoryStore};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    time::sleep,
};
use tracing_subscriber::EnvFilter;

use crate::{accounts::Accounts, shop::Shop, store::Store};

const HELP: &str = "\
A small shop that keeps its carts in sessions. Customers can sign up, log in, be
remembered, see where they are logged in, and log out everywhere else.

Usage: shop [--port N] [--store STORE] [--insecure] [--recent-login SECONDS]

  --port N        listen on 127.0.0.1:N instead of 3000; 0 takes any free port
  --store STORE   where to keep the sessions:
                    memory       in this process; the default
                    cookie       each in its cookie, encrypted; requests that
                                 overlap do not share it, so the race is lost
                    sqlite:PATH  in a file, which is made if there is none
                    postgres://…, mysql://…, redis://…, memcached://…
                                 on a server; a table is made where it takes one
                    redis-cluster://HOST:PORT,HOST:PORT
                                 in a Redis Cluster: some of its servers
                    redis-sentinel://HOST:PORT,HOST:PORT/NAME
                                 in the Redis that these sentinels call NAME
                  With `cookie` the shop cannot tell where a customer is
                  logged in.
  --insecure      send the cookie without `Secure`, for browsers that drop
                  such a cookie over plain HTTP: Safari and other WebKit
  --recent-login SECONDS
                  how old a login may be at the checkout before it asks for the
                  password again, instead of 600
  --help          show this

Accounts are kept in memory, whatever the store: they end with the shop.

Environment:
  SESSION_KEYS   the keys that sign cookies, in base64, separated by commas,
                 the newest first; `openssl rand -base64 32` makes one
  RUST_LOG       what to log, as in `info` (the default) or `sessions=debug`";

/// Behind the address, in one write: a program that waits for the address may read no further.
const WEBKIT: &str = "
Safari and other WebKit drop its cookie over plain HTTP; for them there is --insecure.";

#[derive(Debug, PartialEq)]
enum Command {
    Serve(Options),
    Help,
}

#[derive(Debug, PartialEq)]
struct Options {
    port: u16,
    store: Store,
    insecure: bool,
    recent_login: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let recent_login = Duration::from_secs(10 * 60);
        Self { port: 3000, store: Store::Memory, insecure: false, recent_login }
    }
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--insecure" => options.insecure = true,
            "--port" => {
                let number = arguments.next().ok_or("--port needs a number")?;
                options.port = number
                    .parse()
                    .map_err(|_| format!("--port needs a number up to 65535, not `{number}`"))?;
            }
            "--store" => {
                let word = arguments.next().unwrap_or_default();
                options.store = Store::parse(&word).ok_or(
                    "--store needs `memory`, `cookie`, `sqlite:PATH` or a URL of `postgres`, \
                     `mysql`, `redis`, `redis-cluster`, `redis-sentinel` or `memcached`",
                )?;
            }
            "--recent-login" => {
                let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
                let seconds = seconds.ok_or("--recent-login needs a number of seconds")?;
                options.recent_login = Duration::from_secs(seconds);
            }
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok(Command::Serve(options))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let outcome = match parse(arguments) {
        Ok(Command::Serve(options)) => serve(options).await,
        Ok(Command::Help) => say(HELP),
        Err(message) => {
            eprintln!("shop: {message}\nTry `shop --help`.");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("shop: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), String> {
    let Options { port, store, insecure, recent_login } = options;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();

    // A clone is the same store: this one is kept to stop its sweep in the end.
    let memory = MemoryStore::builder().with_capacity(100_000).build();
    let mut settings = store.open(&memory, keys()?).await.map_err(with_cause)?;
    if insecure {
        settings = settings.insecure_plain_http();
    }
    let layer = settings.build().map_err(text)?;
    let (stops, stopping) = watch::channel(());
    let shop = Shop {
        stopping,
        accounts: Arc::new(Accounts::new().map_err(text)?),
        devices: layer.user_sessions().ok(),
        recent_login,
    };

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        format!("cannot listen on 127.0.0.1:{port}: {error}\nTry another port: `shop --port N`.")
    })?;
    let address = listener.local_addr().map_err(text)?;
    let stop = stop_signal().map_err(text)?;
    let hint = if insecure { "" } else { WEBKIT };
    say(&format!("shop listens on http://{address}{hint}"))?;

    let app = shop::router(shop).map_err(text)?.layer(layer.clone());
    serve_until(stop, stops, listener, app).await.map_err(text)?;

    // The order matters: no request is left to write, then everything written is in the store, then
    // nothing of the store runs any more.
    layer.wait_for_background_saves().await;
    memory.stop_sweep().await;
    tracing::info!("stopped");
    Ok(())
}

fn keys() -> Result<Keys, String> {
    const VARIABLE: &str = "SESSION_KEYS";
    if env::var_os(VARIABLE).is_some() {
        return Keys::from_env(VARIABLE).map_err(text);
    }
    tracing::info!("{VARIABLE} is not set: the cookies' key was generated, and ends with the shop");
    Ok(Keys::generate())
}

/// Serves until told to stop, and then lets the requests that have come finish, for at most ten
/// seconds.
async fn serve_until(
    stop: impl Future<Output = ()> + Send + 'static,
    stops: watch::Sender<()>,
    listener: TcpListener,
    app: axum::Router,
) -> io::Result<()> {
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    // The accounts page shows the address that a login came from.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        told.notify_one();
        // Pages that are open listen as long as there is a shop.
        let _ = stops.send(());
    });
    let too_long = async {
        stopping.notified().await;
        sleep(Duration::from_secs(10)).await;
    };
    tokio::select! {
        ended = server => ended,
        () = too_long => {
            tracing::warn!("some connections were still open after ten seconds");
            Ok(())
        }
    }
}

/// Is ready on Ctrl-C, or on the signal that `kill`, systemd and containers send. Listens for them
/// from the call on, not only once it is polled.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// A line on the standard output, or several in one write, at once, for programs that wait for the line.
fn say(line: &str) -> Result<(), String> {
    let mut out = io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).map_err(text)
}

/// An error, and what it comes from: that is where a server's words are.
fn with_cause(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::{Command::*, *};

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments() {
        assert_eq!(parsed(""), Ok(Serve(Options::default())));
        let recent_login = Duration::from_secs(5);
        let other = Options { port: 0, store: Store::Cookie, insecure: true, recent_login };
        let line = "--insecure --port 0 --store cookie --recent-login 5";
        assert_eq!(parsed(line), Ok(Serve(other)));
        assert_eq!(parsed("--port 1 --help"), Ok(Help));
        for wrong in [
            "--port",
            "--port 65536",
            "--port x",
            "3000",
            "--insecure=1",
            "--store",
            "--store x",
            "--recent-login x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
