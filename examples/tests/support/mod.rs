//! Programs that a test starts, and stops by their process id.

use std::{
    fmt::Debug,
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    str::FromStr,
    thread,
};

/// A running program, killed when the test is over.
pub(crate) struct Program(Child);

impl Program {
    /// Starts it, and waits for the line that says where it listens: what follows `words` there.
    pub(crate) fn start<A: FromStr<Err: Debug>>(command: &mut Command, words: &str) -> (Self, A) {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let program = Self(child);
        for line in stdout.by_ref().lines() {
            if let Some((_, address)) = line.expect("text").split_once(words) {
                let address = address.trim_end_matches('.').parse();
                // A program that prints more is neither to wait for a reader nor to fail without one.
                thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
                return (program, address.expect("an address"));
            }
        }
        panic!("{command:?} ended without a line that says `{words}`");
    }

    /// Asks it to end, and waits for that: what it ended with.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        Command::new("kill").arg(pid).status().expect("kill is everywhere");
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
