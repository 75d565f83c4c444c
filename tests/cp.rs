//! The `cp` example against the tool that it is like: `cp -r --preserve=mode`.

mod common;

use common::{TempDir, example, watch};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

/// All that is below a directory: paths, modes, contents.
fn listing(root: &Path) -> String {
    let mut text = String::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(root).unwrap().display();
        write!(text, "{name} {:o} ", found.mode()).unwrap();
        if found.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            left.extend(names);
        } else if found.is_symlink() {
            write!(text, "-> {}", fs::read_link(&path).unwrap().display()).unwrap();
        } else if found.is_file() {
            let contents = fs::read(&path).unwrap();
            let sum =
                contents.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            write!(text, "{} bytes, {sum:x}", contents.len()).unwrap();
        } else {
            write!(text, "{:?}", found.file_type().is_socket()).unwrap();
        }
        text.push('\n');
    }
    text
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Some files of all sizes and modes, links, and directories.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for n in 0..300_usize {
        let path = root.join(["a", "a/b", "."][n % 3]).join(format!("file {n}"));
        let contents: Vec<u8> = (0..n * n / 4).map(|at| (at * n) as u8).collect();
        fs::write(&path, contents).unwrap();
        chmod(&path, [0o644, 0o600, 0o755, 0o444, 0o400, 0o666][n % 6]);
    }
    symlink("file 1", root.join("a/link")).unwrap();
    symlink("nowhere at all", root.join("dangling")).unwrap();
    symlink("../empty", root.join("a/b/to a directory")).unwrap();
    fs::write(root.join("a/b/c/größe\n"), "a name with a line feed").unwrap();
    chmod(&root.join("a/b/c"), 0o555);
    chmod(&root.join("empty"), 0o1777);
}

fn cp(dir: &Path, args: &[&str]) -> Output {
    Command::new(example::path("cp")).current_dir(dir).args(args).output().unwrap()
}

fn real_cp(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("cp");
    command.args(["-r", "--preserve=mode"]).args(args).current_dir(dir).env("LC_ALL", "C");
    command.output().unwrap()
}

/// Runs both in directories that `make` has filled, and compares what there is afterwards, what was
/// said, and the exit status.
#[track_caller]
fn compare(make: impl Fn(&Path), args: &[&str]) -> String {
    let [ours, real] = [cp, real_cp].map(|cp| outcome(&make, cp, args));
    assert_eq!(ours, real);
    ours.1
}

/// What there is afterwards, what was said, the exit status.
fn outcome(
    make: impl Fn(&Path),
    cp: fn(&Path, &[&str]) -> Output,
    args: &[&str],
) -> (String, String, Option<i32>) {
    let temp = TempDir::new();
    make(temp.path());
    let output = cp(temp.path(), args);
    let said = String::from_utf8(output.stderr).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort();
    (listing(temp.path()), said.join("\n"), output.status.code())
}

#[test]
fn trees() {
    let _watchdog = watch::dog();
    let make = |dir: &Path| {
        tree(&dir.join("source"));
        fs::create_dir(dir.join("target")).unwrap();
    };
    compare(make, &["source", "copy"]);
    compare(make, &["source", "target"]);
    compare(make, &["source", "target/new"]);
    compare(make, &["source/a", "source/empty", "source/dangling", "source/file 2", "target"]);
    compare(make, &["source/file 299", "copy"]);
    compare(make, &["source/a/link", "copy"]);
    compare(make, &["source/", "target/"]);
}

#[test]
fn over_what_is_there() {
    let _watchdog = watch::dog();
    let make = |dir: &Path| {
        fs::create_dir_all(dir.join("source/d")).unwrap();
        fs::create_dir_all(dir.join("target/source/d")).unwrap();
        fs::write(dir.join("source/f"), "new").unwrap();
        fs::write(dir.join("source/d/g"), "new").unwrap();
        fs::write(dir.join("target/source/f"), "old and longer").unwrap();
        fs::write(dir.join("target/source/d/kept"), "old").unwrap();
        chmod(&dir.join("target/source/f"), 0o600);
    };
    compare(make, &["source", "target"]);
}

#[test]
fn over_links_and_what_was_just_made() {
    let _watchdog = watch::dog();
    let make = |dir: &Path| {
        for (path, contents) in [("d/f", "f"), ("e/f", "other"), ("file", "new"), ("g", "gone")] {
            let path = dir.join("source").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        fs::create_dir_all(dir.join("target")).unwrap();
        fs::create_dir_all(dir.join("elsewhere")).unwrap();
        fs::write(dir.join("there"), "old").unwrap();
        symlink("../elsewhere", dir.join("target/d")).unwrap();
        symlink("../there", dir.join("target/file")).unwrap();
        symlink("nowhere", dir.join("target/g")).unwrap();
        symlink("target", dir.join("way")).unwrap();
    };
    compare(make, &["source/d", "target"]);
    compare(make, &["source/file", "source/g", "target"]);
    compare(make, &["source/d/f", "source/e/f", "target"]);
    compare(make, &["source/d", "there"]);
}

#[test]
fn errors() {
    let _watchdog = watch::dog();
    let make = |dir: &Path| {
        fs::create_dir_all(dir.join("source/d")).unwrap();
        fs::write(dir.join("source/f"), "contents").unwrap();
        fs::write(dir.join("plain"), "contents").unwrap();
        fs::create_dir(dir.join("target")).unwrap();
    };
    let said = compare(make, &["none", "copy"]);
    assert_eq!(said, "cp: cannot stat 'none': No such file or directory");
    compare(make, &["none", "plain", "source", "target"]);
    compare(make, &["plain", "no/such/directory"]);
    compare(make, &["plain", "plain"]);
    compare(make, &["source/f", "source"]);
    // What is copied before that is noticed depends on the order of the names.
    for args in [["source", "source"], ["source", "source/d/e"]] {
        let [ours, real] = [cp, real_cp].map(|cp| outcome(make, cp, &args));
        assert_eq!((ours.1, ours.2), (real.1, real.2));
    }
    let (_, said, _) = outcome(make, cp, &[".", "target"]);
    assert_eq!(said, "cp: cannot copy a directory, '.', into itself, 'target/.'");
    for args in [&["none", "source", "plain"][..], &["plain"], &[]] {
        let temp = TempDir::new();
        make(temp.path());
        let output = cp(temp.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty());
        assert_eq!(fs::read_to_string(temp.path().join("plain")).unwrap(), "contents");
    }
}

/// The others are copied all the same.
#[test]
fn what_is_no_file() {
    let _watchdog = watch::dog();
    let temp = TempDir::new();
    let dir = temp.path();
    fs::create_dir(dir.join("source")).unwrap();
    fs::write(dir.join("source/f"), "contents").unwrap();
    let _socket = UnixListener::bind(dir.join("source/socket")).unwrap();
    let output = cp(dir, &["source", "copy"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "cp: skipping special file 'source/socket'\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(dir.join("copy/f")).unwrap(), "contents");
}
