//! `ramie::net` does what `std::net` does: each body runs with std's types, then with ours, and
//! what the two return must look the same. The other end is a std socket, on a thread of its own
//! where it has to wait.

mod common;

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self as std_net, Shutdown};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use common::{error, seen};

/// Runs a body with std's `net` and then with ours.
macro_rules! both {
    ($body:expr) => {{
        let expected = {
            #[allow(unused_imports)]
            use std::net;
            format!("{:?}", $body)
        };
        let ours = {
            #[allow(unused_imports)]
            use ramie::net;
            format!("{:?}", $body)
        };
        assert_eq!(ours, expected);
    }};
}

/// A stream of `net`'s type and a std stream that are connected to each other.
macro_rules! connected {
    () => {{
        let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }};
}

const SHORT: Duration = Duration::from_millis(30);

/// Calls again what a signal has interrupted. Where a socket has a timeout, even one that stops the
/// process and one that lets it go on do.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

contract! {
    fn connect_accept_and_addresses() {
        both!({
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let theirs = std_net::TcpStream::connect(addr).unwrap();
            let (stream, from) = listener.accept().unwrap();
            assert_eq!(from, theirs.local_addr().unwrap());
            assert_eq!(stream.peer_addr().unwrap(), from);
            assert_eq!(stream.local_addr().unwrap(), addr);
            let ours = net::TcpStream::connect(addr).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from, ours.local_addr().unwrap());
            (listener.ttl().unwrap(), stream.nodelay().unwrap(), seen(stream.take_error()))
        });
    }

    fn version_six() {
        if std_net::TcpListener::bind("[::1]:0").is_err() {
            return; // this host has none
        }
        both!({
            let listener = net::TcpListener::bind("[::1]:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let ours = net::TcpStream::connect(addr).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from, ours.local_addr().unwrap());
            let a = net::UdpSocket::bind("[::1]:0").unwrap();
            let b = net::UdpSocket::bind("[::1]:0").unwrap();
            a.send_to(b"six", b.local_addr().unwrap()).unwrap();
            let mut buf = [0; 8];
            let (n, from) = b.recv_from(&mut buf).unwrap();
            (n, from == a.local_addr().unwrap(), buf)
        });
    }

    fn all_kinds_of_addresses() {
        both!({
            let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let port = addr.port();
            let dead = { std_net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
            [
                error(net::TcpStream::connect(addr)),
                error(net::TcpStream::connect(("127.0.0.1", port))),
                error(net::TcpStream::connect(("127.0.0.1".to_owned(), port))),
                error(net::TcpStream::connect((addr.ip(), port))),
                error(net::TcpStream::connect(format!("127.0.0.1:{port}"))),
                error(net::TcpStream::connect(("localhost", port))),
                error(net::TcpStream::connect(&[dead, addr][..])),
                error(net::TcpStream::connect(dead)),
                error(net::TcpStream::connect(&[][..])),
                error(net::TcpStream::connect("no port")),
                error(net::TcpStream::connect("127.0.0.1:99999")),
                error(net::TcpStream::connect_timeout(&addr, Duration::from_secs(5))),
                error(net::TcpStream::connect_timeout(&dead, Duration::from_secs(5))),
                error(net::TcpStream::connect_timeout(&addr, Duration::ZERO)),
                error(net::TcpListener::bind(addr)),
                error(net::TcpListener::bind(&[][..])),
                error(net::UdpSocket::bind("127.0.0.1")),
            ]
        });
    }

    fn reads_and_writes() {
        both!({
            let (mut ours, mut theirs) = connected!();
            let empty = seen(ours.write(b""));
            ours.write_all(b"hello").unwrap();
            let mut buf = [0; 5];
            theirs.read_exact(&mut buf).unwrap();
            theirs.write_all(b"one two three").unwrap();
            let (mut a, mut b) = ([0; 4], [0; 3]);
            let bufs = [&mut a[..], &mut [], &mut b].map(IoSliceMut::new);
            let n = ours.read_vectored(&mut { bufs }).unwrap();
            let nothing = seen(ours.read(&mut [])); // without data it would wait, in std too
            let mut peeked = [0; 3];
            let p = ours.peek(&mut peeked).unwrap();
            let mut rest = [0; 16];
            let r = ours.read(&mut rest).unwrap();
            let parts = [IoSlice::new(b"x"), IoSlice::new(b""), IoSlice::new(b"yz")];
            let w = ours.write_vectored(&parts).unwrap();
            ours.flush().unwrap();
            theirs.read_exact(&mut buf[..3]).unwrap();
            (empty, nothing, buf, n, a, b, p, peeked, r, rest, w)
        });
    }

    fn many_buffers() {
        both!({
            let (mut ours, mut theirs) = connected!();
            let parts = vec![IoSlice::new(b"ab"); 3000];
            let n = ours.write_vectored(&parts).unwrap();
            drop(ours);
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            (n, text.len(), text.matches("ab").count())
        });
    }

    fn ends_of_streams() {
        both!({
            let (mut ours, theirs) = connected!();
            theirs.shutdown(Shutdown::Write).unwrap();
            let end = seen(ours.read(&mut [0; 8]));
            let again = seen(ours.read(&mut [0; 8]));
            ours.shutdown(Shutdown::Write).unwrap();
            let closed = error(ours.write(b"x"));
            let (ours, _theirs) = connected!();
            ours.shutdown(Shutdown::Both).unwrap();
            let both = seen((&ours).read(&mut [0; 8]));
            (end, again, closed, both, error(ours.shutdown(Shutdown::Both)))
        });
    }

    /// The peer closes with data unread, which resets the connection.
    fn a_reset_in_the_middle() {
        both!({
            let (mut ours, theirs) = connected!();
            ours.write_all(b"never read").unwrap();
            // Until it is there: on a busy machine it may take its time, and find an end, which is
            // answered by a reset that may come behind the end.
            theirs.peek(&mut [0; 16]).unwrap();
            drop(theirs);
            let read = error(ours.read(&mut [0; 8]));
            // The first write after it fails; no signal comes.
            let mut result = Ok(0);
            for _ in 0..10 {
                result = ours.write(b"x");
            }
            (read, error(result))
        });
    }

    fn timeouts() {
        both!({
            let (mut ours, _theirs) = connected!();
            assert_eq!(ours.read_timeout().unwrap(), None);
            let zero = error(ours.set_read_timeout(Some(Duration::ZERO)));
            ours.set_read_timeout(Some(SHORT)).unwrap();
            ours.set_write_timeout(Some(SHORT)).unwrap();
            let start = Instant::now();
            let read = error(uninterrupted(|| ours.read(&mut [0; 8])));
            let peek = error(uninterrupted(|| ours.peek(&mut [0; 8])));
            assert!(start.elapsed() >= SHORT);
            let clone = ours.try_clone().unwrap();
            let mut total = 0;
            let write = loop {
                match uninterrupted(|| ours.write(&[7; 1 << 16])) {
                    Ok(n) => total += n,
                    Err(failure) => break error::<()>(Err(failure)),
                }
            };
            assert!(total > 0);
            let cloned = error(uninterrupted(|| (&clone).read(&mut [0; 8])));
            clone.set_read_timeout(None).unwrap();
            (zero, read, peek, write, cloned, seen(ours.read_timeout()))
        });
    }

    /// A timeout that was set before the descriptor came to us.
    fn timeouts_of_adopted_sockets() {
        both!({
            let (ours, theirs) = connected!();
            drop(ours);
            theirs.set_read_timeout(Some(SHORT)).unwrap();
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            a.set_read_timeout(Some(SHORT)).unwrap();
            let mut adopted = net::TcpStream::from(OwnedFd::from(theirs));
            let timeout = seen(adopted.read_timeout());
            drop((a, b));
            (timeout, seen(adopted.read(&mut [0; 8])))
        });
    }

    fn non_blocking_mode() {
        both!({
            let (mut ours, mut theirs) = connected!();
            ours.set_nonblocking(true).unwrap();
            let nothing = error(ours.read(&mut [0; 8]));
            let peek = error(ours.peek(&mut [0; 8]));
            let clone = error((&ours.try_clone().unwrap()).read(&mut [0; 8]));
            let full = loop {
                if let Err(failure) = ours.write(&[7; 1 << 16]) {
                    break error::<()>(Err(failure));
                }
            };
            theirs.write_all(b"now").unwrap();
            let mut buf = [0; 3];
            while ours.peek(&mut buf).is_err() {
                thread::yield_now();
            }
            let now = seen(ours.read(&mut buf));
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let accepted = error(listener.accept());
            let socket = net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let received = error(socket.recv_from(&mut buf));
            ours.set_nonblocking(false).unwrap();
            (nothing, peek, clone, full, now, accepted, received)
        });
    }

    /// The other end takes its time: the read waits for it.
    fn waits_for_data_and_for_room() {
        both!({
            let (ours, theirs) = connected!();
            let other = thread::spawn(move || {
                let (mut reader, mut writer) = (&theirs, &theirs);
                thread::sleep(Duration::from_millis(5));
                writer.write_all(b"go").unwrap();
                thread::sleep(Duration::from_millis(5));
                let mut count = 0;
                let mut buf = vec![0; 1 << 16];
                loop {
                    match reader.read(&mut buf).unwrap() {
                        0 => break count,
                        n => count += n,
                    }
                }
            });
            let mut go = [0; 2];
            (&ours).read_exact(&mut go).unwrap();
            (&ours).write_all(&vec![1; 8 << 20]).unwrap();
            drop(ours);
            (go, other.join().unwrap())
        });
    }

    fn accept_waits() {
        both!({
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let other = thread::spawn(move || {
                for n in 0..3u8 {
                    thread::sleep(Duration::from_millis(3));
                    std_net::TcpStream::connect(addr).unwrap().write_all(&[n]).unwrap();
                }
            });
            let mut got = Vec::new();
            for stream in listener.incoming().take(3) {
                stream.unwrap().read_to_end(&mut got).unwrap();
            }
            other.join().unwrap();
            got
        });
    }

    fn datagrams() {
        both!({
            let a = net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let b = net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
            let mut buf = [0; 4];
            let sent = (seen(a.send_to(b"", at_b)), seen(a.send_to(b"too long", at_b)));
            let (n0, from) = b.recv_from(&mut buf).unwrap();
            assert_eq!(from, at_a);
            let (n1, from) = b.peek_from(&mut buf).unwrap();
            assert_eq!(from, at_a);
            let (n2, _) = b.recv_from(&mut buf).unwrap();
            let unconnected = error(a.send(b"x"));
            a.connect(at_b).unwrap();
            assert_eq!(a.peer_addr().unwrap(), at_b);
            let connected = seen(a.send(b"abc"));
            let peeked = seen(b.peek(&mut buf));
            let received = seen(b.recv(&mut buf));
            b.set_read_timeout(Some(SHORT)).unwrap();
            let late = error(uninterrupted(|| b.recv_from(&mut buf)));
            b.set_broadcast(true).unwrap();
            ((sent, n0, n1, n2, buf), (unconnected, connected, peeked, received, late),
             seen(b.broadcast()), seen(b.multicast_loop_v4()), error(a.send(&[0; 70_000])))
        });
    }

    fn refused_datagrams_are_reported() {
        both!({
            let a = net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let dead = { std_net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
            a.connect(dead).unwrap();
            a.send(b"anybody?").unwrap();
            error(a.recv(&mut [0; 4]))
        });
    }

    fn descriptors_come_and_go() {
        both!({
            let (ours, mut theirs) = connected!();
            let raw = ours.as_raw_fd();
            let fd = OwnedFd::from(ours);
            assert_eq!(fd.as_raw_fd(), raw);
            let ours = net::TcpStream::from(fd);
            let raw = ours.into_raw_fd();
            // SAFETY: the line above gave it up.
            let mut ours = unsafe { net::TcpStream::from_raw_fd(raw) };
            ours.write_all(b"still there").unwrap();
            drop(ours);
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            text
        });
    }

    /// Closing is complete when the drop returns.
    fn an_address_is_free_after_a_drop() {
        both!({
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            drop(listener);
            (0..20).map(|_| error(net::TcpListener::bind(addr))).collect::<Vec<_>>()
        });
    }

    fn readers_of_lines() {
        both!({
            use std::io::BufRead;
            let (ours, mut theirs) = connected!();
            theirs.write_all(b"a\nb\n\nlast").unwrap();
            drop(theirs);
            io::BufReader::new(ours).lines().collect::<io::Result<Vec<_>>>().unwrap()
        });
    }
}
