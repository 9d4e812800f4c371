//! Counts of this very program under valgrind.

use std::process::Command;

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
