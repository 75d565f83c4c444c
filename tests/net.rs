//! Sockets on fibers: many at once, both directions at once, cancelled, shut down, closed.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{TempDir, eventually, fds, isolated, runtime};
use ramie::net::{TcpListener, TcpStream, UdpSocket};
use ramie::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use ramie::{is_cancelled, spawn, yield_now};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn echo(mut stream: TcpStream) -> io::Result<u64> {
    io::copy(&mut stream.try_clone()?, &mut stream)
}

#[test]
fn an_echo_server_with_many_clients() {
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = spawn(move || {
                let serve = |stream: io::Result<TcpStream>| spawn(|| echo(stream.unwrap()));
                let fibers: Vec<_> = listener.incoming().take(100).map(serve).collect();
                fibers.into_iter().map(|fiber| fiber.join().unwrap().unwrap()).sum::<u64>()
            });
            let client = |i: usize| {
                spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    let mut buf = vec![0; i + 1];
                    for round in 0..50u8 {
                        stream.write_all(&vec![round; i + 1]).unwrap();
                        stream.read_exact(&mut buf).unwrap();
                        assert!(buf.iter().all(|&byte| byte == round));
                    }
                })
            };
            let clients: Vec<_> = (0..100).map(client).collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
            assert_eq!(server.join().unwrap(), 50 * (1..=100).sum::<u64>());
        });
    }
}

#[test]
fn one_fiber_reads_while_another_writes() {
    runtime(1).run(|| {
        let (ours, theirs) = pair();
        let (ours, theirs) = (Arc::new(ours), Arc::new(theirs));
        let both = |stream: Arc<TcpStream>| {
            let reader = Arc::clone(&stream);
            let reader = spawn(move || {
                let mut all = Vec::new();
                (&*reader).read_to_end(&mut all).unwrap();
                all.len()
            });
            let writer = spawn(move || {
                (&*stream).write_all(&vec![1; 4 << 20]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            (reader, writer)
        };
        for (reader, writer) in [both(ours), both(theirs)] {
            writer.join().unwrap();
            assert_eq!(reader.join().unwrap(), 4 << 20);
        }
    });
}

#[test]
fn shutdown_wakes_a_reader_and_a_writer() {
    runtime(1).run(|| {
        let (ours, _theirs) = pair();
        let ours = Arc::new(ours);
        let (reader, writer) = (Arc::clone(&ours), Arc::clone(&ours));
        let reader = spawn(move || (&*reader).read(&mut [0; 8]));
        let writer = spawn(move || {
            loop {
                if let Err(error) = (&*writer).write(&[0; 1 << 16]) {
                    return error;
                }
            }
        });
        ramie::sleep(Duration::from_millis(20));
        ours.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        assert_eq!(writer.join().unwrap().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn cancelling_ends_each_operation() {
    runtime(1).run(|| {
        let (ours, theirs) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut reader, mut writer) = (ours.try_clone().unwrap(), ours);
        let fibers = [
            spawn(move || reader.read(&mut [0; 8]).unwrap_err()),
            spawn(move || {
                loop {
                    if let Err(error) = writer.write(&[0; 1 << 16]) {
                        return error;
                    }
                }
            }),
            spawn(move || listener.accept().unwrap_err()),
            spawn(move || udp.recv_from(&mut [0; 8]).unwrap_err()),
        ];
        ramie::sleep(Duration::from_millis(20));
        for fiber in fibers {
            assert!(is_cancelled(&fiber.cancel_join().unwrap()));
        }
        drop(theirs);
    });
}

#[test]
fn a_timeout_around_several_operations() {
    runtime(1).run(|| {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"half").unwrap();
        let start = Instant::now();
        let late = ramie::time::timeout(Duration::from_millis(30), || {
            ours.read_exact(&mut [0; 4])?;
            ours.read_exact(&mut [0; 4])
        });
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        theirs.write_all(b"rest").unwrap();
        ours.read_exact(&mut [0; 4]).unwrap();
    });
}

/// Nobody answers there: a connection attempt hangs until it is given up.
#[test]
fn connecting_for_so_long_only() {
    runtime(1).run(|| {
        // A listener whose queue is full drops what comes.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        let error = loop {
            match TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 10_000, "the queue is never full");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn descriptors_travel() {
    runtime(1).run(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(ours.send_with_fds(b"", &[]).unwrap_err().kind(), ErrorKind::InvalidInput);
        let many = vec![ours.as_fd(); 254];
        assert_eq!(ours.send_with_fds(b"x", &many).unwrap_err().kind(), ErrorKind::InvalidInput);
        let receiver = spawn(move || {
            let mut buf = [0; 8];
            let (n, fds) = theirs.recv_with_fds(&mut buf).unwrap();
            let (m, none) = theirs.recv_with_fds(&mut buf).unwrap();
            assert!(none.is_empty());
            (n, m, fds)
        });
        yield_now();
        assert_eq!(ours.send_with_fds(b"many", &many[..253]).unwrap(), 4);
        let mut ours = ours;
        yield_now();
        ours.write_all(b"few").unwrap();
        let (n, m, fds) = receiver.join().unwrap();
        assert_eq!((n, m, fds.len()), (4, 3, 253));
    });
}

#[test]
fn unix_sockets_with_and_without_names() {
    runtime(2).run(|| {
        let temp = TempDir::new();
        let path = temp.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(UnixListener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        let client = {
            let path = path.clone();
            spawn(move || {
                let mut stream = UnixStream::connect(&path)?;
                stream.write_all(b"named")?;
                io::Result::Ok(stream.peer_addr()?.as_pathname() == Some(&*path))
            })
        };
        let (mut stream, from) = listener.accept().unwrap();
        assert!(from.is_unnamed());
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "named");
        assert!(client.join().unwrap().unwrap());

        let (a_path, b_path) = (temp.path().join("a"), temp.path().join("b"));
        let (a, b) = (UnixDatagram::bind(&a_path).unwrap(), UnixDatagram::bind(&b_path).unwrap());
        assert_eq!(a.send_to(b"hi", &b_path).unwrap(), 2);
        let (n, from) = b.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((n, from.as_pathname()), (2, Some(&*a_path)));
        let nameless = UnixDatagram::unbound().unwrap();
        nameless.connect(&b_path).unwrap();
        nameless.send(b"anonymous").unwrap();
        let (n, from) = b.recv_from(&mut [0; 16]).unwrap();
        assert!(n == 9 && from.is_unnamed());
        let missing = temp.path().join("missing");
        assert_eq!(UnixStream::connect(missing).unwrap_err().kind(), ErrorKind::NotFound);
        let long = "x".repeat(200);
        assert_eq!(UnixStream::connect(long).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn abstract_names() {
    use std::os::linux::net::SocketAddrExt;
    runtime(1).run(|| {
        let name = format!("ramie-{}", std::process::id());
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&addr).unwrap();
        let stream = UnixStream::connect_addr(&addr).unwrap();
        let (other, _) = listener.accept().unwrap();
        assert_eq!(stream.peer_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        drop((stream, other));
        let a = UnixDatagram::unbound().unwrap();
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name + "-d").unwrap();
        let b = UnixDatagram::bind_addr(&addr).unwrap();
        a.send_to_addr(b"to", &addr).unwrap();
        b.connect_addr(&addr).unwrap();
        b.send(b"myself").unwrap();
        let mut buf = [0; 8];
        assert_eq!(b.recv(&mut buf).unwrap(), 2);
        let (n, from) = b.recv_from(&mut buf).unwrap();
        assert_eq!((n, from.as_abstract_name()), (6, addr.as_abstract_name()));
    });
}

/// A foreign descriptor in non-blocking mode: the fiber waits all the same.
#[test]
fn foreign_non_blocking_sockets_wait_on_a_fiber() {
    runtime(1).run(|| {
        let (ours, mut theirs) = pair();
        let std = std::net::TcpStream::from(ours);
        std.set_nonblocking(true).unwrap();
        let mut ours = TcpStream::from(std);
        let reader = spawn(move || {
            let mut buf = [0; 4];
            ours.read_exact(&mut buf).map(|()| buf)
        });
        ramie::sleep(Duration::from_millis(5));
        theirs.write_all(b"data").unwrap();
        assert_eq!(&reader.join().unwrap().unwrap(), b"data");
    });
}

/// Too many open files: `accept` fails, and works again when there is room.
#[test]
fn accept_without_room_for_descriptors() {
    isolated("accept_without_room_for_descriptors", || {
        runtime(1).run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let client = spawn(move || TcpStream::connect(addr).unwrap());
            let client = client.join().unwrap();
            let mut hoard = Vec::new();
            let error = loop {
                match std::fs::File::open("/dev/null") {
                    Ok(file) => hoard.push(file),
                    Err(_) => break listener.accept().unwrap_err(),
                }
            };
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            hoard.truncate(1);
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from, client.local_addr().unwrap());
        });
    });
}

#[test]
fn nothing_is_left_over() {
    isolated("nothing_is_left_over", || {
        runtime(1).run(|| drop(pair()));
        let before = fds();
        let runtime = runtime(2);
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            // Some wait in accept, recv and connect when the runtime goes.
            for i in 0..20 {
                let client = TcpStream::connect(addr).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                _ = spawn(move || server.read(&mut [0; 8]));
                if i % 2 == 0 {
                    _ = spawn(move || (&client).read(&mut [0; 8]));
                }
            }
            _ = spawn(move || listener.accept());
            ramie::sleep(Duration::from_millis(5));
        });
        drop(runtime);
        eventually("all descriptors are closed", || fds() == before);
    });
}
