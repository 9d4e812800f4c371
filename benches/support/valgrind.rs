//! Counts of this very program under valgrind.

use std::{collections::HashMap, process::Command};

/// The instructions of a whole run of this program with these arguments.
pub fn instructions(arguments: &[usize]) -> f64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("a path"))
        .args(arguments.iter().map(usize::to_string))
        .output()
        .expect("valgrind is installed");
    let report = String::from_utf8_lossy(&run.stderr);
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, number)| number.trim().parse().ok()).expect("callgrind's report")
}

/// How often which instructions were executed.
pub struct Executed {
    /// Where the first instruction of `main` stood.
    pub main: u64,
    /// By function and address.
    pub counts: HashMap<(String, u64), u64>,
}

/// The instructions of this program's own file in a whole run of it with these arguments.
pub fn executed(arguments: &[usize]) -> Executed {
    let program = std::env::current_exe().expect("a path");
    let name = format!("{}.{}", std::process::id(), arguments.len());
    let report = std::env::temp_dir().join(format!("sessions-executed.{name}"));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-instr=yes", "--dump-line=no"])
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(&program)
        .args(arguments.iter().map(usize::to_string))
        .output()
        .expect("valgrind is installed");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = std::fs::read_to_string(&report).expect("callgrind's report");
    std::fs::remove_file(report).expect("the report is ours");
    parse(&text, &program.display().to_string())
}

/// callgrind's format, in which a name is said once and then by its number, and an address may be said as the distance
/// from the one before (<https://valgrind.org/docs/manual/cl-format.html>).
fn parse(report: &str, program: &str) -> Executed {
    let (mut files, mut functions) = (HashMap::new(), HashMap::new());
    let (mut is_ours, mut function, mut address) = (false, String::new(), 0_u64);
    let mut counts = HashMap::new();
    let mut main = None;
    let mut lines = report.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=') {
            Some(("ob", file)) => is_ours = named(&mut files, file) == program,
            Some(("cob", file)) => drop(named(&mut files, file)),
            Some(("fn", it)) => function = named(&mut functions, it),
            Some(("cfn", it)) => drop(named(&mut functions, it)),
            // What a call cost in all stands in the next line.
            Some(("calls", _)) => {
                if let Some((at, _)) = lines.next().and_then(|line| line.split_once(' ')) {
                    address = moved(address, at);
                }
            }
            _ if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) => {
                let (at, rest) = line.split_once(' ').expect("an address and a count");
                address = moved(address, at);
                if is_ours {
                    if function == "main" {
                        main.get_or_insert(address);
                    }
                    let count = rest.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
                    *counts.entry((function.clone(), address)).or_default() +=
                        count.expect("a count");
                }
            }
            _ => {}
        }
    }
    Executed { main: main.expect("a program runs its `main`"), counts }
}

/// The name of `(7) name`, which from then on is `(7)`.
fn named(known: &mut HashMap<String, String>, name: &str) -> String {
    match name.split_once(' ') {
        Some((number, name)) => known.insert(number.to_string(), name.to_string()),
        None => None,
    };
    let number = name.split(' ').next().unwrap_or_default();
    known.get(number).cloned().unwrap_or_default()
}

fn moved(address: u64, to: &str) -> u64 {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect("a hexadecimal number"),
        None => text.parse().expect("a number"),
    };
    match to.split_at(1) {
        ("*", _) => address,
        ("+", by) => address + number(by),
        ("-", by) => address - number(by),
        _ => number(to),
    }
}
