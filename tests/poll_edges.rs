//! Streams whose numbers the poll driver tells epoll once (`src/driver/poll/table.rs`): that nobody
//! waits for an edge that has been, and what becomes of a number that changes hands.

mod common;

use common::watch;
use ramie::net::{TcpListener, TcpStream};
use ramie::os::unix::net::UnixStream;
use ramie::{DriverKind, Runtime, is_cancelled};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn on_poll(workers: usize, f: impl FnOnce() + Send) {
    let _watchdog = watch::dog();
    let rt = Runtime::builder().driver(DriverKind::Poll).workers(workers).build().unwrap();
    rt.run(|| ramie::scope(|scope| _ = scope.spawn(f)));
}

/// A stream of ours and its other end, which blocks and is short of nothing.
fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let there = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    there.set_nodelay(true).unwrap();
    (TcpStream::from(listener.accept().unwrap().0), there)
}

/// Has the worker's set know the stream: a read has waited on it.
fn make_known(stream: &mut impl Read) {
    let late = ramie::time::timeout(MS, || stream.read(&mut [0; 8])).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut);
}

/// What is left in the socket by a read of its full length gives no new edge.
#[test]
fn a_long_message_in_small_parts() {
    on_poll(1, || {
        let (mut stream, mut there) = pair();
        make_known(&mut stream);
        for len in [1, 7, 8, 64, 1000] {
            let reader = ramie::spawn_local(move || {
                let mut part = vec![0; len];
                for _ in 0..8 {
                    stream.read_exact(&mut part).unwrap();
                    ramie::yield_now();
                }
                stream
            });
            ramie::sleep(MS);
            there.write_all(&vec![1; len * 8]).unwrap();
            stream = reader.join().unwrap();
        }
    });
}

/// The end of the stream and the last bytes may be one event.
#[test]
fn the_end_right_behind_the_last_bytes() {
    on_poll(1, || {
        for early in [true, false] {
            for _ in 0..50 {
                let (mut stream, mut there) = pair();
                make_known(&mut stream);
                let reader = ramie::spawn_local(move || {
                    let mut all = Vec::<u8>::new();
                    let mut buf = [0; 100];
                    loop {
                        match stream.read(&mut buf).unwrap() {
                            0 => return all,
                            n => all.extend(&buf[..n]),
                        }
                    }
                });
                if early {
                    ramie::yield_now();
                }
                there.write_all(b"abc").unwrap();
                there.shutdown(Shutdown::Write).unwrap();
                assert_eq!(reader.join().unwrap(), b"abc");
            }
        }
    });
}

/// A read stops in front of an urgent byte, and there is more behind it.
#[test]
fn urgent_bytes() {
    on_poll(1, || {
        let (mut stream, mut there) = pair();
        make_known(&mut stream);
        for _ in 0..50 {
            there.write_all(b"abc").unwrap();
            // SAFETY: reads one byte of a constant.
            let sent =
                unsafe { libc::send(there.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
            assert_eq!(sent, 1);
            there.write_all(b"def").unwrap();
            let mut all = Vec::<u8>::new();
            let mut buf = [0; 100];
            while !all.ends_with(b"def") {
                let n = stream.read(&mut buf).unwrap();
                all.extend(&buf[..n]);
            }
        }
    });
}

/// Looking does not use up what is there.
#[test]
fn peeking() {
    on_poll(1, || {
        let (mut stream, mut there) = pair();
        make_known(&mut stream);
        for _ in 0..50 {
            there.write_all(b"12345678").unwrap();
            let mut buf = [0; 100];
            assert!(stream.peek(&mut buf).unwrap() > 0);
            assert!(stream.peek(&mut buf[..1]).unwrap() > 0);
            stream.read_exact(&mut buf[..8]).unwrap();
            make_known(&mut stream);
        }
    });
}

/// Fibers of both workers read one stream, and whoever waits for an edge gets it.
#[test]
fn two_workers_read_one_stream() {
    on_poll(2, || {
        let (stream, mut there) = pair();
        let (stream, total) = (Arc::new(stream), Arc::new(AtomicUsize::new(0)));
        let readers: Vec<_> = (0..6)
            .map(|n| {
                let (stream, total) = (Arc::clone(&stream), Arc::clone(&total));
                let read = move || loop {
                    match (&*stream).read(&mut [0; 10]) {
                        Ok(n) => _ = total.fetch_add(n, Ordering::Relaxed),
                        Err(error) => return assert!(is_cancelled(&error), "{error}"),
                    }
                };
                ramie::Builder::new().worker(n % 2).spawn(read).unwrap()
            })
            .collect();
        for n in 1..=200 {
            there.write_all(&[1; 37]).unwrap();
            // Each time all of it, or somebody waits for what is there.
            common::eventually("it is read", || total.load(Ordering::Relaxed) == n * 37);
        }
        readers.iter().for_each(|reader| reader.cancel());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// A stream goes from worker to worker and back. Each knows it then, also while it reads elsewhere.
#[test]
fn from_worker_to_worker() {
    on_poll(2, || {
        let (mut stream, mut there) = pair();
        for round in 0..100 {
            let reader = ramie::Builder::new().worker(round % 2).spawn(move || {
                let mut buf = [0; 8];
                for _ in 0..round {
                    stream.read_exact(&mut buf).unwrap();
                }
                stream
            });
            for _ in 0..round {
                there.write_all(b"12345678").unwrap();
            }
            stream = reader.unwrap().join().unwrap();
        }
    });
}

/// Both directions of one stream at once, on one worker and more than the socket holds.
#[test]
fn more_than_the_socket_holds() {
    on_poll(1, || {
        const BYTES: usize = 8 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (b, _) = listener.accept().unwrap();
        let (c, d) = UnixStream::pair().unwrap();
        ramie::scope(|scope| {
            for stream in [&a, &b] {
                scope.spawn(move || { stream }.write_all(&vec![1; BYTES]).unwrap());
                scope.spawn(move || { stream }.read_exact(&mut vec![0; BYTES]).unwrap());
            }
            for stream in [&c, &d] {
                scope.spawn(move || { stream }.write_all(&vec![1; BYTES]).unwrap());
                scope.spawn(move || { stream }.read_exact(&mut vec![0; BYTES]).unwrap());
            }
        });
    });
}

/// A number is closed without telling anybody, means another stream, and is waited for again.
#[test]
fn a_number_changes_hands_behind_our_back() {
    on_poll(1, || {
        let mut numbers = Vec::new();
        for round in 0..20 {
            let (mut stream, mut there) = pair();
            numbers.push(stream.as_raw_fd());
            make_known(&mut stream);
            there.write_all(&[round]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            make_known(&mut stream);
            // SAFETY: the descriptor is ours, and given up.
            assert_eq!(unsafe { libc::close(stream.into_raw_fd()) }, 0);
        }
        // Other tests may have taken it for a while.
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() < 20, "no number was used again");
    });
}

/// The same open file under another owner.
#[test]
fn an_owner_gives_it_to_another() {
    on_poll(1, || {
        let (mut stream, mut there) = pair();
        for round in 0..50 {
            make_known(&mut stream);
            there.write_all(&[round]).unwrap();
            stream = TcpStream::from(OwnedFd::from(stream));
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
        }
    });
}

/// Closed here, and open elsewhere: its events go on and mean nothing. Whoever waits for something
/// else meanwhile loses nothing, and the set is made anew in between.
#[test]
fn a_copy_outlives_its_number() {
    on_poll(1, || {
        let (mut waiting, mut wakes) = pair();
        let waiter = ramie::spawn_local(move || {
            let mut sum = 0_usize;
            let mut byte = [0];
            while waiting.read(&mut byte).unwrap() == 1 {
                sum += usize::from(byte[0]);
            }
            sum
        });
        let mut copies = Vec::new();
        for _ in 0..4 {
            let (mut stream, there) = pair();
            make_known(&mut stream);
            // SAFETY: numbers only.
            let copy = unsafe { libc::dup(stream.as_raw_fd()) };
            assert!(copy >= 0);
            // SAFETY: it is new and ours.
            copies.push((unsafe { std::net::TcpStream::from_raw_fd(copy) }, there));
            // SAFETY: the descriptor is ours, and given up.
            assert_eq!(unsafe { libc::close(stream.into_raw_fd()) }, 0);
        }
        for _ in 0..200 {
            for (copy, there) in &mut copies {
                there.write_all(b"x").unwrap();
                copy.read_exact(&mut [0]).unwrap();
            }
            wakes.write_all(&[1]).unwrap();
            let (mut stream, mut there) = pair();
            let reader = ramie::spawn_local(move || stream.read_exact(&mut [0; 2]).unwrap());
            ramie::yield_now();
            there.write_all(b"ab").unwrap();
            reader.join().unwrap();
        }
        drop(wakes);
        assert_eq!(waiter.join().unwrap(), 200);
    });
}

/// A stream that is known, and whose bytes nobody waits for for a while.
#[test]
fn nobody_waits_for_a_while() {
    on_poll(1, || {
        let (mut stream, mut there) = pair();
        for _ in 0..3 {
            make_known(&mut stream);
            for _ in 0..40 {
                there.write_all(b"1234").unwrap();
                ramie::sleep(MS / 10);
            }
            stream.read_exact(&mut [0; 160]).unwrap();
            let reader = ramie::spawn_local(move || {
                stream.read_exact(&mut [0; 4]).unwrap();
                stream
            });
            ramie::yield_now();
            there.write_all(b"1234").unwrap();
            stream = reader.join().unwrap();
        }
    });
}
