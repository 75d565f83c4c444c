//! Sockets of the Unix family; public as `os::unix::net`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self as std_net, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::backoff::Backoff;
use super::line::{Expecting, Pace};
use super::socket::{Socket, Way, connect};
use crate::sched::{blocking, recv_fds};
use crate::sys::socket::{Control, Outgoing, SockAddr, socket};

/// A Unix stream socket.
///
/// [`Read`] and [`Write`] are implemented for `UnixStream` and `&UnixStream`, so one fiber may read
/// while another writes; [`split`](Self::split) makes two values of the two directions.
///
/// # Examples
/// ```
/// use ramie::os::unix::net::UnixStream;
/// use std::io::{Read, Write};
///
/// ramie::Runtime::new()?.run(|| {
///     let (mut ours, mut theirs) = UnixStream::pair()?;
///     let echo = ramie::spawn(move || {
///         let mut buf = [0; 5];
///         theirs.read_exact(&mut buf)?;
///         theirs.write_all(&buf)
///     });
///     ours.write_all(b"hello")?;
///     let mut buf = [0; 5];
///     ours.read_exact(&mut buf)?;
///     assert_eq!(&buf, b"hello");
///     echo.join().unwrap()
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct UnixStream(Socket<std_net::UnixStream>);

/// A Unix stream socket that listens for connections.
pub struct UnixListener(Socket<std_net::UnixListener>);

/// A Unix datagram socket.
pub struct UnixDatagram(Socket<std_net::UnixDatagram>);

/// What [`UnixListener::incoming`] returns: an endless iterator over connections.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a UnixListener,
    backoff: Backoff,
    pace: Pace,
}

impl UnixStream {
    /// Receives what is there, or `WouldBlock`.
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_DONTWAIT)
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Those of `connect`; [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is too long or
    /// has a zero byte in it.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        Self::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to an address, which need not be a path.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        let stream = Self::bare(socket(libc::AF_UNIX, libc::SOCK_STREAM)?.into());
        connect(stream.as_fd(), &SockAddr::unix(addr), None)?;
        Ok(stream)
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = std_net::UnixStream::pair()?;
        Ok((Self::bare(a), Self::bare(b)))
    }

    fn bare(stream: std_net::UnixStream) -> UnixStream {
        UnixStream(Socket::new(stream))
    }

    /// A second handle of the same socket.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        Ok(UnixStream(self.0.clone_as(self.0.std().try_clone()?)))
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// Those of `getpeername`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.std().peer_addr()
    }

    /// Shuts down the reading half, the writing half, or both. Whoever waits in them returns.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected), for instance.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.std().shutdown(how)
    }

    /// Sends bytes, and with the first of them copies of descriptors. Not in std.
    ///
    /// A stream carries descriptors with bytes only: `buf` must not be empty.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `buf` is empty or there are more than 253
    /// descriptors, and those of `sendmsg`.
    ///
    /// # Examples
    /// ```
    /// use ramie::os::unix::net::UnixStream;
    /// use std::io::{Read, Write};
    /// use std::os::fd::AsFd;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let (mut reader, writer) = std::io::pipe()?;
    /// ours.send_with_fds(b"a pipe", &[writer.as_fd()])?;
    /// drop(writer);
    ///
    /// let mut buf = [0; 16];
    /// let (n, mut fds) = theirs.recv_with_fds(&mut buf)?;
    /// assert_eq!(&buf[..n], b"a pipe");
    /// std::io::PipeWriter::from(fds.remove(0)).write_all(b"hello")?;
    /// let mut text = String::new();
    /// reader.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_with_fds(&self, buf: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if buf.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "descriptors travel on a stream with at least one byte",
            ));
        }
        let control = Control::with_fds(fds)?;
        self.0.send_message(&Outgoing::new(&[IoSlice::new(buf)], None, Some(&control)))
    }

    /// Receives bytes, and the descriptors that came with them, closed on exec. Not in std.
    ///
    /// # Errors
    /// Those of `recvmsg`; too many open files (`EMFILE`) if not all descriptors could be
    /// installed: then all of them, and the bytes, are lost.
    pub fn recv_with_fds(&self, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        recv_fds(buf, |message| self.0.recv_message(message, libc::MSG_CMSG_CLOEXEC))
    }
}

fn accepted((fd, addr): (OwnedFd, SockAddr)) -> io::Result<(UnixStream, SocketAddr)> {
    let stream = UnixStream::bare(fd.into());
    // std makes no address of a path of full length, but returns one that is asked for.
    let addr = addr.to_unix().or_else(|_| stream.peer_addr())?;
    Ok((stream, addr))
}

impl UnixListener {
    /// A listener at `path`, which must not exist yet, and which nobody removes afterwards.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if it does exist, and others of `bind`.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        let path = path.as_ref();
        // On the pool: it makes a directory entry.
        let listener = blocking(|| std_net::UnixListener::bind(path))?;
        Ok(UnixListener(Socket::new(listener)))
    }

    /// A listener at an address, which need not be a path.
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixListener> {
        let listener = blocking(|| std_net::UnixListener::bind_addr(addr))?;
        Ok(UnixListener(Socket::new(listener)))
    }

    /// Waits for a connection, and returns it with the address of its other end.
    ///
    /// # Errors
    /// Those of `accept`.
    ///
    /// # Cancellation
    /// No connection is lost: one that was accepted when the request came is returned.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        accepted(self.0.accept()?)
    }

    pub(crate) fn expect_connection(&self) -> Expecting<'_> {
        self.0.expect_connection()
    }

    /// One of the connections that were accepted ahead.
    pub(crate) fn accept_ahead(&self) -> Option<io::Result<(UnixStream, SocketAddr)>> {
        self.0.accept_ahead().map(|connection| accepted(connection?))
    }

    /// Accepts what is there, after `poll` has said that there is something; or `WouldBlock`.
    pub(crate) fn try_accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        accepted(self.0.try_accept()?)
    }

    /// An endless iterator over the connections.
    ///
    /// While its fiber comes back for the next one at once, and others wait in line, it accepts the
    /// whole line in one go, by io_uring's *multishot* accept. What it has not returned when it is
    /// dropped, or its fiber cancelled, is there for the next `accept` or iterator of this
    /// listener and its clones, and closed with the last of them. It takes one at a time while
    /// somebody else waits in `accept`, once half of the process's descriptors are in use, on plain
    /// threads, and without io_uring. Who accepts by the descriptor alone (other processes,
    /// [`io::batch`](crate::io::batch), std) does not see what was accepted ahead.
    /// Before the last of them is turned into a descriptor or into std's type, what is left is to
    /// be taken: by `accept` in non-blocking mode, until that says `WouldBlock`.
    ///
    /// Errors do not end it. After one that says that there is no room, such as too many open
    /// files, it pauses before the next attempt.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self, backoff: Backoff::default(), pace: Pace::default() }
    }

    /// A second handle of the same socket.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn try_clone(&self) -> io::Result<UnixListener> {
        Ok(UnixListener(self.0.clone_as(self.0.std().try_clone()?)))
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        let Incoming { listener, backoff, pace } = self;
        let accepted = backoff.next(|| listener.0.accept_next(pace));
        Some(accepted.map(|fd| UnixStream::bare(fd.into())))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

impl FusedIterator for Incoming<'_> {}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

impl UnixDatagram {
    /// A socket bound to `path`, which must not exist yet.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if it does exist, and others of `bind`.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        let path = path.as_ref();
        blocking(|| std_net::UnixDatagram::bind(path)).map(Self::bare)
    }

    /// A socket bound to an address, which need not be a path.
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        blocking(|| std_net::UnixDatagram::bind_addr(addr)).map(Self::bare)
    }

    /// A socket without an address.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn unbound() -> io::Result<UnixDatagram> {
        std_net::UnixDatagram::unbound().map(Self::bare)
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = std_net::UnixDatagram::pair()?;
        Ok((Self::bare(a), Self::bare(b)))
    }

    fn bare(socket: std_net::UnixDatagram) -> UnixDatagram {
        UnixDatagram(Socket::new(socket))
    }

    /// Sets where [`send`](UnixDatagram::send) sends to and from whom
    /// [`recv`](UnixDatagram::recv) takes.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        blocking(|| self.0.std().connect(path))
    }

    /// As [`connect`](UnixDatagram::connect), to an address, which need not be a path.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        blocking(|| self.0.std().connect_addr(addr))
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// Those of `getpeername`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.std().peer_addr()
    }

    /// Receives one datagram, and says who has sent it. What does not fit into `buf` is lost.
    ///
    /// Differs from std in that a sender whose path is as long as can be (108 bytes) is unnamed:
    /// there is no way to make a [`SocketAddr`] of it.
    ///
    /// # Errors
    /// Those of `recvmsg`.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.take_from(buf, 0)
    }

    fn take_from(&self, buf: &mut [u8], flags: i32) -> io::Result<(usize, SocketAddr)> {
        let (n, addr) = self.0.recv_from(buf, flags)?;
        // The datagram has been taken, and is not to be lost for its sender's address.
        Ok((n, addr.to_unix().or_else(|_| SocketAddr::from_pathname(""))?))
    }

    /// Receives what is there, or `WouldBlock`.
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_DONTWAIT)
    }

    /// As `try_recv`.
    pub(crate) fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.take_from(buf, libc::MSG_DONTWAIT)
    }

    /// Receives one datagram. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Those of `recv`.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, 0)
    }

    /// Sends one datagram to the socket at `path`.
    ///
    /// # Errors
    /// Those of `sendmsg`.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &SocketAddr::from_pathname(path)?)
    }

    /// Sends one datagram to an address, which need not be a path.
    ///
    /// # Errors
    /// Those of `sendmsg`.
    pub fn send_to_addr(&self, buf: &[u8], addr: &SocketAddr) -> io::Result<usize> {
        self.0.send_to(buf, &SockAddr::unix(addr))
    }

    /// Sends one datagram to where the socket is connected.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)
    }

    /// Shuts down receiving, sending, or both. Whoever waits in them returns.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected), for instance.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.std().shutdown(how)
    }

    /// A second handle of the same socket.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn try_clone(&self) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram(self.0.clone_as(self.0.std().try_clone()?)))
    }
}

/// What all three have under the same names.
macro_rules! common {
    ($name:ident) => {
        impl $name {
            /// The address of this end.
            ///
            /// # Errors
            /// Those of `getsockname`.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.0.std().local_addr()
            }

            /// Takes the socket's pending error out.
            ///
            /// # Errors
            /// Those of `getsockopt`.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.0.std().take_error()
            }

            /// Sets whether operations fail with [`WouldBlock`](io::ErrorKind::WouldBlock) instead
            /// of waiting.
            ///
            /// # Errors
            /// Those of `fcntl`.
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                self.0.std().set_nonblocking(nonblocking)?;
                self.0.keep_nonblocking(nonblocking);
                Ok(())
            }
        }
    };
}

common!(UnixStream);
common!(UnixListener);
common!(UnixDatagram);
super::socket::stream!(UnixStream, tells: false);
super::socket::timeouts!(UnixStream);
super::socket::timeouts!(UnixDatagram);
super::socket::descriptor!(UnixStream, std_net::UnixStream, |socket| {
    [socket.read_timeout(), socket.write_timeout()]
});
super::socket::descriptor!(UnixDatagram, std_net::UnixDatagram, |socket| {
    [socket.read_timeout(), socket.write_timeout()]
});
super::socket::descriptor!(UnixListener, std_net::UnixListener, |_| [Ok(None), Ok(None)]);
