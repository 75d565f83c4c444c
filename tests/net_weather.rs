//! Sockets in bad weather: no descriptors left, peers that reset, vanish, or take their time, calls
//! of odd sizes. Each ends as std documents, and nothing is left over: no descriptor, no fiber, no
//! operation. `SIGPIPE` would end the process in all of them.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{eventually, fds, isolated, runtime, seen};
use ramie::net::{TcpListener, TcpStream, UdpSocket};
use ramie::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use ramie::{is_cancelled, scope, spawn, yield_now};

const ANY: &str = "127.0.0.1:0";

/// Runs each body in a process of its own, on one worker and on two.
macro_rules! weather {
    ($($(#[doc = $doc:literal])* fn $name:ident() $body:block)*) => { $(
        $(#[doc = $doc])*
        #[test]
        fn $name() {
            isolated(stringify!($name), || through(|| $body));
        }
    )* };
}

fn through(body: impl Fn()) {
    // SAFETY: sets the disposition that ends the process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    runtime(2).run(|| drop(pair())); // what is made once
    for workers in [1, 2] {
        let before = fds();
        let runtime = runtime(workers);
        runtime.run(&body);
        eventually("all fibers have ended", || runtime.metrics().live_fibers == 0);
        drop(runtime);
        eventually("all descriptors are closed", || fds() == before);
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY).unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

fn soft_limit_on_descriptors(limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the record is ours to write.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) }, 0);
    let before = std::mem::replace(&mut limits.rlim_cur, limit);
    // SAFETY: it is only read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
    before
}

weather! {
    /// The connection stays in line, so each attempt fails at once: a server that goes on after
    /// errors does not keep its core busy with that, and serves when there is room again.
    fn incoming_without_room_for_descriptors() {
        let unix = std::env::temp_dir().join(format!("ramie-weather-{}", std::process::id()));
        let listener = TcpListener::bind(ANY).unwrap();
        let unix_listener = UnixListener::bind(&unix).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let unix_client = UnixStream::connect(&unix).unwrap();
        std::fs::remove_file(&unix).unwrap();
        let limit = soft_limit_on_descriptors(0);
        let (start, failures) = (Instant::now(), AtomicUsize::new(0));
        scope(|scope| {
            scope.spawn(|| {
                let failed = |error: std::io::Error| {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    failures.fetch_add(1, Ordering::Relaxed);
                };
                listener.incoming().find_map(|stream| stream.map_err(failed).ok()).unwrap();
                unix_listener.incoming().find_map(|stream| stream.map_err(failed).ok()).unwrap();
            });
            ramie::sleep(Duration::from_millis(150));
            soft_limit_on_descriptors(limit);
        });
        let failures = failures.load(Ordering::Relaxed);
        let most = 8 + start.elapsed().as_millis() as usize / 100;
        assert!((1..=most).contains(&failures), "{failures} failures, at most {most}");
        drop((client, unix_client));
    }

    /// Its line is still there for the next one.
    fn a_fiber_is_cancelled_in_incoming() {
        let listener = TcpListener::bind(ANY).unwrap();
        let addr = listener.local_addr().unwrap();
        let clone = listener.try_clone().unwrap();
        let server = spawn(move || clone.incoming().find_map(Result::err).unwrap());
        let first = TcpStream::connect(addr).unwrap();
        assert!(is_cancelled(&server.cancel_join().unwrap()));
        let second = TcpStream::connect(addr).unwrap();
        let (_, from) = listener.accept().unwrap();
        let expected = [&first, &second].map(|stream| stream.local_addr().unwrap());
        assert!(expected.contains(&from));
    }

    fn a_peer_that_resets_in_the_middle_of_a_write() {
        let (mut ours, theirs) = pair();
        (&theirs).write_all(b"unread").unwrap();
        let writer = spawn(move || loop {
            if let Err(error) = ours.write_all(&[0; 1 << 16]) {
                return error.kind();
            }
        });
        (&theirs).read_exact(&mut [0; 10]).unwrap();
        ramie::sleep(Duration::from_millis(5)); // now it waits for room
        drop(theirs); // with bytes unread: a reset
        let kind = writer.join().unwrap();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind:?}");
    }

    fn a_peer_that_resets_a_reader() {
        let (mut ours, theirs) = pair();
        ours.write_all(b"never read").unwrap();
        theirs.peek(&mut [0; 16]).unwrap(); // it is there
        let reader = spawn(move || {
            let first = seen(ours.read(&mut [0; 8]));
            (format!("{first:?}"), ours.read(&mut [0; 8]).unwrap())
        });
        ramie::sleep(Duration::from_millis(5));
        drop(theirs);
        let (first, then) = reader.join().unwrap();
        assert!(first.contains("ConnectionReset"), "{first}");
        assert_eq!(then, 0, "the error is reported once");
    }

    fn half_closed_both_ways() {
        let (ours, theirs) = pair();
        let server = spawn(move || {
            let mut text = String::new();
            (&theirs).read_to_string(&mut text).unwrap();
            // Our reading half is at its end; the other one lives.
            assert_eq!((&theirs).read(&mut [0; 4]).unwrap(), 0);
            for _ in 0..100 {
                (&theirs).write_all(text.as_bytes()).unwrap();
                yield_now();
            }
        });
        (&ours).write_all(b"question").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind((&ours).write(b"x")), ErrorKind::BrokenPipe);
        let mut all = String::new();
        (&ours).read_to_string(&mut all).unwrap();
        assert_eq!(all, "question".repeat(100));
        server.join().unwrap();
    }

    fn one_byte_at_a_time() {
        let (mut ours, mut theirs) = pair();
        ours.set_nodelay(true).unwrap();
        let writer = spawn(move || {
            for n in 0..2000u32 {
                assert_eq!(ours.write(&[n as u8]).unwrap(), 1);
            }
        });
        for n in 0..2000u32 {
            let mut byte = [0];
            assert_eq!(theirs.read(&mut byte).unwrap(), 1);
            assert_eq!(byte[0], n as u8);
        }
        writer.join().unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }

    /// With nothing there, `recv` waits all the same, and so does std; `readv` does not.
    fn buffers_of_no_length() {
        let (mut ours, mut theirs) = pair();
        for _ in 0..3 {
            assert_eq!(ours.write(&[]).unwrap(), 0);
            assert_eq!(ours.read_vectored(&mut []).unwrap(), 0);
            assert_eq!(ours.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(), 0);
            assert_eq!(ours.write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
            theirs.write_all(b"ab").unwrap();
            assert_eq!(ours.peek(&mut []).unwrap(), 0);
            assert_eq!(ours.read(&mut []).unwrap(), 0);
            assert_eq!(ours.read(&mut [0; 4]).unwrap(), 2);
        }
        let (a, b) = (UdpSocket::bind(ANY).unwrap(), UdpSocket::bind(ANY).unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        assert_eq!(a.send(&[]).unwrap(), 0);
        assert_eq!(b.recv(&mut []).unwrap(), 0);
        assert_eq!(a.send_many(&[]).unwrap(), 0);
        assert!(b.recv_many(&mut []).unwrap().is_empty());
    }

    /// More buffers than the system takes at once.
    fn huge_vectored_calls() {
        let (mut ours, mut theirs) = pair();
        let writer = spawn(move || {
            let all: Vec<[u8; 3]> = (0..5000u32).map(|n| [n as u8, (n >> 8) as u8, 7]).collect();
            let mut slices: Vec<_> = all.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let n = ours.write_vectored(left).unwrap();
                assert!(n > 0 && n <= 3 * 1024);
                IoSlice::advance_slices(&mut left, n);
            }
        });
        let mut all = vec![[0u8; 2]; 7500];
        let mut slices: Vec<_> = all.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let n = theirs.read_vectored(left).unwrap();
            assert!(n > 0);
            IoSliceMut::advance_slices(&mut left, n);
        }
        writer.join().unwrap();
        let bytes = all.concat();
        for (n, chunk) in bytes.chunks(3).enumerate() {
            assert_eq!(chunk, [n as u8, (n >> 8) as u8, 7]);
        }
    }

    /// Small messages, so that neither waits for long and both are in the kernel at once.
    fn two_fibers_at_one_stream() {
        let (ours, theirs) = pair();
        let echo = spawn(move || {
            let mut buf = [0; 100];
            while let Ok(n @ 1..) = (&theirs).read(&mut buf) {
                (&theirs).write_all(&buf[..n]).unwrap();
            }
        });
        scope(|scope| {
            scope.spawn(|| {
                for n in 0..3000u32 {
                    (&ours).write_all(&n.to_le_bytes()).unwrap();
                }
                ours.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(|| {
                for n in 0..3000u32 {
                    let mut word = [0; 4];
                    (&ours).read_exact(&mut word).unwrap();
                    assert_eq!(u32::from_le_bytes(word), n);
                }
            });
        });
        echo.join().unwrap();
    }

    fn shut_down_while_others_wait() {
        let (a, b) = UnixStream::pair().unwrap();
        let (tcp, _other) = pair();
        scope(|scope| {
            let readers = [
                scope.spawn(|| (&a).read(&mut [0; 4]).unwrap()),
                scope.spawn(|| (&b).read(&mut [0; 4]).unwrap()),
                scope.spawn(|| (&tcp).read_vectored(&mut [IoSliceMut::new(&mut [0; 4])]).unwrap()),
                scope.spawn(|| tcp.peek(&mut [0; 4]).unwrap()),
            ];
            ramie::sleep(Duration::from_millis(5));
            a.shutdown(Shutdown::Both).unwrap();
            tcp.shutdown(Shutdown::Read).unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 0);
            }
        });
    }

    /// What came before counts first; and who comes after it does not wait.
    fn datagram_sockets_shut_down_while_others_wait() {
        let (a, b) = UnixDatagram::pair().unwrap();
        scope(|scope| {
            let one = scope.spawn(|| a.recv(&mut [0; 4]).unwrap());
            let other = scope.spawn(|| {
                let (n, from) = a.recv_from(&mut [0; 4]).unwrap();
                assert!(from.is_unnamed());
                n
            });
            ramie::sleep(Duration::from_millis(5));
            a.shutdown(Shutdown::Read).unwrap();
            assert_eq!((one.join().unwrap(), other.join().unwrap()), (0, 0));
        });
        assert_eq!(a.recv(&mut [0; 4]).unwrap(), 0);
        a.send(b"abc").unwrap();
        b.shutdown(Shutdown::Read).unwrap();
        assert_eq!(b.recv(&mut [0; 4]).unwrap(), 3);
        assert_eq!(b.recv(&mut [0; 4]).unwrap(), 0);
    }

    /// A flood of clients, which take in what they get at leisure; some leave without a word. They
    /// speak first: the system forgets a connection that finds the line full until its client does.
    fn a_flood_of_slow_readers() {
        const CLIENTS: usize = 1000;
        const BYTES: usize = 96 << 10;
        let listener = TcpListener::bind(ANY).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = spawn(move || {
            let serve = |stream: std::io::Result<TcpStream>| {
                let mut stream = stream.unwrap();
                spawn(move || {
                    stream.read_exact(&mut [0]).is_ok() && stream.write_all(&[5; BYTES]).is_ok()
                })
            };
            let fibers: Vec<_> = listener.incoming().take(CLIENTS).map(serve).collect();
            fibers.into_iter().filter_map(|fiber| fiber.join().ok()).filter(|done| *done).count()
        });
        let client = |i: usize| {
            spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(&[1]).unwrap();
                let (mut buf, mut left) = ([0; 4096], BYTES);
                while left > 0 {
                    if i.is_multiple_of(10) && left < BYTES {
                        return false; // with most of it unread
                    }
                    let n = stream.read(&mut buf).unwrap();
                    assert!(n > 0 && buf[..n].iter().all(|byte| *byte == 5));
                    left -= n;
                    ramie::sleep(Duration::from_micros(200));
                }
                true
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let served = clients.into_iter().filter_map(|fiber| fiber.join().ok()).filter(|all| *all);
        assert_eq!(served.count(), CLIENTS - CLIENTS / 10);
        assert!(server.join().unwrap() >= CLIENTS - CLIENTS / 10);
    }

    fn writes_to_nobody() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let failed = (0..100).find_map(|_| {
            ramie::sleep(Duration::from_millis(1));
            ours.write_vectored(&[IoSlice::new(b"x")]).and_then(|_| ours.write(b"x")).err()
        });
        let failed = failed.unwrap().kind();
        assert!(matches!(failed, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{failed:?}");
        assert_eq!(kind(ours.write_vectored(&[IoSlice::new(b"x")])), ErrorKind::BrokenPipe);

        let (mut ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(kind(ours.write(b"x")), ErrorKind::BrokenPipe);
        let sent = ours.send_with_fds(b"x", &[std::io::stdin().as_fd()]);
        assert_eq!(kind(sent), ErrorKind::BrokenPipe);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        drop(theirs);
        assert_eq!(kind(ours.send(b"x")), ErrorKind::ConnectionRefused);
    }

    fn the_first_address_refuses() {
        // Taken, and nobody listens there.
        let (client, _other) = pair();
        let nobody = client.local_addr().unwrap();
        let listener = TcpListener::bind(ANY).unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = TcpStream::connect(&[nobody, nobody, addr][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addr);
        let refused = kind(TcpStream::connect(&[nobody, nobody][..]));
        assert_eq!(refused, ErrorKind::ConnectionRefused);
        let none: &[SocketAddr] = &[];
        assert_eq!(kind(TcpStream::connect(none)), ErrorKind::InvalidInput);
    }

    /// Descriptors that arrive, and some that nobody receives.
    fn descriptors_on_the_way() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for round in 0..20 {
            let (reader, writer) = std::io::pipe().unwrap();
            ours.send_with_fds(&[round], &[reader.as_fd(), writer.as_fd()]).unwrap();
            drop((reader, writer));
            if round < 15 {
                let mut buf = [0; 1];
                let (n, fds) = theirs.recv_with_fds(&mut buf).unwrap();
                assert_eq!((n, fds.len(), buf[0]), (1, 2, round));
            }
        }
    }

    /// A stream that was read empty is waited for before the next attempt; that must not be seen.
    fn after_a_short_read() {
        let (mut ours, mut theirs) = pair();
        let mut buf = [0; 64];
        for round in 0..50u8 {
            theirs.write_all(&[round; 5]).unwrap();
            if round.is_multiple_of(3) {
                ramie::sleep(Duration::from_millis(1)); // it is there before the read
            }
            let mut got = 0;
            while got < 5 {
                got += ours.read(&mut buf).unwrap();
            }
        }
        ours.set_nonblocking(true).unwrap();
        assert_eq!(kind(ours.read(&mut buf)), ErrorKind::WouldBlock);
        ours.set_nonblocking(false).unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        assert_eq!(kind(ours.read(&mut buf)), ErrorKind::WouldBlock);
        theirs.write_all(&[1; 64]).unwrap();
        assert_eq!(ours.read(&mut buf).unwrap(), 64);
        drop(theirs);
        assert_eq!(ours.read(&mut buf).unwrap(), 0);
        assert_eq!(ours.read(&mut buf).unwrap(), 0);
    }

    /// A fiber whose reads never have to wait does not keep others from running.
    fn a_busy_stream_does_not_starve_others() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let done = AtomicUsize::new(0);
        scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    ours.write_all(&[1; 512]).unwrap();
                    theirs.read_exact(&mut [0; 512]).unwrap();
                }
            });
            ramie::sleep(Duration::from_millis(5));
            (0..100).for_each(|_| yield_now());
            done.store(1, Ordering::Relaxed);
        });
    }
}

contract! {
    fn many_datagrams() {
        let (a, b) = (UdpSocket::bind(ANY).unwrap(), UdpSocket::bind(ANY).unwrap());
        let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        let texts: Vec<_> = (0..30u8).map(|n| vec![n; usize::from(n)]).collect();
        let slices: Vec<_> = texts.iter().map(|text| IoSlice::new(text)).collect();
        let unconnected = a.send_many(&slices).unwrap_err();
        assert_eq!(unconnected.raw_os_error(), Some(libc::EDESTADDRREQ));
        let mut bufs = vec![[0; 32]; 50];
        for connected in [false, true] {
            let sent = if connected {
                a.connect(to).unwrap();
                a.send_many(&slices).unwrap()
            } else {
                a.send_many_to(&slices, &[to; 30]).unwrap()
            };
            assert_eq!(sent, 30);
            let mut received = Vec::new();
            while received.len() < 30 {
                let mut bufs: Vec<_> = bufs[received.len()..]
                    .iter_mut()
                    .map(|buf| IoSliceMut::new(buf))
                    .collect();
                received.extend(b.recv_many(&mut bufs).unwrap());
            }
            for (n, got) in received.into_iter().enumerate() {
                assert_eq!(got, (n, from));
                assert_eq!(bufs[n][..n], texts[n]);
            }
        }
        // Nothing is there.
        let mut one = [0; 8];
        b.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        let late = b.recv_many(&mut [IoSliceMut::new(&mut one)]).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::WouldBlock);
        b.set_read_timeout(None).unwrap();
        b.set_nonblocking(true).unwrap();
        let none = b.recv_many(&mut [IoSliceMut::new(&mut one)]).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        b.set_nonblocking(false).unwrap();
        // It comes later.
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            a.send_many(&[IoSlice::new(b"late")]).unwrap()
        });
        let got = b.recv_many(&mut [IoSliceMut::new(&mut one)]).unwrap();
        assert_eq!((got[0].0, &one[..4]), (4, &b"late"[..]));
        assert_eq!(sender.join().unwrap(), 1);
    }
}

#[test]
fn waiting_for_many_datagrams_can_be_cancelled() {
    runtime(1).run(|| {
        let socket = UdpSocket::bind(ANY).unwrap();
        let reader =
            spawn(move || socket.recv_many(&mut [IoSliceMut::new(&mut [0; 8])]).unwrap_err());
        ramie::sleep(Duration::from_millis(2));
        assert!(is_cancelled(&reader.cancel_join().unwrap()));
    });
}

/// Also in non-blocking mode, where even a call through the ring does not wait.
#[test]
fn a_foreign_datagram_socket_shut_down_ends_its_receiver() {
    let _watchdog = common::watch::dog();
    let (a, _b) = std::os::unix::net::UnixDatagram::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    let other = a.try_clone().unwrap();
    runtime(1).run(|| {
        let socket = UnixDatagram::from(OwnedFd::from(a));
        let receiver = spawn(move || {
            ramie::time::timeout(Duration::from_secs(5), || socket.recv(&mut [0; 4]))
        });
        ramie::sleep(Duration::from_millis(5));
        other.shutdown(Shutdown::Read).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), 0);
    });
}
