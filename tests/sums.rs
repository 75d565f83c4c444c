//! The `sums` example against the tools that it replaces: same trees, same bytes on standard
//! output.
//!
//! `cargo test` builds the example beside this test; for `cargo test --test sums` build it first
//! (`cargo build --example sums`). The tools (find, sort, xargs, sha256sum) must be GNU's.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const PIPELINE: &str = r#"find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"#;

/// Every way to run the jobs; the output must not depend on it.
const ENGINES: &[&[&str]] = &[
    &[],
    &["--workers", "1"],
    &["--workers=2", "--fibers=1"],
    &["--fibers", "7"],
    &["--threads", "1"],
    &["--threads", "3"],
];

fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/sums");
    assert!(path.exists(), "{} is missing: cargo build --example sums", path.display());
    path
}

/// A directory that goes away with its contents.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ramie-sums-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Tree(path)
    }

    fn file(&self, name: impl AsRef<OsStr>, contents: impl AsRef<[u8]>) {
        let path = self.0.join(name.as_ref());
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        fs::write(path, contents).expect("a file");
    }

    /// The pipeline's standard output.
    fn expected<S: AsRef<OsStr>>(&self, paths: &[S]) -> Vec<u8> {
        let mut command = Command::new("sh");
        command.args(["-c", PIPELINE, "sh"]).args(paths).current_dir(&self.0);
        command.output().expect("the pipeline runs").stdout
    }

    fn sums(&self) -> Command {
        let mut command = Command::new(example());
        command.current_dir(&self.0);
        command
    }

    /// Runs `sums` in every way, compares with the pipeline, and gives the last run's result.
    #[track_caller]
    fn compare<S: AsRef<OsStr>>(&self, paths: &[S], code: i32) -> Output {
        let expected = self.expected(paths);
        let run = |engine: &&[&str]| {
            let output = self.sums().args(*engine).args(paths).output().expect("sums runs");
            assert_same(&output.stdout, &expected);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{engine:?}: {errors}");
            output
        };
        let mut outputs: Vec<Output> = ENGINES.iter().map(run).collect();
        outputs.pop().expect("there is an engine")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Unlike std's, this one can delete what lies deeper than PATH_MAX.
        let _ = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

#[track_caller]
fn assert_same(ours: &[u8], expected: &[u8]) {
    if ours != expected {
        let mut lines = ours.split(|b| *b == b'\n').zip(expected.split(|b| *b == b'\n'));
        let (ours, expected) = lines.find(|(a, b)| a != b).unwrap_or((ours, expected));
        panic!("ours {:?}\nsha256sum {:?}", ours.escape_ascii(), expected.escape_ascii());
    }
}

fn bytes(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

const ODD: &[&[u8]] = &[
    b"plain",
    b"back\\slash",
    b"\\",
    b"line\nfeed",
    b"\n",
    b"carriage\rreturn",
    b"\\n",
    b"tab\there",
    b"two  spaces",
    b" leading",
    b"trailing ",
    b"-dash",
    b"--help",
    b"-",
    b"*",
    b"'quote\"",
    b"\x7f",
    b"\x01",
    b"not\xffutf8",
    b"\xc3\x28",
    "gr\u{fc}n".as_bytes(),
    "\u{6f22}\u{5b57}".as_bytes(),
    b"...",
    b"..x",
    b"a\\\n\r\\b",
    b"$(x)",
];

#[test]
fn odd_names() {
    let tree = Tree::new();
    for name in ODD {
        tree.file(bytes(&[b"t/", *name].concat()), name);
        tree.file(bytes(&[b"t/dirs/d", *name, b"/inner"].concat()), name);
    }
    for paths in [&["t"][..], &["t/"], &["./t"], &["t//", "t/dirs/../dirs"], &["t/."]] {
        tree.compare(paths, 0);
    }
    let all: Vec<_> = ODD.iter().map(|name| bytes(&[b"t/", *name].concat())).collect();
    tree.compare(&all, 0);
}

#[test]
fn sorted_by_complete_path() {
    let tree = Tree::new();
    // Around a directory `d`: what sorts before and after its slash.
    for name in ["d/x", "d!", "d.", "d.x/y", "d0", "d-", "da", "d/", "d/-", "d.x!", "d\u{1}"] {
        if !name.ends_with('/') {
            tree.file(name, name);
        }
    }
    tree.compare(&["."], 0);
    tree.compare(&["d", "d.", "d.x", "d0", "d!", "d-"], 0);
    tree.compare(&["d0", "d/", ".", "d", "d.x/y", "d", "./d", "d//"], 0);
}

#[test]
fn no_paths_means_here() {
    let tree = Tree::new();
    tree.file("a", "1");
    tree.file("sub/b", "2");
    let none: &[&str] = &[];
    let output = tree.compare(none, 0);
    assert!(output.stdout.ends_with(b"  ./sub/b\n"));
}

#[test]
fn no_files_is_the_sum_of_nothing() {
    let tree = Tree::new();
    tree.compare(&["."], 0);
    let output = tree.compare(&["absent"], 1);
    assert!(output.stdout.starts_with(b"e3b0c44298fc1c14"));
    assert_eq!(output.stderr, b"sums: 'absent': No such file or directory\n");
}

#[test]
fn only_regular_files() {
    let tree = Tree::new();
    tree.file("t/file", "f");
    tree.file("t/empty", "");
    tree.file("outside/file", "o");
    fs::create_dir(tree.0.join("t/emptydir")).expect("a directory");
    let link = |to: &str, at: &str| {
        std::os::unix::fs::symlink(to, tree.0.join(at)).expect("a link");
    };
    link("file", "t/link");
    link("nowhere", "t/dangling");
    link("../outside", "t/dirlink");
    link("loop", "t/loop");
    let fifo = Command::new("mkfifo").arg(tree.0.join("t/fifo")).status().expect("mkfifo runs");
    assert!(fifo.success());
    let _socket =
        std::os::unix::net::UnixListener::bind(tree.0.join("t/socket")).expect("a socket");
    tree.compare(&["t"], 0);
    tree.compare(&["t/link", "t/fifo", "t/socket", "t/dangling", "t/dirlink", "t/file"], 0);
    tree.compare(&["t/dirlink/"], 0);
    let output = tree.compare(&["t/loop/", "t/file/", "", "t/empty"], 1);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("'t/file/': Not a directory"), "{errors}");
    assert!(errors.contains("'': No such file or directory"), "{errors}");
}

#[test]
fn unreadable_contents() {
    let tree = Tree::new();
    tree.file("t/a", "a");
    tree.file("t/b", "b");
    // A regular file that opens but does not read: EIO, also for root.
    let output = tree.compare(&["t/b", "/proc/self/mem", "t"], 1);
    assert_eq!(output.stderr, b"sums: /proc/self/mem: Input/output error\n");
    // A file whose size says 0.
    tree.compare(&["/proc/version"], 0);
}

#[test]
fn no_permission() {
    let tree = Tree::new();
    tree.file("t/open/a", "a");
    tree.file("t/secret", "s");
    tree.file("t/locked/b", "b");
    tree.file("t/z", "z");
    fs::copy(example(), tree.0.join("sums")).expect("a copy of the example");
    let mode = |name: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(tree.0.join(name), mode).expect("new permissions");
    };
    mode("t/secret", 0);
    mode("t/locked", 0);
    mode("", 0o755);
    // Root may read everything: become nobody, if that is allowed.
    let mine = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc"));
    let run = |command: &mut Command| {
        if mine == 0 {
            command.uid(65534).gid(65534);
        }
        command.current_dir(&tree.0).output()
    };
    let expected = match run(Command::new("sh").args(["-c", PIPELINE, "sh", "t"])) {
        Ok(output) => output.stdout,
        Err(error) => {
            println!("skipped: cannot become another user: {error}");
            return;
        }
    };
    let output = run(Command::new(tree.0.join("sums")).arg("t")).expect("sums runs");
    mode("t/locked", 0o755);
    assert_same(&output.stdout, &expected);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("sums: 't/locked': Permission denied\n"), "{errors}");
    assert!(errors.contains("sums: t/secret: Permission denied\n"), "{errors}");
}

#[test]
fn deeper_than_path_max() {
    let tree = Tree::new();
    let part = "d".repeat(200);
    let deep = |top: &str| -> String {
        let path = (0..14).fold(top.to_owned(), |path, _| format!("{path}/{part}"));
        fs::create_dir_all(tree.0.join(&path)).expect("a deep directory");
        path
    };
    let (upper, lower) = (deep("upper"), deep("lower"));
    tree.file(format!("{lower}/file"), "deep");
    tree.file(format!("{upper}/file"), "half way");
    fs::rename(tree.0.join("lower"), tree.0.join(&upper).join("lower")).expect("renamed");
    tree.compare(&["upper"], 1);
}

#[test]
fn many_small_files() {
    let tree = Tree::new();
    for i in 0..3000u32 {
        let contents = i.to_le_bytes().repeat((i * 7 % 5000) as usize);
        tree.file(format!("t/{}/{}/{i}", i % 7, i % 61), contents);
    }
    tree.compare(&["t"], 0);
    tree.compare(&["t/3", "t"], 0);
}

#[test]
fn sizes_around_the_buffer() {
    let tree = Tree::new();
    for size in [1, 55, 56, 63, 64, 65, 4096, 131_071, 131_072, 131_073, 262_144, 3_000_001] {
        let contents: Vec<u8> = (0..size as u32).map(|i| ((i * 31) >> 3) as u8).collect();
        tree.file(format!("{size}"), contents);
    }
    tree.compare(&["."], 0);
}

#[test]
fn large_file_in_bounded_memory() {
    let tree = Tree::new();
    tree.file("a", "before");
    tree.file("z", "after");
    let file = fs::File::create(tree.0.join("big")).expect("a file");
    file.set_len(1 << 30).expect("a sparse file");
    let mut child = tree.sums().arg(".").stdout(Stdio::piped()).spawn().expect("sums runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait().expect("a child").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut output = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut output).expect("its output");
    assert_same(&output, &tree.expected(&["."]));
    assert!(0 < peak_kib && peak_kib < 128 * 1024, "{peak_kib} KiB");
}

/// Checks lines of a tree that changed meanwhile: well formed and in order.
#[track_caller]
fn assert_well_formed(output: &[u8]) {
    let mut last: &[u8] = b"";
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() > 67 && line.ends_with(b"\n"), "{}", line.escape_ascii());
        assert!(line[..64].iter().all(u8::is_ascii_hexdigit));
        assert!(last < &line[64..], "out of order: {}", line.escape_ascii());
        last = &line[64..];
    }
}

/// Sets a flag in the end, also if an assertion fails.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_vanish_and_grow_meanwhile() {
    let tree = Tree::new();
    let names: Vec<PathBuf> = (0..200).map(|i| tree.0.join(format!("t/{i}"))).collect();
    tree.file("t/grows", "x");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Set(&done);
        scope.spawn(|| {
            let grows = fs::OpenOptions::new().append(true).open(tree.0.join("t/grows"));
            let mut grows = grows.expect("it exists");
            while !done.load(Ordering::Relaxed) {
                for name in &names {
                    fs::write(name, "now you see me").expect("written");
                    grows.write_all(&[7; 512]).expect("grown");
                }
                for name in &names {
                    fs::remove_file(name).expect("removed");
                }
            }
        });
        for engine in ENGINES.iter().cycle().take(30) {
            let output = tree.sums().args(*engine).arg("t").output().expect("sums runs");
            assert_well_formed(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            for line in errors.lines() {
                assert!(line.ends_with(": No such file or directory"), "{line}");
            }
            assert_eq!(output.status.code(), Some(i32::from(!errors.is_empty())));
        }
    });
}

#[test]
fn reader_gone() {
    let tree = Tree::new();
    for i in 0..2000 {
        tree.file(format!("t/{i}"), "x");
    }
    for engine in ENGINES {
        let mut command = tree.sums();
        command.args(*engine).arg("t").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sums runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{engine:?}");
        assert_eq!((output.status.code(), output.status.signal()), (Some(141), None));
    }
}

#[test]
fn disk_full() {
    let tree = Tree::new();
    tree.file("a", "x");
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = tree.sums().arg("a").stdout(full).output().expect("sums runs");
    assert_eq!(output.stderr, b"sums: write error: No space left on device\n");
    assert_eq!(output.status.code(), Some(1));
}

/// The reader is slow and the window of waiting outcomes full: jobs wait, nothing is lost.
#[test]
fn slow_reader() {
    let tree = Tree::new();
    let long = "n".repeat(200);
    for i in 0..2000 {
        tree.file(format!("{i}{long}"), "x");
    }
    let mut child = tree.sums().stdout(Stdio::piped()).spawn().expect("sums runs");
    std::thread::sleep(Duration::from_millis(300));
    let mut output = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut output).expect("its output");
    assert!(child.wait().expect("it ends").success());
    assert_same(&output, &tree.expected(&["."]));
}

#[test]
fn options() {
    let tree = Tree::new();
    tree.file("-x", "x");
    let run = |args: &[&str]| tree.sums().args(args).output().expect("sums runs");
    let dashed = run(&["--", "-x"]);
    assert_eq!(dashed.stdout.get(64..), Some(&b"  -x\n"[..]));
    assert!(run(&["--help"]).stdout.starts_with(b"Usage: sums "));
    for wrong in [
        &["-x"][..],
        &["--workers"],
        &["--workers", "0"],
        &["--threads=x"],
        &["--stats=1"],
        &["--stats", "--nonsense"],
        &["--threads", "1", "--fibers", "1"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stderr.starts_with(b"sums: ") && output.stdout.is_empty());
    }
    let stats = run(&["--stats", "."]);
    let text = String::from_utf8_lossy(&stats.stderr);
    assert!(text.starts_with("sums: 1 files, 1 B (1 bytes), 0 errors\n"), "{text}");
}

/// The tools' own trees, if they are there: real names, real links, real depth.
#[test]
fn real_trees() {
    let tree = Tree::new();
    for path in ["/usr/include", "/usr/share/doc", concat!(env!("CARGO_MANIFEST_DIR"), "/src")] {
        if Path::new(path).is_dir() {
            tree.compare(&[path], 0);
        }
    }
}
