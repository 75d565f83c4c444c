//! `ramie::fs`'s functions on paths, directories and whole files do what std's do.

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{TempDir, error, seen};

/// One of each kind of thing, made with std.
fn populate(dir: &Path) {
    std::fs::write(dir.join("file"), "contents").unwrap();
    std::fs::create_dir_all(dir.join("full/deep")).unwrap();
    std::fs::write(dir.join("full/deep/leaf"), "leaf").unwrap();
    std::fs::create_dir(dir.join("empty")).unwrap();
    for (target, link) in
        [("file", "to_file"), ("full", "to_dir"), ("nowhere", "broken"), ("loop", "loop")]
    {
        std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
    }
    std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
}

/// Names that are interesting to every function that takes one.
fn names() -> Vec<String> {
    let mut names: Vec<String> = "file full empty to_file to_dir broken loop socket missing . .. \
        missing/x file/x file/ empty/ to_dir/ to_dir/deep full/../file"
        .split_whitespace()
        .map(String::from)
        .collect();
    names.extend(["".into(), "a\0b".into(), "n".repeat(255), "n".repeat(256), "d/".repeat(3000)]);
    names
}

/// `dir/name`, except that no name is no path.
fn at(dir: &Path, name: &str) -> PathBuf {
    if name.is_empty() { PathBuf::new() } else { dir.join("x").join(name) }
}

/// What lies below `dir`, with its kind and, of files, the contents.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let path = entry.path().strip_prefix(dir).unwrap().to_path_buf();
            if kind.is_dir() {
                dirs.push(entry.path());
            }
            let text = match kind.is_file() {
                true => std::fs::read_to_string(entry.path()).unwrap_or_default(),
                false => format!("{kind:?}"),
            };
            all.insert(path, text);
        }
    }
    all
}

fn text(outcome: impl std::fmt::Debug) -> String {
    format!("{outcome:?}")
}

contract! {
    /// Each function of one path, on each kind of thing: the outcome and what it leaves behind.
    fn functions_of_one_path() {
        for name in names() {
            for which in 0..14 {
                same!(|dir| {
                    std::fs::create_dir(dir.join("x")).unwrap();
                    populate(&dir.join("x"));
                    let path = at(dir, &name);
                    let here = dir.display().to_string();
                    let mode = fs::Permissions::from_mode(0o700);
                    let relative = |p: PathBuf| p.display().to_string().replace(&here, "");
                    let outcome = match which {
                        0 => text(error(fs::metadata(&path).map(|m| assert!(!m.is_symlink())))),
                        1 => text(error(fs::symlink_metadata(&path))),
                        2 => text(error(fs::create_dir(&path))),
                        3 => text(error(fs::create_dir_all(&path))),
                        // not "": that would be the working directory
                        4 if !name.is_empty() => {
                            text(error(fs::create_dir_all(path.join("one/two"))))
                        }
                        5 => text(error(fs::remove_file(&path))),
                        6 => text(error(fs::remove_dir(&path))),
                        // not "." and "..": they would remove more than the test's own
                        7 if !name.starts_with('.') => text(error(fs::remove_dir_all(&path))),
                        8 => text(error(fs::set_permissions(&path, mode.clone()))),
                        9 => text(error(fs::read(&path))),
                        10 => text(error(fs::write(&path, "new"))),
                        11 => text(error(fs::read_dir(&path))),
                        12 => text(seen(fs::read_link(&path).map(relative))),
                        13 => text(seen(fs::canonicalize(&path).map(relative))),
                        _ => text(error(Ok(()))),
                    };
                    (&name, which, outcome, seen(fs::exists(&path)), listing(dir))
                });
            }
        }
    }

    /// Each function of two paths, on all pairs of a few things.
    fn functions_of_two_paths() {
        let names = "file full empty to_file broken socket missing/x empty/ a\0b";
        let names: Vec<_> = names.split(' ').chain([""]).collect();
        for from in &names {
            for to in &names {
                for which in 0..4 {
                    same!(|dir| {
                        std::fs::create_dir(dir.join("x")).unwrap();
                        populate(&dir.join("x"));
                        let (a, b) = (at(dir, from), at(dir, to));
                        let outcome = match which {
                            0 => text(error(fs::rename(&a, &b))),
                            1 => text(error(fs::hard_link(&a, &b))),
                            2 => text(error(unix::symlink(from, &b))),
                            _ => text(seen(fs::copy(&a, &b))),
                        };
                        (from, to, which, outcome, listing(dir))
                    });
                }
            }
        }
    }

    fn metadata_says_the_same() {
        let dir = TempDir::new();
        populate(dir.path());
        let mut paths: Vec<_> = ["file", "full", "broken", "to_dir", "socket"]
            .iter()
            .map(|name| dir.path().join(name))
            .collect();
        paths.extend(["/dev/null", "/proc/self/stat", "/", "/proc/1", "/sys"].map(PathBuf::from));
        for path in paths {
            let ours = ramie::fs::symlink_metadata(&path).unwrap();
            let std = std::fs::symlink_metadata(&path).unwrap();
            let created = (seen(ours.created()), seen(std.created()));
            assert_eq!(format!("{:?}", created.0), format!("{:?}", created.1), "{path:?}");
            // The times of /proc are those of the question.
            if !path.starts_with("/proc") {
                assert_eq!(ours.modified().unwrap(), std.modified().unwrap());
                assert_eq!(ours.accessed().unwrap(), std.accessed().unwrap());
                assert_eq!((ours.mtime(), ours.mtime_nsec()), (std.mtime(), std.mtime_nsec()));
                assert_eq!((ours.atime(), ours.atime_nsec()), (std.atime(), std.atime_nsec()));
                assert_eq!((ours.ctime(), ours.ctime_nsec()), (std.ctime(), std.ctime_nsec()));
            }
            let a = (ours.len(), ours.permissions(), ours.dev(), ours.ino(), ours.mode());
            let b = (std.len(), std.permissions(), std.dev(), std.ino(), std.mode());
            assert_eq!(a, b);
            let a = (ours.nlink(), ours.uid(), ours.gid(), ours.rdev(), ours.size());
            let b = (std.nlink(), std.uid(), std.gid(), std.rdev(), std.size());
            assert_eq!(a, b);
            assert_eq!((ours.blocks(), ours.blksize()), (std.blocks(), std.blksize()));
            let a = (ours.is_dir(), ours.is_file(), ours.is_symlink());
            assert_eq!(a, (std.is_dir(), std.is_file(), std.is_symlink()));
            let (a, b) = (ours.file_type(), std.file_type());
            assert_eq!(
                (a.is_fifo(), a.is_socket(), a.is_block_device(), a.is_char_device()),
                (b.is_fifo(), b.is_socket(), b.is_block_device(), b.is_char_device())
            );
        }
    }

    fn a_directory_is_listed() {
        same!(|dir| {
            populate(dir);
            let mut entries: Vec<_> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let m = entry.metadata().unwrap();
                    assert_eq!(entry.ino(), m.ino());
                    assert_eq!(entry.path(), dir.join(entry.file_name()));
                    assert_eq!(entry.file_type().unwrap().is_dir(), m.is_dir());
                    assert_eq!(entry.file_type().unwrap(), m.file_type());
                    assert!(format!("{entry:?}").starts_with("DirEntry(\""));
                    (entry.file_name(), m.mode(), entry.file_type().unwrap())
                })
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries
        });
        same!(|_dir| format!("{:?}", fs::read_dir("/dev").unwrap()));
    }

    fn a_large_directory_is_listed_once() {
        let dir = TempDir::new();
        let count = 3000;
        for n in 0..count {
            std::fs::write(dir.path().join(format!("{n}-{}", "x".repeat(n % 200))), "").unwrap();
        }
        let mut seen: Vec<_> =
            ramie::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(seen.len(), count);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        ramie::fs::remove_dir_all(dir.path()).unwrap();
    }

    fn a_directory_that_goes_away_while_it_is_listed() {
        same!(|dir| {
            let sub = dir.join("sub");
            std::fs::create_dir(&sub).unwrap();
            std::fs::write(sub.join("f"), "x").unwrap();
            let mut entries = fs::read_dir(&sub).unwrap();
            let first = entries.next().unwrap().unwrap();
            std::fs::rename(&sub, dir.join("moved")).unwrap();
            let still_there = seen(first.metadata().map(|m| m.len()));
            std::fs::remove_dir_all(dir.join("moved")).unwrap();
            let gone = error(first.metadata());
            let removed = fs::read_dir(dir).unwrap();
            (still_there, gone, removed.count(), entries.next().is_none(), entries.next().is_none())
        });
        same!(|dir| {
            let sub = dir.join("sub");
            std::fs::create_dir(&sub).unwrap();
            let mut entries = fs::read_dir(&sub).unwrap();
            std::fs::remove_dir(&sub).unwrap();
            entries.next().is_none()
        });
    }

    fn directories_get_their_mode() {
        same!(|dir| {
            let path = dir.join("one/two");
            let made = seen(fs::DirBuilder::new().mode(0o710).recursive(true).create(&path));
            let again = seen(fs::DirBuilder::new().mode(0o700).recursive(true).create(&path));
            let not_again = seen(fs::DirBuilder::new().create(&path));
            let modes = ["one", "one/two"].map(|p| dir.join(p).metadata().unwrap().mode());
            (made, again, not_again, modes)
        });
    }

    fn directories_are_made_together() {
        let dir = TempDir::new();
        let path = dir.path().join("a/b/c/d/e/f/g/h");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| ramie::fs::create_dir_all(&path).unwrap());
            }
        });
        assert!(path.is_dir());
    }

    fn a_deep_tree_is_removed() {
        let dir = TempDir::new();
        let mut path = dir.path().join("top");
        for n in 0..200 {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), n.to_string()).unwrap();
            std::os::unix::fs::symlink("/", path.join("link")).unwrap();
            path.push("d");
        }
        ramie::fs::remove_dir_all(dir.path().join("top")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    fn links_in_a_tree_are_not_followed() {
        let dir = TempDir::new();
        let kept = dir.path().join("kept");
        std::fs::create_dir_all(kept.join("inner")).unwrap();
        std::fs::write(kept.join("file"), "precious").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        std::os::unix::fs::symlink("link/inner", tree.join("link2")).unwrap();
        ramie::fs::remove_dir_all(&tree).unwrap();
        std::os::unix::fs::symlink(&kept, &tree).unwrap();
        ramie::fs::remove_dir_all(&tree).unwrap(); // the link, not what it leads to
        assert!(!ramie::fs::exists(&tree).unwrap());
        assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"precious");
        assert!(kept.join("inner").is_dir());
    }

    /// Somebody swaps a directory for a link, over and over, while the tree is removed.
    fn a_tree_swapped_for_a_link_leads_nowhere() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = TempDir::new();
        let (kept, tree) = (dir.path().join("kept"), dir.path().join("tree"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "precious").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::create_dir_all(tree.join("d"));
                    let _ = std::fs::write(tree.join("d/mine"), "mine");
                    let _ = std::fs::rename(tree.join("d"), tree.join("e"));
                    let _ = std::os::unix::fs::symlink(&kept, tree.join("d"));
                }
            });
            for _ in 0..300 {
                let _ = ramie::fs::remove_dir_all(&tree);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"precious");
    }

    fn copies_carry_contents_and_mode() {
        for size in [0usize, 1, 4096, 1_000_003] {
            same!(|dir| {
                let (from, to) = (dir.join("from"), dir.join("to"));
                let bytes: Vec<u8> = (0..size).map(|n| (n % 253) as u8).collect();
                std::fs::write(&from, &bytes).unwrap();
                std::fs::set_permissions(&from, fs::Permissions::from_mode(0o741)).unwrap();
                std::fs::write(&to, "something longer before").unwrap();
                let n = seen(fs::copy(&from, &to));
                assert!(std::fs::read(&to).unwrap() == bytes);
                let onto_itself = seen(fs::copy(&from, &from));
                (n, to.metadata().unwrap().mode(), onto_itself, from.metadata().unwrap().len())
            });
        }
        same!(|dir| {
            let to = dir.join("to");
            let from_proc = error(fs::copy("/proc/self/limits", &to));
            let to_device = (error(fs::copy(&to, "/dev/null")), error(fs::copy(&to, "/dev/full")));
            (from_proc, to_device, std::fs::read_to_string(&to).unwrap())
        });
    }

    /// Of all sizes around those of pages and of what is read at once, on a disk and in memory,
    /// alone and in a crowd, from the cache or not.
    fn whole_files_of_all_sizes() {
        const MIB: usize = 1 << 20;
        const SIZES: [usize; 14] =
            [0, 1, 31, 33, 4095, 4096, 4097, 8192, 10_000, 65_536, 70_000, MIB - 1, MIB, MIB + 1];
        let contents: Arc<Vec<u8>> = Arc::new((0..=MIB).map(|n| (n % 251) as u8).collect());
        let (disk, memory) = (TempDir::new(), TempDir::in_memory());
        let mut files = vec![];
        for dir in [Some(disk.path()), memory.as_ref().map(TempDir::path)].into_iter().flatten() {
            for size in SIZES {
                files.push((dir.join(size.to_string()), size));
                let mut file = std::fs::File::create(dir.join(size.to_string())).unwrap();
                std::io::Write::write_all(&mut file, &contents[..size]).unwrap();
                file.sync_all().unwrap(); // once: a busy disk takes its time
            }
        }
        let read_all = move |evicted: bool| {
            for (path, size) in &files {
                if evicted {
                    let file = std::fs::File::open(path).unwrap();
                    let fd = file.as_raw_fd();
                    // SAFETY: no memory is passed.
                    unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
                }
                assert!(ramie::fs::read(path).unwrap() == contents[..*size]);
                assert!(ramie::fs::read_limited(path, *size).unwrap() == contents[..*size]);
            }
        };
        read_all(false);
        read_all(true);
        let crowd = if ramie::is_fiber() { 40 } else { 0 };
        let spawn = |i| {
            let read_all = read_all.clone();
            ramie::spawn(move || read_all(i % 8 == 0))
        };
        let others: Vec<_> = (0..crowd).map(spawn).collect();
        others.into_iter().for_each(|fiber| fiber.join().unwrap());
    }

    /// A FIFO is waited for, and read until its last writer has left, however little comes at once.
    fn a_whole_fifo() {
        let dir = TempDir::new();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        for chunk in [1, 31, 32, 4096, 5000] {
            let writer = std::thread::spawn({
                let path = path.clone();
                move || {
                    let mut file = std::fs::File::options().write(true).open(path).unwrap();
                    for _ in 0..9 {
                        std::io::Write::write_all(&mut file, &vec![7; chunk]).unwrap();
                        std::thread::yield_now();
                    }
                }
            });
            assert!(ramie::fs::read(&path).unwrap() == vec![7; 9 * chunk]);
            writer.join().unwrap();
        }
    }

    /// An ancestor read the whole file, whatever its limit was.
    fn a_limited_read_keeps_its_limit() {
        let dir = TempDir::new();
        let path = dir.path().join("f");
        for size in [0usize, 1, 31, 32, 33, 5000, 100_000] {
            std::fs::write(&path, vec![b'x'; size]).unwrap();
            for max in [size, size + 1, size * 2, usize::MAX] {
                assert_eq!(ramie::fs::read_limited(&path, max).unwrap().len(), size);
            }
            for max in [0, size / 2, size.saturating_sub(1)] {
                if max < size {
                    let e = ramie::fs::read_limited(&path, max).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::FileTooLarge);
                }
            }
        }
        for max in [0, 1, 100, 10_000] {
            let e = ramie::fs::read_limited("/dev/zero", max).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::FileTooLarge);
            let e = ramie::fs::read_limited("/proc/self/maps", max.min(100)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::FileTooLarge);
        }
        let all = std::fs::read("/proc/self/limits").unwrap();
        assert_eq!(ramie::fs::read_limited("/proc/self/limits", all.len()).unwrap(), all);
        let e = ramie::fs::read_limited(dir.path().join("missing"), 9).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }

    /// A limited read of a pipe takes one byte more than the limit and leaves the rest there.
    fn a_limited_read_takes_no_more() {
        let dir = TempDir::new();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        // Opened for both, a FIFO waits for nobody.
        let both = ramie::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut &both, &[7; 100]).unwrap();
        let e = ramie::fs::read_limited(&path, 60).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FileTooLarge);
        let mut rest = [0; 100];
        assert_eq!(std::io::Read::read(&mut &both, &mut rest).unwrap(), 39);
    }

    /// An ancestor's `openWriteMode` dropped its mode.
    fn files_get_their_mode() {
        let dir = TempDir::new();
        for mode in [0o600, 0o640, 0o400, 0o711] {
            let made = |name| dir.path().join(format!("{name}-{mode:o}"));
            ramie::fs::write_mode(made("a"), "text", mode).unwrap();
            ramie::fs::open_write_mode(made("b"), mode).unwrap();
            ramie::fs::open_read_write(made("c"), mode).unwrap();
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode)
                .open(made("std")).unwrap();
            let expected = made("std").metadata().unwrap().mode();
            for name in ["a", "b", "c"] {
                assert_eq!(made(name).metadata().unwrap().mode(), expected);
            }
            assert_eq!(std::fs::read(made("a")).unwrap(), b"text");
        }
    }

    fn an_atomic_write_replaces_or_leaves() {
        let dir = TempDir::new();
        let path = dir.path().join("f");
        ramie::fs::write_atomic(&path, "one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::hard_link(&path, dir.path().join("old")).unwrap();
        ramie::fs::write_atomic(&path, "two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"one");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o6755)).unwrap();
        ramie::fs::write_atomic(&path, "not what was trusted").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755);
        std::fs::create_dir_all(dir.path().join("d/full")).unwrap();
        let e = ramie::fs::write_atomic(dir.path().join("d"), "no").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::IsADirectory);
        for bad in ["missing/f", "", "..", "f/", "f/.", "new/."] {
            let path = if bad.is_empty() { PathBuf::new() } else { dir.path().join(bad) };
            ramie::fs::write_atomic(path, "no").unwrap_err();
        }
        let left: BTreeMap<_, _> = listing(dir.path());
        let names: Vec<_> = left.keys().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["d", "d/full", "f", "old"], "no temporary file is left behind");
    }

    fn an_atomic_write_that_ends_early_leaves_nothing() {
        let dir = TempDir::new();
        let path = dir.path().join("f");
        let contents = vec![1; 64 << 20];
        for limit in [1, 5, 20, 40].map(std::time::Duration::from_millis) {
            // Two deadlines: the second is still to be reported when the first has been.
            let write = || ramie::fs::write_atomic(&path, &contents);
            let _ = ramie::time::timeout(limit, || ramie::time::timeout(limit, write));
        }
        let left: BTreeMap<_, _> = listing(dir.path());
        assert!(left.keys().all(|name| name.as_os_str() == "f"), "{:?}", left.keys());
    }

    fn the_four_ways_to_open() {
        use std::io::{Read, Write};
        let dir = TempDir::new();
        let path = dir.path().join("f");
        assert_eq!(ramie::fs::open_read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        ramie::fs::open_write(&path).unwrap().write_all(b"0123456789").unwrap();
        let mut file = ramie::fs::open_read_write(&path, 0o600).unwrap();
        file.write_all(b"AB").unwrap();
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "23456789");
        assert_eq!(ramie::fs::read(&path).unwrap(), b"AB23456789");
        ramie::fs::open_write_mode(&path, 0o600).unwrap();
        assert_eq!(ramie::fs::read(&path).unwrap(), b"");
    }

    fn owners() {
        same!(|dir| {
            let path = dir.join("f");
            std::fs::write(&path, "x").unwrap();
            let m = std::fs::metadata(&path).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            (seen(unix::chown(&path, Some(m.uid()), Some(m.gid()))),
             seen(unix::lchown(&path, None, None)), seen(unix::fchown(&file, None, Some(m.gid()))),
             seen(unix::chown(dir.join("missing"), None, None)))
        });
    }
}
