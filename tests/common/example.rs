//! Example programs that are run by tests, and the tools that these need.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where `cargo test` has built an example, beside this test. For `cargo test --test name` build it
/// first (`cargo build --examples`).
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let target = test.parent().and_then(|deps| deps.parent()).expect("the target directory");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

/// Whether a tool is there. Where all tools were to be installed (`.ci/run`) it must be.
#[track_caller]
pub fn has_tool(tool: &str, package: &str) -> bool {
    let mut command = Command::new(tool);
    let found =
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let required = std::env::var_os("RAMIE_TEST_TOOLS").is_some();
    assert!(found || !required, "{tool} is missing: install {package}");
    if !found {
        eprintln!("skipped: {tool} is missing ({package})");
    }
    found
}

/// An example that serves, and says on its first line of output where it listens.
pub struct Server {
    child: Child,
    pub addr: String,
}

impl Server {
    pub fn start(name: &str, args: &[&str]) -> Server {
        let mut command = Command::new(path(name));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("asked for");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let addr = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Server { child, addr }
    }

    pub fn port(&self) -> &str {
        self.addr.rsplit(':').next().expect("a port")
    }

    /// How many sockets it has.
    pub fn sockets(&self) -> usize {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("/proc");
        let targets = fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// Asks it to end, as Ctrl-C does, and demands that it ends well.
    pub fn end(mut self) {
        let id = i32::try_from(self.child.id()).expect("a process");
        // SAFETY: our child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
