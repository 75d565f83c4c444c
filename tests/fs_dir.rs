//! `ramie::fs` beyond std: directories that are open, streams at an offset, promised closes; and
//! Linux's part of std.
#![allow(deprecated, reason = "what std has is tested, even if it has something better")]

mod common;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::{Seen, TempDir, error, fds, isolated, runtime, seen};
use ramie::fs::{self, CloseOperation, Dir, File, OpenOptions, ReadStream, WriteStream};

fn names(entries: fs::ReadDir) -> BTreeSet<String> {
    entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()).collect()
}

contract! {
    /// Every method, in a directory whose path leads elsewhere by now.
    fn an_open_directory_stays_the_same() {
        let temp = TempDir::new();
        let (path, moved) = (temp.path().join("here"), temp.path().join("there"));
        fs::create_dir(&path).unwrap();
        let dir = Dir::open(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();

        dir.create_file("a").unwrap().write_all(b"text").unwrap();
        let mut options = OpenOptions::new();
        let file = dir.open_file_with("a", options.read(true).append(true)).unwrap();
        (&file).write_all(b", more").unwrap();
        let mut text = String::new();
        dir.open_file("a").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text, more");

        dir.create_dir("sub").unwrap();
        let sub = dir.open_dir("sub").unwrap();
        dir.hard_link("a", &sub, "b").unwrap();
        assert_eq!(dir.metadata("sub/b").unwrap().len(), 10);
        sub.rename("b", &dir, "c").unwrap();
        dir.symlink("c", "link").unwrap();
        assert_eq!(dir.read_link("link").unwrap().to_str(), Some("c"));
        assert!(dir.symlink_metadata("link").unwrap().is_symlink());
        assert!(dir.metadata("link").unwrap().is_file());
        assert!(dir.exists("link").unwrap());
        dir.set_permissions("link", fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(dir.metadata("c").unwrap().permissions().mode() & 0o777, 0o600);
        let all = ["a", "c", "link", "sub"].map(String::from);
        assert_eq!(names(dir.entries().unwrap()), BTreeSet::from(all));
        sub.create_file("x").unwrap();
        assert_eq!(names(dir.read_dir("sub").unwrap()), BTreeSet::from(["sub/x".into()]));
        dir.sync_all().unwrap();
        dir.remove_file("link").unwrap();
        assert!(!dir.exists("link").unwrap() && dir.exists("c").unwrap());
        assert_eq!(dir.remove_dir("sub").unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        dir.remove_dir_all("sub").unwrap();
        sub.create_file("y").unwrap_err();
        assert_eq!(sub.entries().unwrap().count(), 0);
        let twin = dir.try_clone().unwrap();
        let mode = |dir: &Dir| dir.dir_metadata().unwrap().permissions().mode();
        assert_eq!(mode(&twin), mode(&dir));
        drop(dir);
        let back = Dir::from(OwnedFd::from(twin));
        assert!(back.exists("a").unwrap());
        assert_eq!(std::fs::read_dir(&moved).unwrap().count(), 2);
        assert!(std::fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    fn what_a_directory_refuses() {
        let temp = TempDir::new();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_file("file").unwrap();
        dir.symlink(".", "loop").unwrap();
        dir.symlink("nowhere", "broken").unwrap();
        let long = "n".repeat(256);
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(Dir::open(temp.path().join("file")).map(drop)), ErrorKind::NotADirectory);
        assert_eq!(kind(dir.open_dir("missing").map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(dir.open_file("a\0b").map(drop)), ErrorKind::InvalidInput);
        assert_eq!(kind(dir.create_file(&long).map(drop)), ErrorKind::InvalidFilename);
        assert_eq!(kind(dir.create_dir("file")), ErrorKind::AlreadyExists);
        assert_eq!(kind(dir.remove_dir("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(dir.remove_file("")), ErrorKind::NotFound);
        assert_eq!(kind(dir.rename("missing", &dir, "x")), ErrorKind::NotFound);
        assert_eq!(kind(dir.read_link("file").map(drop)), ErrorKind::InvalidInput);
        let none = fs::Permissions::from_mode(0o0);
        assert_eq!(kind(dir.set_permissions("broken", none)), ErrorKind::NotFound);
        assert_eq!(kind(dir.remove_dir_all("missing")), ErrorKind::NotFound);
        assert!(!dir.exists("broken").unwrap());
        dir.open_dir("loop").unwrap();
        assert!(dir.open_dir_nofollow("loop").is_err());
        dir.remove_dir_all("loop").unwrap();
        assert!(dir.exists("file").unwrap());
        // A descriptor that is no directory's is found out by the first operation.
        let file = Dir::from(OwnedFd::from(dir.open_file("file").unwrap()));
        assert_eq!(kind(file.exists("x").map(drop)), ErrorKind::NotADirectory);
        // Long links are read whole.
        let target = "t".repeat(3000);
        dir.symlink(&target, "long").unwrap();
        assert_eq!(dir.read_link("long").unwrap().to_str(), Some(target.as_str()));
    }

    fn streams_have_an_offset_of_their_own() {
        let temp = TempDir::new();
        let path = temp.path().join("f");
        let mut options = File::options();
        let file = Arc::new(options.read(true).write(true).create(true).open(&path).unwrap());
        let mut out = WriteStream::new(file.clone(), 3);
        out.write_all(b"abc").unwrap();
        let parts = [io::IoSlice::new(b"d"), io::IoSlice::new(b""), io::IoSlice::new(b"ef")];
        assert_eq!(out.write_vectored(&parts).unwrap(), 3);
        assert_eq!((out.offset(), (&*file).stream_position().unwrap()), (9, 0));
        assert_eq!(out.seek(SeekFrom::Start(0)).unwrap(), 0);
        out.write_all(b"xyz").unwrap();
        out.flush().unwrap();

        let mut text = String::new();
        ReadStream::new(&*file, 2).read_to_string(&mut text).unwrap();
        assert_eq!(text, "zabcdef");
        let mut stream = ReadStream::new(&*file, 0);
        assert_eq!(stream.seek(SeekFrom::End(-4)).unwrap(), 5);
        let (mut a, mut b) = ([0; 1], [0; 2]);
        let mut bufs = [io::IoSliceMut::new(&mut a), io::IoSliceMut::new(&mut b)];
        assert_eq!(stream.read_vectored(&mut bufs).unwrap(), 3);
        assert_eq!((a, b), (*b"c", *b"de"));
        assert_eq!(stream.seek(SeekFrom::Current(-8)).unwrap(), 0);
        for bad in [SeekFrom::Current(-1), SeekFrom::End(-10), SeekFrom::Start(1 << 63)] {
            assert_eq!(stream.seek(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(stream.offset(), 0);
        }
        let mut one = [0];
        let mut all = Vec::new();
        while stream.read(&mut one).unwrap() == 1 {
            all.push(one[0]);
        }
        assert_eq!(all, b"xyzabcdef");
        assert_eq!(stream.read(&mut []).unwrap(), 0);
        drop(out.into_inner());
        Arc::into_inner(file).unwrap().close().unwrap();
    }

    fn a_promised_close_is_kept() {
        let open = || OwnedFd::from(File::open("/dev/null").unwrap());
        let is_open = |fd: i32| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        let mut close = CloseOperation::start();
        assert!(close.get_handle().is_none() && close.clear_handle().is_none());
        let handle = open();
        let number = handle.as_raw_fd();
        close.set_handle(handle);
        assert_eq!(close.get_handle().unwrap().as_raw_fd(), number);
        let back = close.clear_handle().unwrap();
        CloseOperation::default().finish();
        assert!(is_open(back.as_raw_fd()));
        // A pipe shows when its other end is closed, and no other test can reuse that number.
        for end in [|close: CloseOperation| close.finish(), drop::<CloseOperation>] {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut close = CloseOperation::start();
            close.set_handle(writer);
            end(close);
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        }
        let (mut reader, writer) = io::pipe().unwrap();
        close.set_handle(writer);
        close.set_handle(back);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the one before is closed");
        let file = File::from(close.clear_handle().unwrap());
        assert_eq!(file.as_fd().as_raw_fd(), number);
    }

    /// A trait of std whose names are C's.
    fn linux_metadata() {
        #[cfg(raw_stat)]
        use std::os::linux::fs::MetadataExt;
        #[cfg(raw_stat)]
        same!(|dir| {
            std::fs::write(dir.join("f"), "12345").unwrap();
            let of = |path: &std::path::Path| {
                let m = fs::metadata(path).unwrap();
                let raw = m.as_raw_stat();
                let raw = (raw.st_mode, raw.st_size, raw.st_nlink, raw.st_uid, raw.st_mtime);
                let times = (m.st_mtime(), m.st_mtime_nsec(), m.st_atime(), m.st_atime_nsec());
                let ids = (m.st_dev(), m.st_ino(), m.st_mode(), m.st_nlink());
                let ids = (ids, m.st_uid(), m.st_gid());
                let sizes = (m.st_rdev(), m.st_size(), m.st_blksize(), m.st_blocks());
                (ids, sizes, times, raw, (m.st_ctime(), m.st_ctime_nsec()))
            };
            let new = of(&dir.join("f"));
            (of("Cargo.toml".as_ref()), of("src".as_ref()), new.0.0.2, new.1)
        });
    }

    fn soft_links() {
        same!(|dir| {
            let link = dir.join("l");
            let log = (seen(fs::soft_link("a", &link)), error(fs::soft_link("b", &link)));
            (log, fs::read_link(link).unwrap())
        });
    }
}

/// Closing is exempt from requests and from the shutdown: what was promised happens.
#[test]
fn a_promised_close_of_a_cancelled_fiber() {
    isolated("a_promised_close_of_a_cancelled_fiber", || {
        let rt = runtime(1);
        let before = rt.run(fds);
        rt.run(|| {
            let (reader, writer) = io::pipe().unwrap();
            let fiber = ramie::spawn(move || {
                let mut close = CloseOperation::start();
                let mut file = File::from(OwnedFd::from(reader));
                close.set_handle(writer);
                let cancelled = file.read(&mut [0; 4]).unwrap_err();
                assert!(ramie::is_cancelled(&cancelled));
                close.finish();
                assert_eq!(file.read(&mut [0; 4]).unwrap(), 0);
            });
            ramie::yield_now();
            fiber.cancel();
            fiber.join().unwrap();
        });
        assert_eq!(rt.run(fds), before);
    });
}

/// Nothing of all this leaves a descriptor behind.
#[test]
fn no_descriptor_is_left() {
    isolated("no_descriptor_is_left", || {
        // One worker: a second one may start at any time, and has a ring of its own.
        runtime(1).run(|| {
            let temp = TempDir::new();
            let work = || {
                let dir = Dir::open(temp.path()).unwrap();
                dir.create_dir("d").unwrap();
                dir.open_dir("d").unwrap().create_file("f").unwrap();
                let Seen::Bad(..) = error(dir.open_file("missing")) else { unreachable!() };
                let mut left = dir.read_dir("d").unwrap(); // not read to its end
                drop(left.next());
                dir.try_clone().unwrap().remove_dir_all("d").unwrap();
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
