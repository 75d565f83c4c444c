//! Pipes and foreign descriptors, wherever they are used.

mod common;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{isolated, runtime, watch};
use ramie::io::{self, AsyncFd, Interest, Read, Write, pipe};

/// A descriptor that the kernel has just made.
fn made(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn eventfd() -> AsyncFd<OwnedFd> {
    // SAFETY: numbers only.
    AsyncFd::new(made(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }))
}

fn timerfd(delay: Duration) -> AsyncFd<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: numbers only.
    let fd = made(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) });
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::timespec { tv_sec: 0, tv_nsec: i64::from(delay.subsec_nanos()) };
    let spec = libc::itimerspec { it_interval: none, it_value: value };
    // SAFETY: the record is alive for the whole call.
    let set = unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    AsyncFd::new(fd)
}

/// A terminal's two ends, in raw mode: the master, and what a program would have.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: two numbers to write, and nothing else.
    let result = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
    assert_eq!(result, 0);
    let ends = (made(master), made(slave));
    // SAFETY: plain numbers.
    let mut mode: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the record is ours for the calls.
    unsafe {
        libc::tcgetattr(ends.1.as_raw_fd(), &mut mode);
        libc::cfmakeraw(&mut mode);
        libc::tcsetattr(ends.1.as_raw_fd(), libc::TCSANOW, &mode);
    }
    ends
}

fn set_nonblocking(fd: &impl AsRawFd) {
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
}

/// Runs `f` beside the caller, on a thread: it may block.
fn beside<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(2));
        f()
    })
}

/// Two ends that carry bytes from the first to the second, both non-blocking.
fn channels() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe().unwrap();
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    let (master, slave) = terminal();
    let all: Vec<(&str, OwnedFd, OwnedFd)> = vec![
        ("pipe", writer.into(), reader.into()),
        ("socket", a.into(), b.into()),
        ("terminal", master, slave),
    ];
    for (_, a, b) in &all {
        set_nonblocking(a);
        set_nonblocking(b);
    }
    all
}

contract! {
    fn a_pipe_carries_bytes_and_ends() {
        let (mut reader, writer) = pipe().unwrap();
        let mut second = writer.try_clone().unwrap();
        let mut first = writer;
        first.write_all(b"ab").unwrap();
        second.write_all(b"cd").unwrap();
        assert_eq!(second.write(&[]).unwrap(), 0);
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        let mut byte = [0];
        assert_eq!((&reader).read(&mut byte).unwrap(), 1);
        assert_eq!(byte, *b"a");
        drop((first, second));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bcd");
        assert_eq!(reader.read(&mut byte).unwrap(), 0);
    }

    fn a_pipe_without_a_reader_is_broken() {
        let (reader, mut writer) = pipe().unwrap();
        drop(reader);
        let error = writer.write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    fn a_full_pipe_waits_for_its_reader() {
        let (mut reader, mut writer) = pipe().unwrap();
        let written = beside(move || {
            let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
            writer.write_all(&data).unwrap();
            data
        });
        let mut read = Vec::new();
        let mut buf = [0; 1000];
        loop {
            match reader.read(&mut buf).unwrap() {
                0 => break,
                n => read.extend_from_slice(&buf[..n]),
            }
        }
        assert!(written.join().unwrap() == read);
    }

    fn a_pipe_becomes_what_std_has_and_comes_back() {
        let (reader, writer) = pipe().unwrap();
        let mut writer = io::PipeWriter::from(std::io::PipeWriter::from(writer));
        let mut reader = io::PipeReader::from(OwnedFd::from(reader));
        writer.write_all(b"x").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "x");
    }

    fn a_child_writes_to_a_pipe() {
        let (mut reader, writer) = pipe().unwrap();
        let mut child = Command::new("echo").arg("hi").stdout(Stdio::from(writer)).spawn().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi\n");
        assert!(child.wait().unwrap().success());
    }

    fn foreign_descriptors_are_waited_for() {
        for (what, a, b) in channels() {
            let (a, b) = (AsyncFd::new(a), AsyncFd::new(b));
            assert!(a.writable().unwrap().is_writable(), "{what}");
            let writer = beside(move || {
                std::fs::File::from(a.get_ref().try_clone().unwrap()).write_all(b"x").unwrap();
                a
            });
            let ready = b.readable().unwrap();
            assert!(ready.is_readable() && !ready.is_closed(), "{what}: {ready:?}");
            let mut buf = [0; 8];
            assert_eq!((&b).read(&mut buf).unwrap(), 1, "{what}");
            let a = writer.join().unwrap();
            // Now with the read itself waiting.
            let writer = beside(move || (&a).write_all(b"yz").map(|()| a).unwrap());
            assert_eq!((&b).read(&mut buf).unwrap(), 2, "{what}");
            drop(writer.join().unwrap());
            assert!(b.readable().unwrap().is_closed(), "{what}");
        }
    }

    fn writing_to_a_full_foreign_descriptor_waits() {
        for (what, a, b) in channels() {
            let a = AsyncFd::new(a);
            let reader = beside(move || {
                let b = AsyncFd::new(b);
                let mut read = 0;
                while read < 500_000 {
                    read += (&b).read(&mut [0; 4096]).unwrap();
                }
                b
            });
            (&a).write_all(&[7; 500_000]).unwrap_or_else(|e| panic!("{what}: {e}"));
            drop(reader.join().unwrap());
        }
    }

    fn an_eventfd_and_a_timerfd() {
        let event = Arc::new(eventfd());
        let setter = event.clone();
        let setter = beside(move || (&*setter).write(&7u64.to_ne_bytes()).unwrap());
        let mut buf = [0; 8];
        assert_eq!((&*event).read(&mut buf).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(buf), 7);
        setter.join().unwrap();

        let timer = timerfd(Duration::from_millis(3));
        assert!(timer.readable().unwrap().is_readable());
        assert_eq!((&timer).read(&mut buf).unwrap(), 8);
    }

    fn try_io_repeats_what_would_wait() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        let b = AsyncFd::new(b);
        let sender = beside(move || (&a).write_all(b"abc").map(|()| a).unwrap());
        let mut calls = 0;
        let mut buf = [0; 8];
        let n = b.try_io(Interest::READABLE, |mut b| {
            calls += 1;
            b.read(&mut buf)
        });
        assert_eq!(n.unwrap(), 3);
        assert!(calls >= 1);
        drop(sender.join().unwrap());
        let error = b.try_io(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::Other.into()));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Other);
    }

    fn a_plain_file_is_always_ready() {
        let file = AsyncFd::new(std::fs::File::open("Cargo.toml").unwrap());
        let ready = file.ready(Interest::READABLE | Interest::WRITABLE).unwrap();
        assert!(ready.is_readable() && ready.is_writable());
        assert!(io::read_to_string(&file).unwrap().contains("ramie"));
    }
}

#[test]
fn both_sides_at_once_and_none_by_timeout() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let a = Arc::new(AsyncFd::new(a));
        let (one, two) = (a.clone(), a.clone());
        let reader = ramie::spawn(move || one.readable().unwrap());
        let writer = ramie::spawn(move || two.writable().unwrap());
        assert!(writer.join().unwrap().is_writable());
        let late = ramie::time::timeout(Duration::from_millis(2), || a.readable());
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!reader.is_finished());
        (&b).write_all(b"x").unwrap();
        assert!(reader.join().unwrap().is_readable());

        let (_, fd) = (&b, AsyncFd::new(b.as_fd().try_clone_to_owned().unwrap()));
        let waiter = ramie::spawn(move || fd.readable());
        ramie::yield_now();
        waiter.cancel();
        assert!(ramie::is_cancelled(&waiter.join().unwrap().unwrap_err()));
    });
}

#[test]
fn a_cancelled_read_of_a_pipe_loses_nothing() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let mut second = reader.try_clone().unwrap();
        let waiter = ramie::spawn(move || (&reader).read(&mut [0; 16]));
        ramie::sleep(Duration::from_millis(2));
        waiter.cancel();
        assert!(ramie::is_cancelled(&waiter.join().unwrap().unwrap_err()));
        writer.write_all(b"abc").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(&mut second).unwrap(), "abc");
    });
}

#[test]
fn nothing_is_left_open() {
    isolated("nothing_is_left_open", || {
        let runtime = runtime(1);
        let work = || {
            ramie::spawn(|| {
                let (reader, writer) = pipe().unwrap();
                let clones = (reader.try_clone().unwrap(), writer.try_clone().unwrap());
                drop(AsyncFd::new(OwnedFd::from(clones.0)));
                drop((reader, writer, clones.1));
            })
            .join()
            .unwrap();
        };
        runtime.run(work);
        let before = common::fds();
        for _ in 0..100 {
            runtime.run(work);
        }
        assert_eq!(common::fds(), before);
    });
}

/// A writer that a full terminal holds up, with room for only a part of what it has, holds up
/// nobody else: neither writers of other terminals nor the worker.
#[test]
fn a_full_terminal_holds_up_no_other() {
    const BYTES: usize = 200_000;
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (full, other) = (terminal(), terminal());
        let (master, slave) = (AsyncFd::new(full.0), full.1);
        let writer = ramie::spawn(move || (&master).write_all(&[b'x'; BYTES]).map(|()| master));
        ramie::sleep(Duration::from_millis(20));
        let mut written = AsyncFd::new(other.0);
        ramie::time::timeout(Duration::from_secs(5), || written.write_all(b"y")).unwrap();
        assert!(!writer.is_finished());
        let reader = std::thread::spawn(move || {
            let (mut slave, mut left) = (std::fs::File::from(slave), BYTES);
            let mut buf = vec![0; BYTES];
            while left > 0 {
                left -= std::io::Read::read(&mut slave, &mut buf).unwrap();
            }
        });
        let _master = writer.join().unwrap().unwrap();
        reader.join().unwrap();
    });
}
