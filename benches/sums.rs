//! The `sums` example against the same program on threads, and against the tools it replaces.
//!
//! Each round runs, on one tree, in alternating order: `sums` (fibers, two workers), `sums
//! --threads 2` (the same code, a system call per call), and `find | xargs -P2 sha256sum`
//! (which does less: it does not sort). All of them write to /dev/null. The
//! tree is read once before each round, so that it is cached; with `--cold` the caches are dropped
//! before each run instead (root only).
//!
//! An argument is the tree; otherwise one of 20,000 small files is made.

mod common;

use common::{Bench, Metric, OURS, Rng, TempDir};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const TIME: Metric = Metric::time("sums of a tree", "ms");
const ONE: Metric = Metric::time("sums of a tree, 1 core", "ms");

const PIPELINE: &str = r#"find "$0" -type f -print0 | xargs -0 -P"$1" sha256sum"#;

fn main() {
    let mut bench = Bench::from_args();
    let cold = bench.args.iter().any(|arg| arg == "--cold");
    let given = bench.args.iter().find(|arg| !arg.starts_with("--")).map(PathBuf::from);
    let made = given.is_none().then(|| make_tree(bench.amount(20_000, 1000)));
    let tree = given.unwrap_or_else(|| made.as_ref().expect("made").path().to_owned());
    let sums = example();
    let contenders = |workers: &str| {
        let ours = |option: &str| {
            let mut command = Command::new(&sums);
            command.args([option, workers]).arg(&tree);
            command
        };
        let mut tools = Command::new("sh");
        tools.args(["-c", PIPELINE]).arg(&tree).arg(workers);
        [(OURS, ours("--workers")), ("std::thread", ours("--threads")), ("find | xargs", tools)]
    };
    for round in bench.rounds(7) {
        for (metric, workers) in [(TIME, "2"), (ONE, "1")] {
            if workers == "1" {
                common::pin(0); // inherited by the commands
            }
            let mut contenders = contenders(workers);
            if cold {
                drop_caches();
            } else {
                run(&mut contenders[1].1);
            }
            contenders.rotate_left(round % 3);
            for (who, command) in &mut contenders {
                if cold {
                    drop_caches();
                }
                bench.run(metric, who, || Some(run(command)));
            }
            common::unpin();
        }
    }
    println!("{}{}", tree.display(), if cold { ", cold" } else { "" });
    bench.print();
}

/// Milliseconds that a command takes.
fn run(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("the command runs"); // an unreadable file in the tree is nobody's fault
    start.elapsed().as_secs_f64() * 1e3
}

fn drop_caches() {
    Command::new("sync").status().expect("sync runs");
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("--cold needs root");
}

/// The example's path; cargo does not build examples for a bench, so ask it to.
fn example() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--example", "sums"]);
    build.args((!cfg!(debug_assertions)).then_some("--release"));
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().expect("cargo runs").success());
    let bench = std::env::current_exe().expect("this program has a path");
    let profile = bench.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    profile.join("examples/sums")
}

/// Small files as in a source tree: most of some kilobytes, a few larger, in nested directories.
fn make_tree(files: usize) -> TempDir {
    let dir = TempDir::new("sums");
    let mut rng = Rng(7);
    let contents: Vec<u8> = (0..300_000).map(|_| rng.below(256) as u8).collect();
    let mut parent = dir.path().to_owned();
    for i in 0..files {
        if i % 25 == 0 {
            parent = dir.path().join(format!("{}/{}/{}", i / 2500, i / 250, i / 25));
            std::fs::create_dir_all(&parent).expect("a new directory");
        }
        let size = match rng.below(100) {
            0 => rng.below(contents.len()),
            1..10 => rng.below(40_000),
            _ => rng.below(8_000),
        };
        write(&parent.join(format!("file-{i}.txt")), &contents[..size]);
    }
    dir
}

fn write(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).expect("a new file");
}
