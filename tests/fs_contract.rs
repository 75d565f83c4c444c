//! `ramie::fs::File` does what `std::fs::File` does. Paths and directories are in
//! `fs_paths_contract.rs`.

mod common;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant, SystemTime};

use common::{TempDir, error, seen};

contract! {
    /// All 64 combinations of options, on a file that exists and on one that does not.
    fn every_combination_of_options() {
        for bits in 0..64u32 {
            for exists in [false, true] {
                same!(|dir| {
                    let path = dir.join("f");
                    if exists {
                        std::fs::write(&path, "before").unwrap();
                    }
                    let on = |bit: u32| bits >> bit & 1 == 1;
                    let file = fs::OpenOptions::new()
                        .read(on(0)).write(on(1)).append(on(2))
                        .truncate(on(3)).create(on(4)).create_new(on(5))
                        .open(&path);
                    let outcome = file.map(|mut file| {
                        let written = seen(file.write(b"new"));
                        let end = seen(file.stream_position());
                        let back = seen(file.rewind());
                        let mut text = String::new();
                        let read = seen(file.read_to_string(&mut text));
                        (written, end, back, read, text)
                    });
                    (bits, seen(outcome), std::fs::read(&path).ok())
                });
            }
        }
    }

    fn opening_what_cannot_be_opened() {
        let long_name = "n".repeat(256);
        let long_path = "d/".repeat(2500);
        let names = ["", ".", "missing", "missing/x", "f/x", "d", "nul\0x", "loop", "d/../f", "f/",
            &long_name, &long_path];
        for name in names {
            same!(|dir| {
                std::fs::write(dir.join("f"), "text").unwrap();
                std::fs::create_dir(dir.join("d")).unwrap();
                std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
                let path = if name.is_empty() { name.into() } else { dir.join(name) };
                (name,
                 error(fs::File::open(&path)),
                 error(fs::OpenOptions::new().write(true).open(&path)),
                 error(fs::File::create(&path)),
                 error(fs::File::create_new(&path)))
            });
        }
    }

    fn create_new_does_not_touch_what_exists() {
        same!(|dir| {
            let path = dir.join("f");
            let first = fs::File::create_new(&path).and_then(|mut f| {
                f.write_all(b"one")?;
                f.rewind()?;
                let mut text = String::new();
                f.read_to_string(&mut text)?;
                Ok(text)
            });
            (seen(first), error(fs::File::create_new(&path)), std::fs::read(&path).unwrap())
        });
    }

    fn modes_and_flags_reach_the_kernel() {
        for mode in [0o600, 0o640, 0o444, 0o755] {
            same!(|dir| {
                let path = dir.join("f");
                let file = fs::OpenOptions::new()
                    .write(true).create(true).mode(mode).open(&path).unwrap();
                file.metadata().unwrap().permissions().mode()
            });
        }
        for flags in [libc::O_NOFOLLOW, libc::O_DIRECTORY, libc::O_EXCL, libc::O_WRONLY] {
            same!(|dir| {
                std::fs::write(dir.join("f"), "x").unwrap();
                std::os::unix::fs::symlink("f", dir.join("link")).unwrap();
                let open = |name| {
                    let file = fs::OpenOptions::new()
                        .read(true).custom_flags(flags).open(dir.join(name));
                    seen(file.and_then(|mut f| f.read(&mut [0; 4])))
                };
                (open("f"), open("link"), open("."))
            });
        }
    }

    fn descriptors_are_closed_on_exec_and_on_drop() {
        let dir = TempDir::new();
        let file = ramie::fs::File::create(dir.path().join("f")).unwrap();
        let link = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
        let info = std::fs::read_to_string(link).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & libc::O_CLOEXEC, 0);

        let lock = ramie::fs::File::open(dir.path().join("f")).unwrap();
        file.lock().unwrap();
        assert!(lock.try_lock().is_err());
        drop(file);
        lock.lock().unwrap(); // the close has happened, or happens soon
    }

    fn opening_a_fifo_waits_for_the_other_end() {
        let wait = Duration::from_millis(30);
        same!(|dir| {
            let path = &dir.join("fifo");
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
            let start = Instant::now();
            let mut log = Vec::new();
            std::thread::scope(|scope| {
                // A writer that writes nothing until its reader has come back from `open`.
                let (opened, reader_has_opened) = std::sync::mpsc::channel();
                let writer = scope.spawn(move || {
                    std::thread::sleep(wait);
                    let mut file = std::fs::File::options().write(true).open(path).unwrap();
                    let in_time = reader_has_opened.recv_timeout(Duration::from_secs(20)).is_ok();
                    file.write_all(b"late").unwrap();
                    in_time
                });
                let mut file = fs::File::open(path).unwrap();
                let waited = start.elapsed() >= wait;
                let _ = opened.send(());
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                log.push((waited, writer.join().unwrap(), text));
            });
            for create in [false, true] {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    let reader = scope.spawn(move || {
                        std::thread::sleep(wait);
                        std::fs::read_to_string(path).unwrap()
                    });
                    let mut options = fs::OpenOptions::new();
                    let mut file =
                        options.write(true).create(create).truncate(create).open(path).unwrap();
                    let waited = start.elapsed() >= wait;
                    file.write_all(b"text").unwrap();
                    drop(file);
                    log.push((waited, true, reader.join().unwrap()));
                });
            }
            log
        });
    }

    fn close_reports() {
        let dir = TempDir::new();
        let file = ramie::fs::File::create(dir.path().join("f")).unwrap();
        file.close().unwrap();
        ramie::fs::File::open("/dev/null").unwrap().close().unwrap();
    }

    fn reads_writes_and_seeks_share_a_position() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::OpenOptions::new()
                .read(true).write(true).create_new(true).open(path).unwrap();
            let mut log = vec![seen(file.write(b"0123456789").map(|n| n as u64))];
            for pos in [SeekFrom::Start(3), SeekFrom::Current(2), SeekFrom::End(-2),
                SeekFrom::Current(-100), SeekFrom::End(5), SeekFrom::Start(u64::MAX)] {
                log.push(seen(file.seek(pos)));
                let mut buf = [b'.'; 4];
                log.push(seen((&file).read(&mut buf).map(|n| n as u64)));
                log.push(seen(Ok(u64::from(u32::from_ne_bytes(buf)))));
                log.push(seen(file.stream_position()));
            }
            let mut twin = file.try_clone().unwrap();
            twin.seek(SeekFrom::Start(1)).unwrap();
            log.push(seen(file.stream_position()));
            log.push(seen((&file).write(b"AB").map(|n| n as u64)));
            log.push(seen(twin.stream_position()));
            let mut all = String::new();
            twin.rewind().unwrap();
            twin.read_to_string(&mut all).unwrap();
            (log, all)
        });
    }

    fn empty_buffers() {
        same!(|dir| {
            let path = dir.join("f");
            std::fs::write(&path, "x").unwrap();
            let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let mut only_read = fs::File::open(&path).unwrap();
            (seen(file.read(&mut [])), seen(file.write(&[])), seen(file.read_at(&mut [], 9)),
             seen(file.write_at(&[], 9)), seen(file.read_vectored(&mut [])),
             seen(file.write_vectored(&[])), seen(only_read.write(&[])),
             seen(file.read_exact(&mut [])),
             seen(file.write_all(&[])))
        });
    }

    fn directories_are_no_streams() {
        same!(|dir| {
            let mut folder = fs::File::open(dir).unwrap();
            let mut text = String::new();
            (seen(folder.read(&mut [0; 8])), seen(folder.write(b"x")),
             seen(folder.read_to_end(&mut Vec::new())), seen(folder.read_to_string(&mut text)),
             seen(folder.read_at(&mut [0; 8], 0)), seen(folder.set_len(0)),
             error(fs::read(dir)), error(fs::write(dir, "x")))
        });
    }

    fn access_modes_are_enforced() {
        same!(|dir| {
            let path = dir.join("f");
            std::fs::write(&path, "text").unwrap();
            let mut reader = fs::File::open(&path).unwrap();
            let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
            (seen(reader.write(b"x")), seen(reader.write_at(b"x", 0)), seen(reader.set_len(0)),
             seen(reader.sync_all()), seen(writer.read(&mut [0; 4])),
             seen(writer.read_at(&mut [0; 4], 0)), seen(writer.read_to_end(&mut Vec::new())))
        });
    }

    fn append_goes_to_the_end() {
        same!(|dir| {
            let path = dir.join("f");
            std::fs::write(&path, "start").unwrap();
            let mut file =
                fs::OpenOptions::new().read(true).append(true).open(&path).unwrap();
            file.seek(SeekFrom::Start(1)).unwrap();
            let n = seen(file.write(b"-one"));
            let at = seen(file.stream_position());
            let m = seen(file.write_at(b"-two", 0)); // Linux appends here too
            let v = seen(file.write_vectored(&[IoSlice::new(b"-"), IoSlice::new(b"three")]));
            (n, at, m, v, std::fs::read_to_string(&path).unwrap())
        });
    }

    /// An ancestor's `pread` and `pwrite` called nothing at all.
    fn offsets_leave_the_position() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::OpenOptions::new()
                .read(true).write(true).create_new(true).open(&path).unwrap();
            file.write_all(b"0123456789").unwrap();
            let mut buf = [0; 4];
            let mut log = vec![
                seen(file.write_at(b"AB", 2)),
                seen(file.read_at(&mut buf, 1)),
                seen(file.read_at(&mut [0; 4], 8)),
                seen(file.read_at(&mut [0; 4], 10)),
                seen(file.read_at(&mut [0; 4], i64::MAX as u64)),
                seen(file.read_at(&mut [0; 4], 1 << 63)),
                seen(file.read_at(&mut [0; 4], u64::MAX)), // in the ring: the position
                seen(file.write_at(b"x", u64::MAX)),
                seen(file.write_at(b"end", 20)),
            ];
            log.push(seen(file.stream_position().map(|n| n as usize)));
            let exact = (seen(file.read_exact_at(&mut buf, 3)), buf);
            let short = error(file.read_exact_at(&mut [0; 30], 0));
            let all = error(file.write_all_at(b"zz", 0));
            (log, exact, short, all, std::fs::read(&path).unwrap())
        });
    }

    fn offsets_on_what_has_none() {
        same!(|_dir| {
            let (reader, writer) = io::pipe().unwrap();
            (&writer).write_all(b"abc").unwrap();
            let file = fs::File::from(OwnedFd::from(reader));
            let sink = fs::File::from(OwnedFd::from(writer));
            (seen((&file).seek(SeekFrom::Start(0))), seen(file.read_at(&mut [0; 2], 0)),
             seen(sink.write_at(b"x", 0)), seen((&file).read(&mut [0; 2])),
             seen((&sink).write(b"xyz")))
        });
    }

    /// An ancestor had no `readv`.
    fn vectored() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::OpenOptions::new()
                .read(true).write(true).create_new(true).open(&path).unwrap();
            let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cdefgh")];
            let n = seen(file.write_vectored(&parts));
            file.rewind().unwrap();
            let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 9]);
            let m = seen(file.read_vectored(&mut [
                IoSliceMut::new(&mut a), IoSliceMut::new(&mut b), IoSliceMut::new(&mut c),
            ]));
            (n, m, a, c, seen(file.stream_position()))
        });
    }

    fn more_buffers_than_one_call_takes() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::OpenOptions::new()
                .read(true).write(true).create_new(true).open(&path).unwrap();
            let parts = vec![IoSlice::new(b"xy"); 3000];
            let n = seen(file.write_vectored(&parts));
            file.rewind().unwrap();
            let mut bytes = [0u8; 3000];
            let mut bufs: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
            let m = seen(file.read_vectored(&mut bufs));
            (n, m, bytes.iter().filter(|b| **b != 0).count())
        });
    }

    fn vectored_at_offsets() {
        let dir = TempDir::new();
        let file = ramie::fs::File::create_new(dir.path().join("f")).unwrap();
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(file.write_vectored_at(&parts, 3).unwrap(), 4);
        let (mut a, mut b) = ([9; 4], [9; 5]);
        let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(file.read_vectored_at(&mut bufs, 1).unwrap(), 6);
        assert_eq!((&a, &b), (b"\0\0ab", b"cd\x09\x09\x09"));
        assert_eq!((&file).stream_position().unwrap(), 0);
        let e = file.read_vectored_at(&mut [], u64::MAX).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        let e = file.write_vectored_at(&parts, 1 << 63).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        let many = vec![IoSlice::new(b"z"); 5000];
        assert_eq!(file.write_vectored_at(&many, 0).unwrap(), 1024);
    }

    /// Linux transfers 0x7ffff000 bytes at most; a ring's own limit is 32 bits of length.
    fn more_bytes_than_one_call_takes() {
        let huge = vec![0; (1 << 32) + 5]; // never touched, hence never there
        same!(|_dir| {
            let mut null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
            let parts = [IoSlice::new(&huge[..3 << 30]), IoSlice::new(&huge[..3 << 30])];
            let vectored = seen(null.write_vectored(&parts));
            (seen(null.write(&huge)), seen(null.write_at(&huge, 7)), vectored)
        });
    }

    fn a_full_device() {
        same!(|_dir| {
            let mut full = fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
            let mut some = [7; 4];
            (seen(full.write(b"x")), seen(full.write_all(b"x")), seen(full.write_at(b"x", 3)),
             seen(full.write_vectored(&[IoSlice::new(b"x")])), seen(full.read(&mut some)), some,
             seen(fs::write("/dev/full", "text")))
        });
    }

    fn reading_to_the_end() {
        for size in [0usize, 1, 31, 32, 33, 8191, 8192, 8193, 100_000, 3_000_000] {
            let end = size as u64;
            for (skip, spare) in [(0, 0), (0, 10), (5, 0), (end, 40), (end + 9, 0)] {
                same!(|dir| {
                    let path = dir.join("f");
                    let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                    std::fs::write(&path, &bytes).unwrap();
                    let mut file = fs::File::open(&path).unwrap();
                    file.seek(SeekFrom::Start(skip)).unwrap();
                    let mut buf = Vec::with_capacity(spare);
                    buf.extend_from_slice(b"kept ");
                    let n = seen(file.read_to_end(&mut buf));
                    let from = bytes.len().min(skip as usize);
                    assert_eq!(&buf[..5], b"kept ");
                    assert!(buf[5..] == bytes[from..]);
                    (n, buf.len(), seen(file.read(&mut [0; 1])))
                });
            }
        }
    }

    fn files_without_a_size() {
        for path in ["/proc/self/limits", "/proc/version", "/dev/null", "/sys/power/state"] {
            same!(|_dir| (seen(fs::read_to_string(path)), seen(fs::read(path).map(|b| b.len()))));
        }
        same!(|_dir| {
            let mut file = fs::File::open("/dev/zero").unwrap();
            let mut few = vec![1];
            (seen((&mut file).take(100_000).read_to_end(&mut few)), few.len())
        });
    }

    fn a_pipe_to_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let sender = std::thread::spawn(move || {
            for n in 0..200u8 {
                writer.write_all(&[n; 999]).unwrap();
            }
        });
        let mut bytes = Vec::new();
        let mut file = ramie::fs::File::from(OwnedFd::from(reader));
        assert_eq!(file.read_to_end(&mut bytes).unwrap(), 200 * 999);
        assert!(bytes.chunks(999).enumerate().all(|(n, part)| part == [n as u8; 999]));
        sender.join().unwrap();
    }

    fn text_must_be_utf8() {
        for bytes in [b"ok \xc3\xa4".as_slice(), b"bad \xff end", b"cut \xc3", b""] {
            for before in ["", "before "] {
                same!(|dir| {
                    let path = dir.join("f");
                    std::fs::write(&path, bytes).unwrap();
                    let mut text = String::from(before);
                    let n = seen(fs::File::open(&path).unwrap().read_to_string(&mut text));
                    (n, text, seen(fs::read_to_string(&path)))
                });
            }
        }
    }

    fn lengths() {
        same!(|dir| {
            let path = dir.join("f");
            let mut file = fs::File::create_new(&path).unwrap();
            file.write_all(b"0123456789").unwrap();
            let mut log = Vec::new();
            for len in [4, 12, 0, 1 << 40, u64::MAX, i64::MAX as u64 + 1] {
                log.push((seen(file.set_len(len)), file.metadata().unwrap().len()));
            }
            log.push((seen(file.set_len(3)), file.stream_position().unwrap()));
            (log, seen(file.sync_all()), seen(file.sync_data()), std::fs::read(&path).unwrap())
        });
    }

    fn syncing_what_cannot_be_synced() {
        same!(|_dir| {
            let (reader, _writer) = io::pipe().unwrap();
            let file = fs::File::from(OwnedFd::from(reader));
            (seen(file.sync_all()), seen(file.sync_data()), seen(file.set_len(0)))
        });
    }

    fn times_and_permissions() {
        same!(|dir| {
            let path = dir.join("f");
            let file = fs::File::create_new(&path).unwrap();
            let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
            let before = SystemTime::UNIX_EPOCH - Duration::new(77, 250);
            let times = fs::FileTimes::new().set_accessed(then).set_modified(before);
            let set = seen(file.set_times(times));
            let m = file.metadata().unwrap();
            let mut perm = m.permissions();
            perm.set_readonly(true);
            let changed = seen(file.set_permissions(perm));
            let mode = file.metadata().unwrap().mode();
            let modified = seen(file.set_modified(then));
            let n = file.metadata().unwrap();
            (set, m.accessed().unwrap(), m.modified().unwrap(), m.mtime(), m.mtime_nsec(),
             changed, mode, modified, n.modified().unwrap(), n.accessed().unwrap())
        });
    }

    fn locks() {
        same!(|dir| {
            let path = dir.join("f");
            let one = fs::File::create(&path).unwrap();
            let two = fs::File::open(&path).unwrap();
            let mut log = vec![format!("{:?}", seen(one.lock_shared()))];
            let mut note = |what: Result<(), fs::TryLockError>| log.push(format!("{what:?}"));
            note(two.try_lock_shared());
            note(two.try_lock());
            note(one.unlock().map_err(fs::TryLockError::Error));
            note(two.try_lock());
            note(one.try_lock_shared());
            note(two.try_clone().unwrap().unlock().map_err(fs::TryLockError::Error));
            note(one.try_lock());
            drop(one);
            two.lock().unwrap();
            log
        });
    }

    fn a_lock_is_waited_for() {
        let dir = TempDir::new();
        let path = dir.path().join("f");
        let one = ramie::fs::File::create(&path).unwrap();
        let two = ramie::fs::File::open(&path).unwrap();
        one.lock().unwrap();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            one.unlock().unwrap();
        });
        two.lock().unwrap();
        holder.join().unwrap();
        assert!(ramie::fs::File::open(&path).unwrap().try_lock().is_err());
    }

    fn descriptors_come_and_go() {
        let dir = TempDir::new();
        let file = ramie::fs::File::create_new(dir.path().join("f")).unwrap();
        let number = file.as_raw_fd();
        let raw = file.into_raw_fd();
        assert_eq!(raw, number);
        // SAFETY: the descriptor was given up by its owner a line above.
        let file = unsafe { ramie::fs::File::from_raw_fd(raw) };
        let mut std_file = std::fs::File::from(file);
        std_file.write_all(b"via std").unwrap();
        let owned = OwnedFd::from(ramie::fs::File::from(std_file));
        let mut file = ramie::fs::File::from(owned);
        assert_eq!(file.as_raw_fd(), number);
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "via std");
    }

    fn a_file_as_standard_output() {
        let dir = TempDir::new();
        let path = dir.path().join("f");
        let file = ramie::fs::File::create(&path).unwrap();
        let status = std::process::Command::new("echo").arg("hello").stdout(file).status();
        assert!(status.unwrap().success());
        assert_eq!(ramie::fs::read(&path).unwrap(), b"hello\n");
    }

    fn debug_output() {
        same!(|_dir| {
            let file = fs::File::open("/dev/null").unwrap();
            let text = format!("{file:?}");
            text.replace(&file.as_raw_fd().to_string(), "N")
        });
        same!(|_dir| fs::OpenOptions::new().read(true).open("/dev/null").is_ok());
        same!(|_dir| fs::metadata("/dev").unwrap().file_type());
    }

    fn names_that_are_not_utf8() {
        same!(|dir| {
            let path = dir.join(OsStr::from_bytes(b"bad \xff\xfe name"));
            let made = seen(fs::write(&path, "x"));
            let names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            (made, names, seen(fs::read(&path)), seen(fs::remove_file(&path)))
        });
    }

    /// What may be sent and shared in std may be here.
    fn auto_traits() {
        fn check<T: Send + Sync + Unpin + std::panic::UnwindSafe>() {}
        check::<ramie::fs::File>();
        check::<ramie::fs::OpenOptions>();
        check::<ramie::fs::Metadata>();
        check::<ramie::fs::FileType>();
        check::<ramie::fs::ReadDir>();
        check::<ramie::fs::DirEntry>();
        check::<ramie::fs::DirBuilder>();
    }
}
