//! How many locked instructions a request executes, those that a processor's cores have to agree on: `cargo run
//! --release -p sessions-benches --bin locked`. Needs valgrind, objdump and an x86-64 processor.
//!
//! Each lock that is taken or given back, and each count of an `Arc`, is one, and takes as long as some dozens of
//! usual instructions, also where no other core is near. As with instructions in all, the count is the same in every run.
//!
//! With a peer's number and a route's number it says in which functions they are.

use std::{
    collections::{HashMap, HashSet},
    process::Command,
};

use sessions_benches::{
    client::{ROUTES, Random, call, fill_many, requests},
    peers::Peer,
    table,
    valgrind::{Executed, executed},
};

const REQUESTS: usize = 1_000;
/// Few enough that their slots rest, and many, whose slots are made anew.
const SESSIONS: [usize; 2] = [100, 5_000];

#[tokio::main(flavor = "current_thread")]
async fn serve(peer: Peer, route: usize, count: usize, sessions: usize) {
    let mut app = peer.app().await;
    let cookies = fill_many(&mut app, sessions).await;
    let made = requests(ROUTES[route].1, &cookies, &mut Random(1), 2 * REQUESTS);
    for request in made.into_iter().take(count) {
        drop(call(&mut app, request).await);
    }
}

/// The addresses of this program's locked instructions, and that of its `main`.
fn locked_instructions() -> (HashSet<u64>, u64) {
    let program = std::env::current_exe().expect("a path");
    let listing = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(program)
        .output()
        .expect("objdump is installed");
    let listing = String::from_utf8_lossy(&listing.stdout);
    let (mut locked, mut main) = (HashSet::new(), None);
    for line in listing.lines() {
        if let Some(address) = line.strip_suffix(" <main>:") {
            main = u64::from_str_radix(address, 16).ok();
        }
        let Some((address, instruction)) = line.split_once(":\t") else { continue };
        // An exchange with memory is locked without saying so.
        let is_exchange = || instruction.starts_with("xchg") && instruction.contains('(');
        if instruction.starts_with("lock ") || is_exchange() {
            locked.insert(u64::from_str_radix(address.trim(), 16).expect("an address"));
        }
    }
    (locked, main.expect("a program has a `main`"))
}

/// The locked instructions of one request, by function.
fn locked(peer: usize, route: usize, sessions: usize) -> HashMap<String, f64> {
    let (locked, main) = locked_instructions();
    let run = |count| executed(&[peer, route, count, sessions]);
    let (Executed { main: at, counts: fewer }, more) = (run(REQUESTS), run(2 * REQUESTS));
    let mut by_function = HashMap::new();
    for ((function, address), count) in more.counts {
        // The system has put the program somewhere.
        if locked.contains(&(address + main - at)) {
            let before = fewer.get(&(function.clone(), address)).copied().unwrap_or_default();
            let executed = count as f64 - before as f64;
            *by_function.entry(function).or_default() += executed / REQUESTS as f64;
        }
    }
    by_function
}

fn main() {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|argument| argument.parse().expect("numbers")).collect();
    match arguments[..] {
        [peer, route, count, sessions] => return serve(Peer::ALL[peer], route, count, sessions),
        [peer, route] => {
            let mut functions: Vec<_> = locked(peer, route, SESSIONS[0]).into_iter().collect();
            functions.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            for (function, count) in functions.into_iter().filter(|(_, count)| *count >= 0.05) {
                println!("{count:5.1} {function}");
            }
            return;
        }
        _ => {}
    }
    println!("Locked instructions of a request.");
    let names = Peer::ALL.map(Peer::name);
    table::head(&[&["the handler", "stored"], &names[..]].concat());
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        for sessions in SESSIONS {
            let counts = (0..names.len()).map(|peer| {
                let count: f64 = locked(peer, route, sessions).values().sum();
                format!("{count:.0}")
            });
            table::row([what.to_string(), table::count(sessions)].into_iter().chain(counts));
        }
    }
}
