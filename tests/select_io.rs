//! `ramie::select!` over descriptors: nothing is lost in an arm that is not chosen.

mod common;

use common::rng::Rng;
use common::{eventually, go, runtime, watch};
use ramie::io::{self, Interest, Read, Write};
use ramie::net::{TcpListener, TcpStream, UdpSocket};
use ramie::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use ramie::process::{Command, Stdio};
use ramie::select;
use ramie::sync::{mpmc, mpsc};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(20);

contract! {
    fn accepting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (_tx, rx) = mpsc::channel::<()>();
        let nobody = select! {
            accept(&listener) -> _ => false,
            recv(&rx) -> _ => false,
            after(SHORT) => true,
        };
        assert!(nobody);
        assert!(select! { accept(&listener) => false, default => true });
        let client = go(move || {
            ramie::sleep(SHORT);
            TcpStream::connect(addr).unwrap().write_all(b"hello").unwrap();
        });
        let mut stream = select! {
            recv(&rx) -> _ => panic!("nobody sends"),
            accept(&listener) -> connection => connection.unwrap().0,
            after(LONG) => panic!("somebody connects"),
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        client();
    }

    /// What waits in line while another arm is chosen, is there for the next call.
    fn a_connection_waits_for_its_turn() {
        let listener = UnixListener::bind_addr(&unnamed()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (tx, rx) = mpsc::channel();
        let connected = go(move || {
            drop(UnixStream::connect_addr(&addr).unwrap());
            tx.send(()).unwrap();
        });
        let mut accepted = 0;
        let mut told = 0;
        while accepted + told < 2 {
            select! {
                accept(&listener) -> connection => { connection.unwrap(); accepted += 1 }
                recv(&rx) -> message => match message {
                    Ok(()) => told += 1,
                    Err(_) => break,
                },
            }
        }
        connected();
        if accepted == 0 {
            listener.accept().unwrap();
        }
        assert!(told == 1 && accepted <= 1);
        assert!(select! { accept(&listener) -> _ => false, default => true });
    }

    fn reading() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut buf = [0; 4];
        let late = select! {
            read(&theirs, &mut buf) -> _ => false,
            after(SHORT) => { buf[0] = 1; true } // nobody has the buffer any more
        };
        assert!(late);
        let writer = go(move || {
            for byte in 0..100u8 {
                ours.write_all(&[byte]).unwrap();
                ramie::yield_now();
            }
        });
        let mut all = vec![];
        loop {
            let n = select! {
                read(&theirs, &mut buf) -> n => n.unwrap(),
                after(LONG) => panic!("there is something"),
            };
            if n == 0 {
                break; // the end is something, too
            }
            all.extend_from_slice(&buf[..n]);
        }
        writer();
        assert!(all.into_iter().eq(0..100));
    }

    fn pipes_and_children() {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read line; echo got $line; echo bad >&2"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (mut a, mut b, mut c) = ([0; 64], [0; 64], [0; 64]);
        let (mut out, mut err) = (vec![], vec![]);
        let late = go(move || {
            ramie::sleep(SHORT);
            (&writer).write_all(b"now").unwrap();
        });
        let mut open = 3;
        let mut ends = [false; 3];
        while open > 0 {
            let (which, n) = select! {
                read(&reader, &mut a) -> n => (0, n.unwrap()),
                read(&stdout, &mut b) -> n => (1, n.unwrap()),
                read(&stderr, &mut c) -> n => (2, n.unwrap()),
            };
            match which {
                0 if n > 0 => stdin.write_all(b"a line\n").unwrap(),
                1 => out.extend_from_slice(&b[..n]),
                2 => err.extend_from_slice(&c[..n]),
                _ => {}
            }
            if n == 0 && !std::mem::replace(&mut ends[which], true) {
                open -= 1;
            }
        }
        late();
        assert_eq!((&*out, &*err), (&b"got a line\n"[..], &b"bad\n"[..]));
        assert!(child.wait().unwrap().success());
    }

    fn datagrams() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UnixDatagram::pair().unwrap());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = sender.local_addr().unwrap();
        let (mut first, mut second) = ([0; 8], [0; 8]);
        sender.send_to(b"one", a.local_addr().unwrap()).unwrap();
        select! {
            recv_from(&a, &mut first) -> got => assert_eq!(got.unwrap(), (3, from)),
            recv_from(&b.0, &mut second) -> _ => panic!("nobody has sent"),
        }
        b.1.send(b"two").unwrap();
        select! {
            recv_from(&a, &mut first) -> _ => panic!("nobody has sent"),
            recv_from(&b.0, &mut second) -> got => assert_eq!(got.unwrap().0, 3),
        }
        b.1.send(b"three").unwrap();
        select! {
            read(&a, &mut first) -> _ => panic!("nobody has sent"),
            read(&b.0, &mut second) -> got => assert_eq!(got.unwrap(), 5),
        }
        assert_eq!((&first[..3], &second[..5]), (&b"one"[..], &b"three"[..]));
    }

    /// A foreign descriptor is only looked at.
    fn readiness() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        select! {
            ready(&reader, Interest::READABLE) -> _ => panic!("it is empty"),
            ready(&writer, Interest::WRITABLE) -> ready => assert!(ready.unwrap().is_writable()),
        }
        let closed = go(move || { ramie::sleep(SHORT); drop(writer) });
        select! {
            ready(&reader, Interest::READABLE) -> ready => assert!(ready.unwrap().is_readable()),
            after(LONG) => panic!("the end is near"),
        }
        closed();
        // A regular file is always ready.
        let file = std::fs::File::open("Cargo.toml").unwrap();
        select! {
            ready(&file, Interest::READABLE) -> ready => assert!(ready.unwrap().is_readable()),
        }
    }

    /// One connection, several that wait: the others go on waiting.
    fn many_accept() {
        if !ramie::is_fiber() {
            return; // a thread that finds it gone waits for the next one, which does not come
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = AtomicUsize::new(0);
        let (stop, stopped) = mpmc::bounded::<()>(1);
        ramie::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| select! {
                    accept(&listener) -> connection => {
                        connection.unwrap();
                        accepted.fetch_add(1, SeqCst);
                    }
                    recv(&stopped) -> _ => {}
                });
            }
            drop(TcpStream::connect(addr).unwrap());
            eventually("one accepts", || accepted.load(SeqCst) > 0);
            drop(stop);
        });
        assert_eq!(accepted.into_inner(), 1);
    }

    fn in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let late = ramie::time::timeout(SHORT, || {
            select! { accept(&listener) -> connection => connection.map(drop) }
        });
        let error = late.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// Any operation can take part by a fiber of its own, which may borrow.
    fn fibers_of_a_scope() {
        if !ramie::is_fiber() {
            return;
        }
        let (reader, mut writer) = io::pipe().unwrap();
        let mut buf = [0; 5];
        let ended = ramie::scope(|s| {
            let mut exact = s.spawn(|| (&reader).read_exact(&mut buf));
            for piece in [&b"he"[..], b"l", b"lo"] {
                select! {
                    join(&mut exact) -> _ => panic!("not all is there"),
                    after(SHORT) => {}
                }
                writer.write_all(piece).unwrap();
            }
            select! {
                join(&mut exact) -> ended => ended,
                after(LONG) => panic!("all is there"),
            }
        });
        ended.unwrap().unwrap();
        assert_eq!(&buf, b"hello");
    }
}

fn unnamed() -> ramie::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ramie-select-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
    ramie::os::unix::net::SocketAddr::from_abstract_name(name).unwrap()
}

/// A request ends the wait with an error, and nothing is left behind.
#[test]
fn a_request_is_answered() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let fiber = ramie::spawn(move || {
                let error = select! {
                    accept(&listener) -> connection => connection.unwrap_err(),
                    read(&theirs, &mut [0; 8]) -> n => n.unwrap_err(),
                };
                ramie::cancel::check().expect("the error has reported the request");
                (error, listener)
            });
            ramie::sleep(SHORT);
            let (error, listener) = fiber.cancel_join().unwrap();
            assert!(ramie::is_cancelled(&error));
            let client = TcpStream::connect(addr).unwrap();
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
            drop(ours);
        });
    }
}

/// Waits until there is something: on a busy machine the network may take its time.
fn comes(socket: &impl AsRawFd) {
    let mut ready = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one record, alive for the call.
    assert_eq!(unsafe { libc::poll(&mut ready, 1, -1) }, 1);
}

/// What need not wait may be asked for in a `no_suspend` section, too.
#[test]
fn without_suspending() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let look = || {
                ramie::no_suspend(|| {
                    select! {
                        accept(&listener) -> connection => connection.map(|_| "accept"),
                        ready(&ours, Interest::READABLE) -> now => now.map(|_| "ready"),
                        default => Ok("nothing"),
                    }
                })
            };
            let (end, mut pipe) = ramie::io::pipe().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let take = || {
                let (mut a, mut b, mut c) = ([0; 4], [0; 4], [0; 4]);
                ramie::no_suspend(|| {
                    select! {
                        read(&ours, &mut a) -> n => n.map(|n| ("stream", n)),
                        read(&end, &mut b) -> n => n.map(|n| ("pipe", n)),
                        recv_from(&socket, &mut c) -> n => n.map(|(n, _)| ("datagram", n)),
                        default => Ok(("nothing", 0)),
                    }
                })
                .unwrap()
            };
            assert_eq!(take(), ("nothing", 0));
            socket.send_to(b"12", socket.local_addr().unwrap()).unwrap();
            comes(&socket);
            assert_eq!(take(), ("datagram", 2));
            pipe.write_all(b"123").unwrap();
            assert_eq!(take(), ("pipe", 3));
            theirs.write_all(b"1234").unwrap();
            assert_eq!(take(), ("stream", 4));
            assert_eq!(take(), ("nothing", 0));
            assert_eq!(look().unwrap(), "nothing");
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            comes(&listener);
            assert_eq!(look().unwrap(), "accept");
            theirs.write_all(b"!").unwrap();
            assert_eq!(look().unwrap(), "ready");
            drop(client);
        });
    }
}

/// A runtime that ends does not wait for what never comes.
#[test]
fn the_end_of_a_runtime() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let (tx, rx) = std::sync::mpsc::channel();
        let begun = Arc::new(AtomicUsize::new(0));
        let rt = runtime(workers);
        rt.run(|| {
            for _ in 0..3 {
                let (tx, begun) = (tx.clone(), begun.clone());
                drop(ramie::spawn(move || {
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    let (_ours, theirs) = UnixStream::pair().unwrap();
                    begun.fetch_add(1, SeqCst);
                    let result = select! {
                        accept(&listener) -> connection => connection.map(drop),
                        read(&theirs, &mut [0; 8]) -> n => n.map(drop),
                    };
                    tx.send(result).unwrap();
                }));
            }
            eventually("all have begun", || begun.load(SeqCst) == 3);
        });
        drop(rt);
        drop(tx);
        let results: Vec<_> = rx.iter().collect();
        assert!(results.len() == 3 && results.iter().all(Result::is_err), "{results:?}");
    }
}

/// A pipe and a socket, each read beside a clock that is often faster: every byte arrives, once, in
/// order; and no descriptor is left.
#[test]
fn no_byte_is_lost() {
    const BYTES: u32 = 2_000;
    let _watchdog = watch::dog();
    let seed = Rng::from_env().next();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let (reader, mut writer) = io::pipe().unwrap();
            let (theirs, mut ours) = UnixStream::pair().unwrap();
            let mut rng = Rng(seed);
            let sender = ramie::spawn(move || {
                for n in 0..BYTES {
                    if rng.below(2) == 0 {
                        &mut writer as &mut (dyn Write + Send)
                    } else {
                        &mut ours
                    }
                    .write_all(&n.to_le_bytes())
                    .unwrap();
                    match rng.below(4) {
                        0 => ramie::sleep(rng.micros(100)),
                        1 => ramie::yield_now(),
                        _ => {}
                    }
                }
            });
            let mut rng = Rng(!seed);
            let mut received: [Vec<u8>; 2] = Default::default();
            let (mut a, mut b) = ([0; 7], [0; 7]);
            let mut ended = [false; 2];
            let (mut late, mut loops) = (0, 0);
            while ended != [true; 2] {
                loops += 1;
                let patience = rng.micros(50);
                let (which, n) = select! {
                    read(&reader, &mut a) -> n => (0, n.unwrap()),
                    read(&theirs, &mut b) -> n => (1, n.unwrap()),
                    after(patience) => { late += 1; continue }
                };
                received[which].extend_from_slice(if which == 0 { &a[..n] } else { &b[..n] });
                ended[which] |= n == 0;
            }
            eprintln!("{loops} loops, of which the clock won {late}");
            sender.join().unwrap();
            let mut all: Vec<u32> = vec![];
            for bytes in received {
                let (words, rest) = bytes.as_chunks::<4>();
                assert!(rest.is_empty() && words.is_sorted_by_key(|w| u32::from_le_bytes(*w)));
                all.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
            }
            all.sort_unstable();
            assert!(all.into_iter().eq(0..BYTES));
        });
    }
}
