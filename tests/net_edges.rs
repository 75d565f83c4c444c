//! Sockets whose other owners, or other ends, do what is rarely done.

mod common;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{TempDir, fds, isolated, runtime, watch};
use ramie::net::TcpListener;
use ramie::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

/// A path as long as the record has room for, which std refuses to bind to.
fn full_length(dir: &Path) -> libc::sockaddr_un {
    // SAFETY: plain numbers.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let mut path = dir.as_os_str().as_bytes().to_vec();
    path.push(b'/');
    assert!(path.len() < addr.sun_path.len());
    path.resize(addr.sun_path.len(), b'x');
    addr.sun_path = std::array::from_fn(|at| path[at] as libc::c_char);
    addr
}

fn bind(fd: RawFd, addr: &libc::sockaddr_un) {
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: a record of that length.
    let result = unsafe { libc::bind(fd, std::ptr::from_ref(addr).cast(), len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

contract! {
    /// A client must not be able to end a server's loop of accepts by the name it gives itself.
    fn a_client_with_a_path_of_full_length() {
        let dir = TempDir::new();
        let path = dir.path().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: a descriptor that the kernel has just made.
        let client = unsafe {
            OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))
        };
        let name = full_length(dir.path());
        bind(client.as_raw_fd(), &name);
        let client = std::os::unix::net::UnixStream::from(client);
        connect(&client, &path);
        let (_, addr) = listener.accept().unwrap();
        let found = addr.as_pathname().unwrap().as_os_str().as_bytes().iter().copied();
        assert!(found.eq(name.sun_path.iter().map(|byte| *byte as u8)));
    }

    /// A datagram is not lost for its sender's name.
    fn a_sender_with_a_path_of_full_length() {
        let dir = TempDir::new();
        let (from, to) = (UnixDatagram::unbound().unwrap(), dir.path().join("to"));
        bind(from.as_raw_fd(), &full_length(dir.path()));
        let socket = UnixDatagram::bind(&to).unwrap();
        from.send_to(b"hello", &to).unwrap();
        let mut buf = [0; 16];
        let (n, addr) = socket.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..n], addr.is_unnamed()), (&b"hello"[..], true));
    }
}

fn connect(client: &impl AsRawFd, path: &Path) {
    // SAFETY: plain numbers.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in addr.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *place = *byte as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: a record of that length.
    let result = unsafe { libc::connect(client.as_raw_fd(), (&raw const addr).cast(), len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// The mode is the socket's, not the descriptor's. Whoever has another one may change it back,
/// and an accept that waits after all must not take the worker with it.
#[test]
fn a_listener_that_others_made_blocking_again() {
    static ADDR: Mutex<Option<SocketAddr>> = Mutex::new(None);
    static CONNECTS: AtomicBool = AtomicBool::new(false);

    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        *ADDR.lock().unwrap() = Some(listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let other = listener.as_fd().try_clone_to_owned().unwrap();
        std::net::TcpListener::from(other).set_nonblocking(false).unwrap();
        // Runs while this fiber waits.
        let client = ramie::spawn(|| {
            CONNECTS.store(true, Ordering::SeqCst);
            let addr = ADDR.lock().unwrap().unwrap();
            ramie::net::TcpStream::connect(addr).unwrap()
        });
        listener.accept().unwrap();
        assert!(CONNECTS.load(Ordering::SeqCst));
        client.join().unwrap();
    });
}

/// A socket may be set up to get a descriptor of each sender's process, with which nobody is served
/// here.
#[test]
fn descriptors_of_senders() {
    isolated("descriptors_of_senders", || {
        const SO_PASSPIDFD: libc::c_int = 76;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (on, len) = (1, size_of::<libc::c_int>() as libc::socklen_t);
        let on: *const libc::c_int = &raw const on;
        let (level, fd) = (libc::SOL_SOCKET, theirs.as_raw_fd());
        // SAFETY: a number of that length.
        if unsafe { libc::setsockopt(fd, level, SO_PASSPIDFD, on.cast(), len) } != 0 {
            return; // an older kernel
        }
        let before = fds();
        ours.send_with_fds(b"x", &[ours.as_fd()]).unwrap();
        let (n, received) = theirs.recv_with_fds(&mut [0; 4]).unwrap();
        assert_eq!((n, received.len()), (1, 1));
        drop(received);
        assert_eq!(fds(), before);
    });
}

/// As many descriptors as fit into a message, and the sender's credentials beside them.
#[test]
fn credentials_beside_descriptors() {
    isolated("credentials_beside_descriptors", || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (on, len) = (1, size_of::<libc::c_int>() as libc::socklen_t);
        let on: *const libc::c_int = &raw const on;
        let (level, fd) = (libc::SOL_SOCKET, theirs.as_raw_fd());
        // SAFETY: a number of that length.
        let set = unsafe { libc::setsockopt(fd, level, libc::SO_PASSCRED, on.cast(), len) };
        assert_eq!(set, 0);
        ours.send_with_fds(b"x", &[ours.as_fd(); 253]).unwrap();
        let (n, received) = theirs.recv_with_fds(&mut [0; 4]).unwrap();
        assert_eq!((n, received.len()), (1, 253));
    });
}

/// Errors that nobody reads make `poll` call the socket ready for ever: whoever receives several
/// datagrams at once waits all the same.
#[test]
fn a_queue_of_errors_that_nobody_reads() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let on: libc::c_int = 1;
        // SAFETY: an option of that length.
        let result = unsafe {
            let (fd, on) = (socket.as_raw_fd(), std::ptr::from_ref(&on).cast());
            let len = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_RECVERR, on, len)
        };
        assert_eq!(result, 0);
        // Nobody is there: that is the first error, and stays in the queue.
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        socket.send_to(b"x", nobody).unwrap();
        let socket = ramie::net::UdpSocket::from(socket);
        assert!(socket.recv_from(&mut [0]).is_err());
        let late = ramie::time::timeout(std::time::Duration::from_millis(20), || {
            socket.recv_many(&mut [io::IoSliceMut::new(&mut [0; 4])])
        });
        assert!(late.is_err());
        let addr = socket.local_addr().unwrap();
        let sender = ramie::spawn(move || {
            let sender = ramie::net::UdpSocket::bind("127.0.0.1:0")?;
            sender.send_to(b"late", addr)
        });
        let mut buf = [0; 4];
        let got = socket.recv_many(&mut [io::IoSliceMut::new(&mut buf)]).unwrap();
        assert_eq!((got.len(), &buf), (1, b"late"));
        assert_eq!(sender.join().unwrap().unwrap(), 4);
    });
}
