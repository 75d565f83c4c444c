//! Examples that are servers, as processes, and the clients that others wrote.
//!
//! `cargo test` builds the examples beside the tests; for a single test file build them first
//! (`cargo build --examples`).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where an example is.
pub fn path(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

/// Whether a program is there. Where `RAMIE_TEST_TOOLS` is set, as in continuous integration, it
/// must be.
pub fn has(tool: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join(tool).exists());
    assert!(found || std::env::var_os("RAMIE_TEST_TOOLS").is_none(), "{tool} is not installed");
    if !found {
        println!("left out: {tool} is not installed");
    }
    found
}

/// A running server, which is killed when dropped.
pub struct Server {
    child: Child,
    /// The port it has printed in its first line, which ends in `:PORT/` or `:PORT`.
    pub port: u16,
}

impl Server {
    pub fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(path(name));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let port = line.trim_end().trim_end_matches('/').rsplit(':').next();
        let port = port.and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{name} has printed no port, but {line:?}"));
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
