//! Tests in a process of their own, and what there is to count in a process.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

const VARIABLE: &str = "RAMIE_TEST_CHILD";

/// Runs `body` in a process of its own, to whatever end, and returns what became of it.
///
/// The process is this test program, started again for the test `name` (the caller's full name)
/// only: there `body` is run and nothing after it.
pub fn child(name: &str, body: impl FnOnce()) -> Output {
    child_with(name, &[], body)
}

/// As [`child`], with more variables in its environment.
pub fn child_with(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Output {
    if std::env::var(VARIABLE).is_ok_and(|child| child == name) {
        let _watchdog = super::watch::dog();
        body();
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("this program has a path");
    Command::new(program)
        .args(["--exact", name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(VARIABLE, name)
        .envs(variables.iter().copied())
        .output()
        .expect("this program can be run again")
}

/// Runs `body` in a process of its own, where nothing else goes on, and demands that it ends well.
#[track_caller]
pub fn isolated(name: &str, body: impl FnOnce()) {
    let output = child(name, body);
    assert!(
        output.status.success(),
        "the child ended with {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(ran, "the child ran no test: is {name} the test's name?");
}

/// The number of open descriptors. ThreadSanitizer opens some of its own when it first names a
/// function, to talk to the process that knows the names; its are told from ours in that they stay
/// open in children.
pub fn fds() -> usize {
    let ours = |entry: &std::fs::DirEntry| {
        const O_CLOEXEC: u32 = 0o2_000_000;
        let info = std::path::Path::new("/proc/self/fdinfo").join(entry.file_name());
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        !cfg!(sanitizer = "thread") || flags.is_some_and(|flags| flags & O_CLOEXEC != 0)
    };
    // The listing itself has one open.
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten().filter(ours).count() - 1
}

/// The number of threads, without the kernel's own for io_uring.
pub fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    tasks
        .flatten()
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            !name.starts_with("iou-")
        })
        .count()
}

/// Resident memory in bytes.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: usize = text.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}

/// Waits until `condition` holds, as it must sooner or later.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "this never came true: {what}");
        ramie::sleep(Duration::from_millis(1));
    }
}
