//! Copying: every pair of ends, wherever it is done, gives what std gives.

mod common;

use std::fs::File as StdFile;
use std::io::SeekFrom;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::{TempDir, child, error, isolated, runtime, watch};
use ramie::fs::{File, OpenOptions};
use ramie::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write, copy, copy_counted, pipe};
use ramie::net::{TcpListener, TcpStream};
use ramie::os::unix::net::UnixStream;

/// Bytes that show where they come from.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

fn file_of(dir: &Path, bytes: &[u8]) -> File {
    let path = dir.join("from");
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

/// Lengths below and above every buffer there is.
const LENGTHS: &[usize] = &[0, 1, 8192, 8193, 70_000, 300_000, 3_000_000];

/// After an error a file stands behind what was copied, where the kernel moves the bytes. Through a
/// buffer, as on a fiber where no ring does that, it is ahead by what was not written, as with std.
fn check_position(position: u64, copied: u64) {
    let by_ring = ramie::probe().driver() == Some(ramie::DriverKind::Uring)
        && std::env::var_os("RAMIE_CAPS").is_none();
    if by_ring || !ramie::is_fiber() {
        assert_eq!(position, copied);
    } else {
        assert!(position >= copied, "{position} < {copied}");
    }
}

/// A connection, and what a thread does with its other end.
fn tcp<T: Send + 'static>(
    f: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (TcpStream, thread::JoinHandle<T>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = thread::spawn(move || f(listener.accept().unwrap().0));
    (TcpStream::connect(addr).unwrap(), thread)
}

fn all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

contract! {
    fn file_to_file() {
        for &len in LENGTHS {
            let (dir, bytes) = (TempDir::new(), pattern(len));
            let mut from = file_of(dir.path(), &bytes);
            let mut to = File::options().read(true).write(true).create(true)
                .open(dir.path().join("to")).unwrap();
            assert_eq!(copy(&mut from, &mut to).unwrap(), len as u64);
            assert_eq!(to.stream_position().unwrap(), len as u64);
            assert_eq!(from.stream_position().unwrap(), len as u64);
            assert_eq!(copy(&mut from, &mut to).unwrap(), 0);
            to.rewind().unwrap();
            assert!(all(&to) == bytes);
        }
    }

    fn file_to_file_from_and_to_where_they_are() {
        let (dir, bytes) = (TempDir::new(), pattern(300_000));
        let mut from = file_of(dir.path(), &bytes);
        from.seek(SeekFrom::Start(100_000)).unwrap();
        let path = dir.path().join("to");
        let mut to = File::create(&path).unwrap();
        to.write_all(b"head").unwrap();
        assert_eq!(copy(&mut (&from).take(150_000), &mut to).unwrap(), 150_000);
        to.write_all(b"tail").unwrap();
        let mut one = [0];
        from.read_exact(&mut one).unwrap();
        assert_eq!(one[0], bytes[250_000]);
        let copied = std::fs::read(path).unwrap();
        assert!(copied[4..150_004] == bytes[100_000..250_000]);
        assert_eq!((&copied[..4], &copied[150_004..]), (&b"head"[..], &b"tail"[..]));
    }

    fn file_to_appended_file() {
        let (dir, bytes) = (TempDir::new(), pattern(200_000));
        let mut from = file_of(dir.path(), &bytes);
        let path = dir.path().join("to");
        std::fs::write(&path, "head").unwrap();
        let mut to = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(copy(&mut from, &mut to).unwrap(), 200_000);
        let copied = std::fs::read(path).unwrap();
        assert!(copied[..4] == *b"head" && copied[4..] == bytes);
    }

    fn sparse_files() {
        let dir = TempDir::new();
        let file = StdFile::create(dir.path().join("from")).unwrap();
        file.set_len(5 << 20).unwrap();
        (&file).write_all(b"x").unwrap();
        let mut from = File::open(dir.path().join("from")).unwrap();
        let mut to = File::create(dir.path().join("to")).unwrap();
        assert_eq!(copy(&mut from, &mut to).unwrap(), 5 << 20);
        assert!(std::fs::read(dir.path().join("to")).unwrap()
            == std::fs::read(dir.path().join("from")).unwrap());
    }

    fn files_that_claim_to_be_empty() {
        let mut text = Vec::new();
        copy(&mut File::open("/proc/self/status").unwrap(), &mut text).unwrap();
        assert!(text.starts_with(b"Name:"));
        let dir = TempDir::new();
        let mut to = File::create(dir.path().join("to")).unwrap();
        let n = copy(&mut File::open("/proc/self/status").unwrap(), &mut to).unwrap();
        assert!(n > 100);
    }

    fn file_to_tcp() {
        for &len in LENGTHS {
            let (dir, bytes) = (TempDir::new(), pattern(len));
            let mut from = file_of(dir.path(), &bytes);
            let (mut stream, peer) = tcp(all);
            assert_eq!(copy(&mut from, &mut stream).unwrap(), len as u64);
            drop(stream);
            assert!(peer.join().unwrap() == bytes);
            assert_eq!(from.stream_position().unwrap(), len as u64);
        }
    }

    fn file_to_pipe_to_file() {
        for &len in LENGTHS {
            let (dir, bytes) = (TempDir::new(), pattern(len));
            let mut from = file_of(dir.path(), &bytes);
            let (mut reader, mut writer) = pipe().unwrap();
            let path = dir.path().join("to");
            let to = path.clone();
            let other = thread::spawn(move || {
                copy(&mut reader, &mut File::create(to).unwrap()).unwrap()
            });
            assert_eq!(copy(&mut from, &mut writer).unwrap(), len as u64);
            drop(writer);
            assert_eq!(other.join().unwrap(), len as u64);
            assert!(std::fs::read(path).unwrap() == bytes);
        }
    }

    fn tcp_to_file() {
        for &len in LENGTHS {
            let (dir, bytes) = (TempDir::new(), pattern(len));
            let (mut stream, peer) = tcp(move |mut peer| peer.write_all(&pattern(len)).unwrap());
            let path = dir.path().join("to");
            let n = copy(&mut stream, &mut File::create(&path).unwrap()).unwrap();
            assert_eq!(n, len as u64);
            peer.join().unwrap();
            assert!(std::fs::read(path).unwrap() == bytes);
        }
    }

    fn tcp_to_unix_to_pipe() {
        let len = 1_000_000;
        let (mut stream, peer) = tcp(move |mut peer| peer.write_all(&pattern(len)).unwrap());
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = pipe().unwrap();
        let middle = thread::spawn(move || copy(&mut b, &mut writer).unwrap());
        let end = thread::spawn(move || all(&mut reader));
        assert_eq!(copy(&mut stream, &mut a).unwrap(), len as u64);
        drop(a);
        assert_eq!(middle.join().unwrap(), len as u64);
        assert!(end.join().unwrap() == pattern(len));
        peer.join().unwrap();
    }

    fn what_is_buffered_comes_first() {
        let (dir, bytes) = (TempDir::new(), pattern(300_000));
        for limit in [0, 10, 5000, 100_000, u64::MAX] {
            let mut from = BufReader::new(file_of(dir.path(), &bytes));
            assert!(from.fill_buf().unwrap().len() > 100);
            from.consume(100);
            let path = dir.path().join("to");
            let mut to = BufWriter::new(File::create(&path).unwrap());
            to.write_all(b"head").unwrap();
            let n = copy(&mut from.by_ref().take(limit), &mut to).unwrap();
            assert_eq!(n, limit.min(299_900));
            let end = 100 + n as usize;
            assert!(all(from) == bytes[end..]);
            to.write_all(b"tail").unwrap();
            drop(to);
            let copied = std::fs::read(path).unwrap();
            assert!(copied == [b"head", &bytes[100..end], b"tail"].concat());
        }
    }

    fn a_take_around_and_inside_a_buffer() {
        let (dir, bytes) = (TempDir::new(), pattern(300_000));
        let mut from = BufReader::new(file_of(dir.path(), &bytes).take(200_000)).take(150_000);
        from.read_exact(&mut [0; 7]).unwrap();
        let path = dir.path().join("to");
        assert_eq!(copy(&mut from, &mut File::create(&path).unwrap()).unwrap(), 149_993);
        assert_eq!(from.limit(), 0);
        let mut from = from.into_inner().into_inner();
        assert!(std::fs::read(path).unwrap() == bytes[7..150_000]);
        assert!(from.limit() <= 50_000);
        let mut rest = from.limit();
        from.set_limit(rest + 10);
        while rest != 0 {
            rest -= 1;
            from.read_exact(&mut [0]).unwrap();
        }
        from.read_exact(&mut [0]).unwrap();
        assert_eq!(from.into_inner().stream_position().unwrap(), 200_001);
    }

    fn trait_objects_and_what_is_not_ours() {
        let (dir, bytes) = (TempDir::new(), pattern(100_000));
        let mut from: Box<dyn Read> = Box::new(file_of(dir.path(), &bytes));
        let mut to: Vec<u8> = Vec::new();
        assert_eq!(copy(&mut from, &mut to as &mut dyn Write).unwrap(), 100_000);
        assert!(to == bytes);
        let mut cursor = io::Cursor::new(Vec::new());
        assert_eq!(copy(&mut to.as_slice(), &mut cursor).unwrap(), 100_000);
        assert!(cursor.into_inner() == bytes);
    }

    /// A wrapper has the very bytes of a file, and a place of its own among types.
    fn a_wrapper_that_changes_bytes_is_not_bypassed() {
        #[repr(transparent)]
        struct Upper(File);
        impl Read for Upper {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = self.0.read(buf)?;
                buf[..n].make_ascii_uppercase();
                Ok(n)
            }
        }
        let dir = TempDir::new();
        let mut from = Upper(file_of(dir.path(), &b"ab".repeat(100_000)));
        let path = dir.path().join("to");
        assert_eq!(copy(&mut from, &mut File::create(&path).unwrap()).unwrap(), 200_000);
        assert!(std::fs::read(path).unwrap() == b"AB".repeat(100_000));
    }

    fn errors_are_those_of_std() {
        same!(|dir| {
            std::fs::write(dir.join("from"), vec![1; 200_000]).unwrap();
            let mut from = fs::File::open(dir.join("from")).unwrap();
            let mut unwritable = fs::File::open("Cargo.toml").unwrap();
            let mut unreadable = fs::File::create(dir.join("to")).unwrap();
            let a = error(io::copy(&mut from, &mut unwritable));
            let b = error(io::copy(&mut unreadable, &mut fs::File::create(dir.join("x")).unwrap()));
            (a, b)
        });
    }

    fn a_closed_end_is_an_error_with_a_count() {
        let dir = TempDir::new();
        let mut from = file_of(dir.path(), &pattern(30_000_000));
        let (mut stream, peer) = tcp(|mut peer| peer.read_exact(&mut [0; 100_000]).unwrap());
        let mut copied = 0;
        let result = copy_counted(&mut from, &mut stream, &mut copied);
        peer.join().unwrap();
        let kind = result.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
        assert!((100_000..30_000_000).contains(&copied), "{copied}");
        check_position(from.stream_position().unwrap(), copied);

        let (reader, mut writer) = pipe().unwrap();
        drop(reader);
        from.rewind().unwrap();
        let error = copy(&mut from, &mut writer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    fn bytes_one_by_one() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            for byte in 0..100 {
                b.write_all(&[byte]).unwrap();
                if byte % 10 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let (mut reader, mut writer) = pipe().unwrap();
        // A byte by itself takes a whole page of a pipe, so somebody has to read meanwhile.
        let end = thread::spawn(move || all(&mut reader));
        assert_eq!(copy(&mut a, &mut writer).unwrap(), 100);
        drop(writer);
        assert!(end.join().unwrap() == (0..100).collect::<Vec<u8>>());
        peer.join().unwrap();
    }

    fn timeouts_of_a_socket_are_obeyed() {
        let (mut a, _b) = UnixStream::pair().unwrap();
        a.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let (_reader, mut writer) = pipe().unwrap();
        let error = copy(&mut a, &mut writer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn other_fibers_run_and_a_copy_can_be_cancelled() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let dir = TempDir::new();
        let len = 30_000_000;
        let mut from = file_of(dir.path(), &pattern(len));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // Nobody reads, so it cannot end.
        let fiber = ramie::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            let mut copied = 0;
            let error = copy_counted(&mut from, &mut stream, &mut copied).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{error}");
            check_position(from.stream_position().unwrap(), copied);
            copied
        });
        let (mut peer, _) = listener.accept().unwrap();
        // Something has been copied.
        assert_eq!(peer.peek(&mut [0]).unwrap(), 1);
        ramie::sleep(Duration::from_millis(50));
        assert!(!fiber.is_finished());
        fiber.cancel();
        let copied = fiber.join().unwrap();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, copied);
        assert!(received == pattern(len)[..received.len()]);
        assert!((1..len as u64).contains(&copied));
    });
}

#[test]
fn a_copy_that_waits_for_data_can_be_cancelled() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let (mut a, _b) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = pipe().unwrap();
        let (mut quiet, _writer) = pipe().unwrap();
        let mut sink = UnixStream::pair().unwrap().0;
        let one = ramie::spawn(move || copy(&mut a, &mut writer));
        let two = ramie::spawn(move || copy(&mut quiet, &mut sink));
        ramie::sleep(Duration::from_millis(5));
        for fiber in [one, two] {
            fiber.cancel();
            assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()));
        }
        assert_eq!(all(&mut reader), b"");
    });
}

#[test]
fn no_signal_for_a_closed_end() {
    let output = child("no_signal_for_a_closed_end", || {
        // SAFETY: the default action is fit for any program.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let work = || {
            let dir = TempDir::new();
            let mut from = file_of(dir.path(), &pattern(2_000_000));
            let (mut a, b) = UnixStream::pair().unwrap();
            drop(b);
            let error = copy(&mut from, &mut a).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        };
        work();
        runtime(1).run(work);
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn nothing_is_left_open() {
    isolated("nothing_is_left_open", || {
        let dir = TempDir::new();
        let runtime = runtime(1);
        let work = || {
            let mut from = file_of(dir.path(), &pattern(300_000));
            let (mut stream, peer) = tcp(all);
            copy(&mut from, &mut stream).unwrap();
            drop((stream, from));
            assert_eq!(peer.join().unwrap().len(), 300_000);
        };
        runtime.run(work);
        let before = common::fds();
        for _ in 0..20 {
            runtime.run(work);
        }
        assert_eq!(common::fds(), before);
    });
}

#[test]
fn without_descriptors_to_spare() {
    isolated("without_descriptors_to_spare", || {
        let (dir, bytes) = (TempDir::new(), pattern(300_000));
        let mut from = file_of(dir.path(), &bytes);
        let (mut stream, peer) = tcp(all);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let runtime = runtime(1);
        // SAFETY: writes the limits.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
        limit.rlim_cur = 3; // new ones would have higher numbers
        // SAFETY: reads the limits.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        runtime.run(|| assert_eq!(copy(&mut from, &mut stream).unwrap(), 300_000));
        drop(stream);
        assert!(peer.join().unwrap() == bytes);
    });
}

#[test]
fn foreign_ends_in_non_blocking_mode() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        let mut to = UnixStream::from(OwnedFd::from(a));
        let reader = ramie::spawn(move || all(UnixStream::from(OwnedFd::from(b))));
        let dir = TempDir::new();
        let bytes = pattern(2_000_000);
        copy(&mut file_of(dir.path(), &bytes), &mut to).unwrap();
        drop(to);
        assert!(reader.join().unwrap() == bytes);
    });
}

/// Two copies of one stream to an output that nobody has locked. Who comes too late must not wait
/// with the lock, which others need to print.
#[test]
fn a_late_copy_of_a_stream_does_not_keep_the_output() {
    isolated("a_late_copy_of_a_stream_does_not_keep_the_output", || {
        let _watchdog = watch::dog();
        runtime(1).run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let copiers = [(); 2].map(|()| {
                let mut stream = stream.try_clone().unwrap();
                ramie::spawn(move || io::copy(&mut stream, &mut io::stdout()).unwrap())
            });
            for n in 0..20 {
                client.write_all(b"copied ").unwrap();
                while !is_drained(&stream) {
                    ramie::yield_now();
                }
                ramie::println!("{n}");
            }
            drop(client);
            let copied: u64 = copiers.into_iter().map(|copier| copier.join().unwrap()).sum();
            assert_eq!(copied, 140);
        });
    });
}

/// Whether all that has come is taken.
fn is_drained(stream: &impl AsRawFd) -> bool {
    let mut bytes = 0;
    // SAFETY: one number to write, alive for the call.
    assert_eq!(unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &mut bytes) }, 0);
    bytes == 0
}

/// A copy of the input that fails gives back what it has taken out of the file and not written; but
/// not if others have read on meanwhile, who would get it again.
#[test]
fn a_failing_copy_does_not_take_others_back() {
    isolated("a_failing_copy_does_not_take_others_back", || {
        let _watchdog = watch::dog();
        let dir = TempDir::new();
        let path = dir.path().join("in");
        let numbers: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_ne_bytes).collect();
        std::fs::write(&path, numbers).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        // SAFETY: nobody else in this process uses the input.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 0) }, 0);
        let position = || (&file).stream_position().unwrap();
        runtime(1).run(|| {
            for others_read in [true, false] {
                (&file).rewind().unwrap();
                let (mut to, peer) = UnixStream::pair().unwrap();
                let copier = ramie::spawn(move || {
                    let mut copied = 0;
                    io::copy_counted(&mut io::stdin(), &mut to, &mut copied).unwrap_err();
                    copied
                });
                common::eventually("something is taken", || position() != 0);
                let mut all = vec![0; if others_read { 8 } else { 0 }];
                io::stdin().read_exact(&mut all).unwrap();
                drop(peer);
                let copied = copier.join().unwrap();
                if others_read {
                    io::stdin().read_to_end(&mut all).unwrap();
                    let all = all.chunks(4).map(|n| u32::from_ne_bytes(n.try_into().unwrap()));
                    assert!(all.is_sorted_by(|a, b| a < b), "read twice");
                } else {
                    check_position(position(), copied);
                }
            }
        });
    });
}
