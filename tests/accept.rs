//! Accepting floods: whole lines of connections are accepted ahead, and none is lost, whoever asks
//! for them, and however.

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{TempDir, eventually, isolated, runtime, watch};
use ramie::net::{TcpListener, TcpStream};
use ramie::os::unix::net::UnixListener;
use ramie::{is_cancelled, scope, spawn};

const ANY: &str = "127.0.0.1:0";
/// Fewer than fit into a listener's line.
const LINE: usize = 60;

fn clients(addr: SocketAddr) -> Vec<StdStream> {
    (0..LINE).map(|_| StdStream::connect(addr).unwrap()).collect()
}

fn names(clients: &[StdStream]) -> Vec<SocketAddr> {
    clients.iter().map(|client| client.local_addr().unwrap()).collect()
}

fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(ANY).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Whether the kernel has no connection for this listener any more.
fn is_empty(listener: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one record, ours.
    unsafe { libc::poll(&mut poll, 1, 0) == 0 }
}

/// Takes a few connections, one at once after the other.
fn some(listener: &TcpListener) -> Vec<SocketAddr> {
    let few = listener.incoming().take(12);
    few.map(|stream| stream.unwrap().peer_addr().unwrap()).collect()
}

contract! {
    /// Also in a destructor while the thread unwinds, where whoever waited would hold up others.
    fn nobody_waits_at_a_listener_in_non_blocking_mode() {
        struct Accepts<'a>(&'a TcpListener, Vec<SocketAddr>);
        impl Drop for Accepts<'_> {
            fn drop(&mut self) {
                while self.1.len() < LINE {
                    match self.0.accept() {
                        Ok((_, from)) => self.1.push(from),
                        // The last ones may be on their way.
                        Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        }
        let (listener, addr) = bound();
        let clients = clients(addr);
        let mut incoming = listener.incoming();
        let served: Vec<_> =
            (0..4).map(|_| incoming.next().unwrap().unwrap().peer_addr().unwrap()).collect();
        assert_eq!(served, names(&clients)[..4]);
        listener.set_nonblocking(true).unwrap();
        let accepts = Accepts(&listener, served);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _accepts = accepts;
            std::panic::resume_unwind(Box::new("as if by a panic"));
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"as if by a panic"));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    /// What an iterator has accepted ahead is there for the next one who asks, in order and with
    /// its address: the listener, a clone, another iterator.
    fn what_was_accepted_ahead_is_handed_on() {
        let (listener, addr) = bound();
        let clone = listener.try_clone().unwrap();
        let clients = clients(addr);
        let mut served = some(&listener);
        let by_ring = ramie::probe().driver() == Some(ramie::DriverKind::Uring)
            && std::env::var_os("RAMIE_CAPS").is_none();
        if by_ring && ramie::is_fiber() {
            assert!(is_empty(listener.as_fd()), "the whole line is taken");
        }
        served.extend((0..8).map(|_| clone.accept().unwrap().1));
        for _ in 0..4 {
            served.push(ramie::select! { accept(&clone) -> connection => connection.unwrap().1 });
        }
        served.extend(some(&clone));
        served.extend(std::thread::scope(|scope| {
            let thread = scope.spawn(|| (0..8).map(|_| listener.accept().unwrap().1));
            thread.join().unwrap().collect::<Vec<_>>()
        }));
        served.extend((served.len()..LINE).map(|_| listener.accept().unwrap().1));
        assert_eq!(served, names(&clients));
        assert!(is_empty(listener.as_fd()));
    }

    /// Before a listener is handed on, what was accepted ahead can be taken without waiting.
    fn what_is_left_before_a_listener_is_handed_on() {
        let (listener, addr) = bound();
        let clients = clients(addr);
        let mut served = some(&listener);
        listener.set_nonblocking(true).unwrap();
        while served.len() < LINE {
            match listener.accept() {
                Ok((_, addr)) => served.push(addr),
                // The last ones may be on their way.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => ramie::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(served, names(&clients));
        let next = std::thread::spawn(move || StdStream::connect(addr).unwrap());
        let std = std::net::TcpListener::from(listener);
        std.set_nonblocking(false).unwrap();
        let (_, by) = std.accept().unwrap();
        assert_eq!(by, next.join().unwrap().local_addr().unwrap());
    }

    fn unix_listeners_do_the_same() {
        let dir = TempDir::new();
        let path = dir.path().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        let clients: Vec<_> = (0..LINE)
            .map(|number| {
                let mut client = StdUnixStream::connect(&path).unwrap();
                client.write_all(&[number as u8]).unwrap();
                client
            })
            .collect();
        let mut served = Vec::new();
        let mut serve = |mut stream: ramie::os::unix::net::UnixStream| {
            let mut number = [0];
            stream.read_exact(&mut number).unwrap();
            served.push(number[0]);
        };
        let few: Vec<_> = listener.incoming().take(12).map(Result::unwrap).collect();
        few.into_iter().for_each(&mut serve);
        serve(listener.accept().unwrap().0);
        listener.incoming().take(LINE - 13).map(Result::unwrap).for_each(&mut serve);
        assert!(served.into_iter().eq(0..LINE as u8));
        drop(clients);
    }

    /// Clients find themselves disconnected, not waiting for ever.
    fn the_end_of_a_listener_closes_what_nobody_has_taken() {
        let (listener, addr) = bound();
        let clone = listener.try_clone().unwrap();
        let clients = clients(addr);
        some(&listener);
        drop(listener);
        drop(clone.accept().unwrap());
        drop(clone);
        for mut client in clients {
            assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        }
        // And the address is free.
        TcpListener::bind(addr).unwrap();
    }

    /// One that is gone already is an error of its own, and the next one is served.
    fn peers_that_leave_before_they_are_asked_for() {
        let (listener, addr) = bound();
        let clients = clients(addr);
        some(&listener);
        drop(clients);
        let last = StdStream::connect(addr).unwrap().local_addr().unwrap();
        loop {
            match listener.accept() {
                Ok((_, addr)) if addr == last => break,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted),
            }
        }
    }
}

/// Iterators of several fibers, of a clone, plain accepts and threads mix: each connection is
/// served once.
fn flood(workers: usize, ring_entries: u32) {
    const ROUNDS: usize = 8;
    let _watchdog = watch::dog();
    let runtime =
        ramie::Runtime::builder().workers(workers).ring_entries(ring_entries).build().unwrap();
    let (listener, addr) = bound();
    let clone = listener.try_clone().unwrap();
    let served = Mutex::new(Vec::new());
    let left = AtomicUsize::new(0);
    // The last connections tell each server to end.
    let serve = |stream: &TcpStream| {
        let mut word = [0];
        (&*stream).read_exact(&mut word).unwrap();
        served.lock().unwrap().push(stream.peer_addr().unwrap());
        left.fetch_sub(1, Ordering::Relaxed);
        word == *b"."
    };
    let connect = |word: &[u8]| {
        left.fetch_add(1, Ordering::Relaxed);
        let mut client = StdStream::connect(addr).unwrap();
        client.write_all(word).unwrap();
        client
    };
    let sent = std::thread::scope(|threads| {
        threads.spawn(|| while !serve(&listener.accept().unwrap().0) {});
        threads.spawn(|| listener.incoming().find(|stream| serve(stream.as_ref().unwrap())));
        let feed = threads.spawn(|| {
            let mut sent = Vec::new();
            for _ in 0..ROUNDS {
                let clients: Vec<_> = (0..LINE).map(|_| connect(b"-")).collect();
                sent.extend(names(&clients));
                eventually("all are served", || left.load(Ordering::Relaxed) == 0);
            }
            // One for each server.
            let clients: Vec<_> = (0..5).map(|_| connect(b".")).collect();
            sent.extend(names(&clients));
            eventually("all are served", || left.load(Ordering::Relaxed) == 0);
            sent
        });
        runtime.run(|| {
            scope(|scope| {
                for listener in [&listener, &clone] {
                    scope.spawn(move || {
                        let mut held = Vec::new();
                        for stream in listener.incoming() {
                            let stream = stream.unwrap();
                            if serve(&stream) {
                                break;
                            }
                            held.push(stream); // others come and go, these stay for a while
                            held.truncate(7);
                        }
                    });
                }
                scope.spawn(|| {
                    while !serve(&ramie::select! {
                        accept(&clone) -> connection => connection.unwrap().0
                    }) {}
                });
            });
        });
        feed.join().unwrap()
    });
    let served = served.into_inner().unwrap();
    assert_eq!(served.len(), sent.len());
    assert_eq!(served.into_iter().collect::<BTreeSet<_>>(), sent.into_iter().collect());
}

#[test]
fn a_flood_on_one_worker() {
    flood(1, 256);
}

#[test]
fn a_flood_on_two_workers() {
    flood(2, 256);
}

/// A line has more connections than the ring has room for completions.
#[test]
fn a_flood_through_small_rings() {
    flood(2, 1);
    flood(1, 4);
}

/// A fiber that accepts as fast as it can, and is asked to end: what it has not returned is there.
#[test]
fn cancelled_in_the_middle() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            for turn in 0..20 {
                let (listener, addr) = bound();
                let clone = listener.try_clone().unwrap();
                let clients = clients(addr);
                let server = spawn(move || {
                    let (mut served, mut incoming) = (Vec::new(), clone.incoming());
                    loop {
                        match incoming.next().unwrap() {
                            Ok(stream) => served.push(stream.peer_addr().unwrap()),
                            Err(error) => break assert!(is_cancelled(&error)),
                        }
                        if served.len() % 16 == turn % 16 {
                            ramie::yield_now();
                        }
                    }
                    served
                });
                (0..turn % 5).for_each(|_| ramie::yield_now());
                let mut served = server.cancel_join().unwrap();
                while served.len() < LINE {
                    served.push(listener.accept().unwrap().1);
                }
                assert_eq!(served, names(&clients));
            }
        });
    }
}

fn high(client: &StdStream) -> StdStream {
    // SAFETY: a descriptor that the kernel has just made.
    unsafe {
        let fd = libc::fcntl(client.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 1000);
        StdStream::from_raw_fd(fd)
    }
}

/// Descriptors run out within a line: what was accepted is served, and the rest when there is room.
#[test]
fn without_room_in_the_middle() {
    isolated("without_room_in_the_middle", || {
        let runtime = runtime(1);
        runtime.run(|| {
            let (listener, addr) = bound();
            // Their numbers are out of the way.
            let clients: Vec<_> = clients(addr).iter().map(high).collect();
            let set = |limit: usize| {
                let limit = libc::rlimit { rlim_cur: limit as u64, rlim_max: 4096 };
                // SAFETY: it is only read.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            };
            // A full line would leave enough of them, if most were not taken elsewhere.
            set(600);
            let file = std::fs::File::open("Cargo.toml").unwrap();
            let first = file.as_raw_fd() + LINE as i32 / 2;
            // SAFETY: a number only; it says where the new number is to be.
            let copy = || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) };
            let taken: Vec<_> = std::iter::from_fn(|| Some(copy()).filter(|fd| *fd >= 0)).collect();
            drop(file);
            let (mut streams, mut failures) = (Vec::new(), 0);
            let mut incoming = listener.incoming();
            while failures < 3 {
                match incoming.next().unwrap() {
                    Ok(stream) => streams.push(stream),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                        failures += 1;
                    }
                }
            }
            assert!((1..LINE).contains(&streams.len()), "{} streams", streams.len());
            for fd in taken {
                // SAFETY: a number that is this test's.
                assert_eq!(unsafe { libc::close(fd) }, 0);
            }
            streams.extend(incoming.by_ref().take(LINE - streams.len()).map(Result::unwrap));
            let served = streams.iter().map(|stream| stream.peer_addr().unwrap());
            assert!(served.eq(names(&clients)));
        });
    });
}

/// A Unix listener's line is much longer than the process has room for.
#[test]
fn a_long_line_leaves_descriptors_to_the_others() {
    isolated("a_long_line_leaves_descriptors_to_the_others", || {
        const LIMIT: u64 = 256;
        let longest = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let longest = longest.map_or(128, |text| text.trim().parse().unwrap());
        let clients = 400.min(longest); // more would wait for room in the line
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
        // SAFETY: it is only read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let dir = TempDir::new();
        let path = dir.path().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        // They stay in line when their clients leave.
        for number in 0..clients {
            let client = StdUnixStream::connect(&path).unwrap();
            (&client).write_all(&(number as u32).to_le_bytes()).unwrap();
        }
        runtime(1).run(|| {
            let mut open = Vec::new();
            for (number, stream) in listener.incoming().take(clients).enumerate() {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).unwrap();
                assert_eq!(u32::from_le_bytes(bytes), number as u32);
                open.push(stream);
                if open.len() == 100 {
                    open.clear();
                }
                let file = std::fs::File::open("Cargo.toml").unwrap();
                assert!((file.as_raw_fd() as u64) < LIMIT / 2 + 20, "{file:?}");
            }
        });
    });
}

/// An iterator that is alive, and has accepted ahead, holds up neither the end of the runtime nor
/// the next user of the listener.
#[test]
fn the_runtime_ends_before_the_iterator() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let (listener, addr) = bound();
        let clients = clients(addr);
        let clone = listener.try_clone().unwrap();
        let before = Mutex::new(Vec::new());
        let runtime = runtime(workers);
        runtime.run(|| before.lock().unwrap().extend(some(&listener)));
        drop(runtime.handle().spawn(move || clone.incoming().find_map(Result::err)));
        runtime.run(ramie::yield_now);
        drop(runtime);
        // The fiber may have served some.
        let last = StdStream::connect(addr).unwrap().local_addr().unwrap();
        while listener.accept().unwrap().1 != last {}
        assert_eq!(before.into_inner().unwrap(), names(&clients)[..12]);
    }
}
