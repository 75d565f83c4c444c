//! The driver that does without io_uring, asked for by name: what a suite that runs on both drivers
//! does not come across. `ci/poll.sh` runs the others on it.

mod common;

use common::process::child_with;
use common::{eventually, isolated, watch};
use ramie::io::pipe;
use ramie::net::{TcpListener, TcpStream, UdpSocket};
use ramie::os::unix::net::{UnixListener, UnixStream};
use ramie::{DriverKind, Runtime, is_cancelled};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().driver(DriverKind::Poll).workers(workers).build().unwrap()
}

fn on_poll(workers: usize, f: impl FnOnce() + Send) {
    let _watchdog = watch::dog();
    let rt = runtime(workers);
    rt.run(|| ramie::scope(|scope| _ = scope.spawn(f)));
}

fn flags(fd: RawFd) -> i32 {
    // SAFETY: numbers only.
    unsafe { libc::fcntl(fd, libc::F_GETFL) }
}

/// Somewhere to wait for the first fibers to do so.
fn let_others_wait() {
    ramie::sleep(5 * MS);
}

#[test]
fn no_ring_is_made() {
    isolated("no_ring_is_made", || {
        let rt = runtime(2);
        rt.run(|| {
            let fibers: Vec<_> =
                (0..10).map(|_| ramie::spawn(|| ramie::fs::read("Cargo.toml"))).collect();
            fibers.into_iter().for_each(|fiber| drop(fiber.join().unwrap().unwrap()));
            for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                assert!(!target.to_string_lossy().contains("io_uring"), "{target:?}");
            }
        });
    });
}

#[test]
fn reading_and_writing_one_stream_at_once() {
    on_poll(2, || {
        const BYTES: usize = 1 << 20;
        let (a, b) = UnixStream::pair().unwrap();
        ramie::scope(|scope| {
            for stream in [&a, &b] {
                scope.spawn(move || {
                    let mut stream = stream;
                    for n in 0..BYTES / 1000 {
                        stream.write_all(&[n as u8; 1000]).unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut stream = stream;
                    let mut buf = [0; 1000];
                    for n in 0..BYTES / 1000 {
                        stream.read_exact(&mut buf).unwrap();
                        assert_eq!(buf, [n as u8; 1000]);
                    }
                });
            }
        });
    });
}

/// Each datagram wakes all who wait, and one of them gets it.
#[test]
fn many_receivers_on_one_socket() {
    on_poll(2, || {
        const RECEIVERS: usize = 20;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let got = AtomicUsize::new(0);
        ramie::scope(|scope| {
            for _ in 0..RECEIVERS {
                scope.spawn(|| {
                    for _ in 0..10 {
                        socket.recv_from(&mut [0; 8]).unwrap();
                        got.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                for n in 0..RECEIVERS * 10 {
                    sender.send_to(b"datagram", addr).unwrap();
                    // Few enough at a time for the socket's buffer.
                    if n % 20 == 19 {
                        eventually("they are received", || got.load(Ordering::Relaxed) == n + 1);
                    }
                }
            });
        });
        assert_eq!(got.load(Ordering::Relaxed), RECEIVERS * 10);
    });
}

/// Fibers of two workers accept from the same listener, whose mode is none of our business. Nobody
/// is held up by a connection that another one took.
#[test]
fn accepting_on_one_listener() {
    on_poll(2, || {
        const CONNECTIONS: usize = 200;
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let before = flags(listener.as_raw_fd());
        let accepted = Arc::new(AtomicUsize::new(0));
        let acceptors: Vec<_> = (0..6)
            .map(|n| {
                let (listener, accepted) = (Arc::clone(&listener), Arc::clone(&accepted));
                let accept = move || loop {
                    match listener.accept() {
                        Ok(_) => _ = accepted.fetch_add(1, Ordering::Relaxed),
                        Err(error) => return assert!(is_cancelled(&error), "{error}"),
                    }
                };
                ramie::Builder::new().worker(n % 2).spawn(accept).unwrap()
            })
            .collect();
        for _ in 0..CONNECTIONS {
            TcpStream::connect(addr).unwrap();
        }
        eventually("all are accepted", || accepted.load(Ordering::Relaxed) == CONNECTIONS);
        acceptors.iter().for_each(|acceptor| acceptor.cancel());
        acceptors.into_iter().for_each(|acceptor| acceptor.join().unwrap());
        assert_eq!(flags(listener.as_raw_fd()), before);
        assert_eq!(before & libc::O_NONBLOCK, 0);
    });
}

/// Pipes with a name know no call that does not wait: a thread reads them once they are ready.
#[test]
fn readers_of_one_fifo() {
    on_poll(2, || {
        let dir = common::TempDir::new();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let open = || ramie::fs::File::options().read(true).write(true).open(&path).unwrap();
        let file = Arc::new(open());
        let total = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..4)
            .map(|n| {
                let (file, total) = (Arc::clone(&file), Arc::clone(&total));
                let read = move || loop {
                    match (&*file).read(&mut [0; 100]) {
                        Ok(n) => _ = total.fetch_add(n, Ordering::Relaxed),
                        Err(error) => return assert!(is_cancelled(&error), "{error}"),
                    }
                };
                ramie::Builder::new().worker(n % 2).spawn(read).unwrap()
            })
            .collect();
        let mut writer = open();
        // More than the pipe holds at a time.
        writer.write_all(&[7; 300_000]).unwrap();
        for _ in 0..100 {
            writer.write_all(&[8; 10]).unwrap();
            ramie::yield_now();
        }
        eventually("all is read", || total.load(Ordering::Relaxed) == 301_000);
        let_others_wait();
        readers.iter().for_each(|reader| reader.cancel());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_terminal() {
    on_poll(1, || {
        // SAFETY: numbers only.
        let main = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) };
        assert!(main >= 0);
        // SAFETY: it is new and ours.
        let main = unsafe { OwnedFd::from_raw_fd(main) };
        let mut name = [0; 64];
        // SAFETY: the buffer is ours to write, and as long as announced.
        unsafe {
            assert_eq!(libc::grantpt(main.as_raw_fd()), 0);
            assert_eq!(libc::unlockpt(main.as_raw_fd()), 0);
            assert_eq!(libc::ptsname_r(main.as_raw_fd(), name.as_mut_ptr(), name.len()), 0);
        }
        // SAFETY: the call has written a C string.
        let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_str().unwrap();
        use std::os::unix::fs::OpenOptionsExt;
        // Not to become this process's own terminal, whose end would end it.
        let flags = libc::O_NOCTTY;
        let options =
            || ramie::fs::File::options().read(true).write(true).custom_flags(flags).clone();
        let mut terminal = options().open(name).unwrap();
        let reader = ramie::spawn_local(move || {
            let mut line = [0; 100];
            let n = terminal.read(&mut line).unwrap();
            assert_eq!(&line[..n], b"a line\n");
            let waits = ramie::time::timeout(5 * MS, || terminal.read(&mut line)).unwrap_err();
            assert_eq!(waits.kind(), ErrorKind::TimedOut);
            terminal.write_all(b"answer\n").unwrap();
        });
        let_others_wait();
        let mut main = ramie::fs::File::from(main);
        main.write_all(b"a line\n").unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"answer\r\n") {
            let mut buf = [0; 100];
            let n = main.read(&mut buf).unwrap();
            text.extend(&buf[..n]);
        }
        reader.join().unwrap();
    });
}

/// What epoll refuses, and what has positions and is no file.
#[test]
fn devices() {
    on_poll(1, || {
        let mut bytes = [1; 100];
        ramie::fs::File::open("/dev/zero").unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 100]);
        assert_eq!(ramie::fs::File::open("/dev/null").unwrap().read(&mut bytes).unwrap(), 0);
        let options = || ramie::fs::File::options().write(true).clone();
        assert_eq!(options().open("/dev/null").unwrap().write(&bytes).unwrap(), 100);
        assert_eq!(
            options().open("/dev/full").unwrap().write(&bytes).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        assert!(ramie::fs::read_to_string("/proc/self/status").unwrap().contains("Name:"));
    });
}

#[test]
fn an_eventfd_in_either_mode() {
    on_poll(1, || {
        for mode in [0, libc::EFD_NONBLOCK] {
            // SAFETY: numbers only.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | mode) };
            // SAFETY: it is new and ours.
            let file = ramie::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
            let before = flags(fd);
            ramie::scope(|scope| {
                scope.spawn(|| {
                    let mut count = [0; 8];
                    assert_eq!((&file).read(&mut count).unwrap(), 8);
                    assert_eq!(u64::from_ne_bytes(count), 3);
                });
                let_others_wait();
                (&file).write_all(&3_u64.to_ne_bytes()).unwrap();
            });
            assert_eq!(flags(fd), before);
        }
    });
}

/// The number of a descriptor that was waited for comes to mean another file, while a copy keeps
/// the old one open.
#[test]
fn a_number_is_used_again() {
    on_poll(1, || {
        let mut copies = Vec::new();
        let mut numbers = Vec::new();
        for round in 0..20 {
            let (mut reader, mut writer) = pipe().unwrap();
            numbers.push(reader.as_raw_fd());
            let late = ramie::time::timeout(MS, || reader.read(&mut [0; 1])).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut);
            // The registration that the wait has left behind gets an event.
            copies.push((reader.try_clone().unwrap(), writer.try_clone().unwrap()));
            let fiber = ramie::spawn_local(move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
                byte[0]
            });
            let_others_wait();
            for (_, old) in &mut copies {
                _ = old;
            }
            writer.write_all(&[round]).unwrap();
            assert_eq!(fiber.join().unwrap(), round);
            for (_, old) in &mut copies {
                old.write_all(&[1]).unwrap();
            }
            // Closes `writer` only: the copies of this round keep their numbers.
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() < 20, "no number was used again");
    });
}

/// A listener whose queue is full gives a Unix socket nothing to wait for.
#[test]
fn connecting_where_the_queue_is_full() {
    on_poll(1, || {
        let dir = common::TempDir::new();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let mut there = Vec::new();
        let full = loop {
            match ramie::time::timeout(20 * MS, || UnixStream::connect(&path)) {
                Ok(stream) => there.push(stream),
                Err(error) => break error,
            }
            assert!(there.len() < 100);
        };
        assert_eq!(full.kind(), ErrorKind::TimedOut);
        let waiting = {
            let path = path.clone();
            ramie::spawn_local(move || UnixStream::connect(&path))
        };
        let_others_wait();
        for _ in 0..=there.len() {
            listener.accept().unwrap();
        }
        waiting.join().unwrap().unwrap();
        assert_eq!(flags(there[0].as_raw_fd()) & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn a_runtime_ends_while_all_kinds_wait() {
    let _watchdog = watch::dog();
    for _ in 0..20 {
        let rt = runtime(2);
        rt.run(|| {
            for n in 0..40 {
                drop(ramie::spawn(move || {
                    let error = match n % 4 {
                        0 => pipe().and_then(|(mut reader, _writer)| reader.read(&mut [0; 1])),
                        1 => UdpSocket::bind("127.0.0.1:0").and_then(|s| s.recv(&mut [0; 1])),
                        2 => TcpListener::bind("127.0.0.1:0").and_then(|l| l.accept().map(|_| 0)),
                        _ => UnixStream::pair().and_then(|(mut a, _b)| a.read(&mut [0; 1])),
                    };
                    assert!(is_cancelled(&error.unwrap_err()));
                }));
            }
            ramie::sleep(MS);
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(10)), 0);
    }
}

/// One warning per process, whatever the number of runtimes, with the cause and the remedy.
#[test]
fn where_rings_are_refused_it_goes_on_with_one_warning() {
    let name = "where_rings_are_refused_it_goes_on_with_one_warning";
    let variables = [("RAMIE_CAPS", "-io_uring"), ("RAMIE_DRIVER", "auto")];
    let output = child_with(name, &variables, || {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        for _ in 0..3 {
            let rt = Runtime::builder().workers(2).build().unwrap();
            let text = rt.run(|| ramie::spawn(|| ramie::fs::read_to_string("Cargo.toml")).join());
            assert!(text.unwrap().unwrap().contains("ramie"));
        }
        let refused = Runtime::builder().driver(DriverKind::Uring).build().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    for part in ["as RAMIE_CAPS wants it, there is no io_uring here", "run on Linux 5.19"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
}

#[test]
fn a_driver_that_there_is_none_of() {
    let name = "a_driver_that_there_is_none_of";
    let output = child_with(name, &[("RAMIE_DRIVER", "iouring")], || {
        let error = Runtime::new().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("iouring"), "{error}");
        // Whoever asks by name does not look at the variable.
        assert_eq!(runtime(1).run(|| 7), 7);
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
