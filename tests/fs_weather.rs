//! `ramie::fs` in bad weather: a full disk, odd names and buffers, and others who keep one waiting.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use common::{TempDir, error, fds, isolated, runtime, seen};
use ramie::fs::File;

/// Runs `wait` on a fiber of one worker, while another fiber of it counts its turns, until `end` is
/// called; demands that the other one had its turns, and that `wait` was waiting.
fn others_run_while(wait: impl FnOnce() + 'static, end: impl FnOnce()) {
    let _watchdog = common::watch::dog();
    runtime(1).run(|| {
        let waiter = ramie::spawn_local(wait);
        let turns = Rc::new(Cell::new(0_u32));
        let theirs = turns.clone();
        let other = ramie::spawn_local(move || {
            for _ in 0..20 {
                ramie::sleep(Duration::from_millis(1));
                theirs.set(theirs.get() + 1);
            }
        });
        other.join().unwrap();
        assert_eq!(turns.get(), 20);
        assert!(!waiter.is_finished());
        end();
        waiter.join().unwrap();
    });
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_fifo_without_a_writer() {
    let dir = TempDir::new();
    let (path, theirs) = (dir.path().join("fifo"), dir.path().join("fifo"));
    mkfifo(&path);
    let wait = move || {
        let mut text = String::new();
        File::open(theirs).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "at last");
    };
    others_run_while(wait, || std::fs::write(&path, "at last").unwrap());
}

#[test]
fn a_fifo_without_a_reader() {
    let dir = TempDir::new();
    let (path, theirs) = (dir.path().join("fifo"), dir.path().join("fifo"));
    mkfifo(&path);
    let wait = move || ramie::fs::write(theirs, "at last").unwrap();
    let mut text = String::new();
    others_run_while(wait, || {
        // On a thread: the worker is needed by the writer.
        text = ramie::unblock(|| std::fs::read_to_string(&path).unwrap());
    });
    assert_eq!(text, "at last");
}

/// The lock is another process's, so nobody here could be woken by letting go of it.
#[test]
fn a_lock_of_another_process() {
    let dir = TempDir::new();
    let path = dir.path().join("lock");
    std::fs::write(&path, "").unwrap();
    for shared in [false, true] {
        let mut holder = Command::new("flock")
            .arg(&path)
            .args(["sh", "-c", "echo held; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let theirs = path.clone();
        let wait = move || {
            let file = File::open(theirs).unwrap();
            assert!(file.try_lock().is_err() && file.try_lock_shared().is_err());
            if shared {
                file.lock_shared().unwrap()
            } else {
                file.lock().unwrap()
            }
            file.unlock().unwrap();
        };
        others_run_while(wait, || drop(holder.stdin.take()));
        assert!(holder.wait().unwrap().success());
    }
}

/// A file system of its own, where that is allowed.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = TempDir::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "ramie-test"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Replaces `dir/f` again and again, until that fails, and in the first round makes it.
fn write_for_ever(dir: &Path) {
    let path = dir.join("f");
    let contents = vec![1; 1 << 20];
    ramie::spawn(move || while ramie::fs::write_atomic(&path, &contents).is_ok() {});
}

/// At whatever moment a runtime ends, nothing is left of the write that it ended.
#[test]
fn an_atomic_write_ends_with_its_runtime_and_leaves_nothing() {
    let _watchdog = common::watch::dog();
    for round in 0..10 {
        let dir = TempDir::new();
        runtime(2).run(|| {
            write_for_ever(dir.path());
            common::eventually("a first write is done", || dir.path().join("f").exists());
            ramie::sleep(Duration::from_micros(300 * round)); // any moment will do
        });
        assert_eq!(names(dir.path()), ["f"]);
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap().len(), 1 << 20);
    }
}

/// So it is with a fiber that is leaked.
#[test]
fn a_leaked_atomic_write_leaves_nothing() {
    isolated("a_leaked_atomic_write_leaves_nothing", || {
        for round in 0..10 {
            let dir = TempDir::new();
            let impatient = ramie::Runtime::builder().workers(1).shutdown_timeout(Duration::ZERO);
            impatient.build().unwrap().run(|| {
                write_for_ever(dir.path());
                common::eventually("a first write is done", || dir.path().join("f").exists());
                ramie::sleep(Duration::from_micros(300 * round));
            });
            // What a thread of the pool has begun it ends.
            common::eventually("only the file is there", || names(dir.path()) == ["f"]);
        }
    });
}

contract! {
    fn a_full_disk() {
        let small = Small::mount();
        let Some(dir) = small.as_ref().map(|small| small.0.path()) else {
            eprintln!("skipped: no file system may be mounted here");
            let mut full = File::options().write(true).open("/dev/full").unwrap();
            assert_eq!(full.write(b"x").unwrap_err().kind(), ErrorKind::StorageFull);
            return;
        };
        let full = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::StorageFull;
        let path = dir.join("f");
        ramie::fs::write(&path, "small").unwrap();
        assert!(full(ramie::fs::write_atomic(&path, vec![1; 100_000])));
        assert_eq!(ramie::fs::read(&path).unwrap(), b"small");
        assert_eq!(ramie::fs::read_dir(dir).unwrap().count(), 1, "nothing is left over");
        // What fits is written, and that much is said.
        let mut file = File::create(&path).unwrap();
        let n = file.write(&[2; 100_000]).unwrap();
        assert!((1..100_000).contains(&n), "{n}");
        assert_eq!(file.metadata().unwrap().len(), n as u64);
        assert!(full(file.write_all(&[3; 100_000])));
        assert!(full(ramie::fs::write(dir.join("g"), vec![4; 10_000])));
        // Room again: as if nothing had happened.
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"again").unwrap();
        file.close().unwrap();
        assert_eq!(ramie::fs::read(&path).unwrap(), b"again");
        let copied = ramie::fs::copy("Cargo.lock", dir.join("h"));
        assert!(copied.is_ok() || copied.unwrap_err().kind() == ErrorKind::StorageFull);
    }

    fn odd_names() {
        let (long, deep) = ("n".repeat(256), "d/".repeat(2500));
        for name in ["a\0b", "\0", &long, &deep, ""] {
            same!(|dir| {
                let path = if name.is_empty() { name.into() } else { dir.join(name) };
                let file = dir.join("file");
                std::fs::write(&file, "x").unwrap();
                [
                    error(fs::File::create_new(&path)),
                    error(fs::copy(&file, &path)),
                    error(fs::rename(&file, &path)),
                    error(fs::hard_link(&file, &path)),
                    error(unix::symlink(&file, &path)),
                    error(unix::chown(&path, None, None)),
                    error(fs::create_dir_all(&path)),
                    error(fs::remove_dir_all(&path)),
                    error(fs::exists(&path)),
                    error(fs::canonicalize(&path)),
                ]
            });
        }
    }

    fn one_byte_at_a_time() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::File::create_new(&path).unwrap();
            for byte in 0..=255 {
                assert_eq!(file.write(&[byte]).unwrap(), 1);
            }
            file.rewind().unwrap();
            let mut all = Vec::new();
            let mut byte = [0];
            while file.read(&mut byte).unwrap() == 1 {
                all.extend_from_slice(&byte);
                assert_eq!(file.read(&mut []).unwrap(), 0);
            }
            let at: Vec<_> = (0..258).map(|n| file.read_at(&mut byte, n).unwrap()).collect();
            (all, at, seen(file.stream_position()))
        });
    }

    /// Four times as many buffers as one call takes, empty ones among them.
    fn huge_vectors() {
        same!(|dir| {
            let mut file = fs::File::create_new(dir.join("f")).unwrap();
            let bytes: Vec<u8> = (0..4096_u32).map(|n| n as u8).collect();
            let parts = |n: usize| &bytes[n..n + usize::from(!n.is_multiple_of(3))];
            let mut slices: Vec<_> = (0..4096).map(|n| IoSlice::new(parts(n))).collect();
            let mut left = &mut slices[..];
            let mut calls = 0;
            while !left.is_empty() {
                let n = file.write_vectored(left).unwrap();
                IoSlice::advance_slices(&mut left, n);
                calls += 1;
                assert!(n > 0 || left.len() < 2);
                if n == 0 {
                    break;
                }
            }
            file.rewind().unwrap();
            let mut back = vec![[0_u8; 1]; 4096];
            let mut slices: Vec<_> = back.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let n = file.read_vectored(&mut slices).unwrap();
            let none = file.read_vectored(&mut []).unwrap() + file.write_vectored(&[]).unwrap();
            (calls, n, none, back, file.metadata().unwrap().len())
        });
    }
}

/// Whatever fails, no descriptor is left.
#[test]
fn failures_leave_no_descriptor() {
    isolated("failures_leave_no_descriptor", || {
        // One worker: a second one may start at any time, and has a ring of its own.
        runtime(1).run(|| {
            let dir = TempDir::new();
            let work = || {
                let at = |name: &str| dir.path().join(name);
                let _ = ramie::fs::write("/dev/full", "x");
                let _ = ramie::fs::write_atomic(at("no/f"), "x");
                let _ = ramie::fs::copy(dir.path(), at("f"));
                let _ = ramie::fs::copy("/dev/full", at("f"));
                let _ = ramie::fs::read_limited("/dev/zero", 9);
                let _ = ramie::fs::read_to_string("/proc/self/exe");
                let _ = ramie::fs::remove_dir_all(at("no"));
                drop(ramie::fs::read_dir("/proc/self").unwrap().next());
                let file = File::create(at("f")).unwrap();
                let reader = ramie::spawn(move || file.read_at(&mut [0; 9], 0));
                reader.cancel();
                let _ = reader.join().unwrap();
                let missing = at("no/such");
                let opener = ramie::spawn(move || File::open(missing).is_ok());
                opener.cancel();
                assert!(!opener.join().unwrap());
            };
            work();
            let before = fds();
            for _ in 0..20 {
                work();
            }
            assert_eq!(fds(), before);
        });
    });
}
