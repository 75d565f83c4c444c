//! TCP.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::{self as std_net, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::ToSocketAddrs;
use super::backoff::Backoff;
use super::line::{Expecting, Pace};
use super::lookup::first_that;
use super::socket::{Socket, Way, connect};
use crate::sched;
use crate::sys::socket::{SockAddr, socket};

/// A TCP stream between a local and a remote socket.
///
/// [`Read`] and [`Write`] are implemented for `TcpStream` and `&TcpStream`, so one fiber may read
/// while another writes; [`split`](Self::split) makes two values of the two directions. The
/// connection is closed when the value goes out of scope.
///
/// # Examples
/// ```
/// use ramie::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// ramie::Runtime::new()?.run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let addr = listener.local_addr()?;
///     let server = ramie::spawn(move || {
///         let (mut stream, _) = listener.accept()?;
///         let mut text = String::new();
///         stream.read_to_string(&mut text)?;
///         stream.write_all(text.to_uppercase().as_bytes())
///     });
///     let mut stream = TcpStream::connect(addr)?;
///     stream.write_all(b"hello")?;
///     stream.shutdown(std::net::Shutdown::Write)?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer)?;
///     assert_eq!(answer, "HELLO");
///     server.join().unwrap()
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct TcpStream(Socket<std_net::TcpStream>);

/// A TCP socket that listens for connections.
///
/// It is closed when it goes out of scope.
///
/// # Examples
/// ```no_run
/// use ramie::net::TcpListener;
/// use std::io::Write;
///
/// #[ramie::main]
/// fn main() -> std::io::Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:7878")?;
///     for stream in listener.incoming() {
///         let mut stream = stream?;
///         ramie::spawn(move || stream.write_all(b"hello\n"));
///     }
///     Ok(())
/// }
/// ```
pub struct TcpListener(Socket<std_net::TcpListener>);

/// What [`TcpListener::incoming`] returns: an endless iterator over connections.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    backoff: Backoff,
    pace: Pace,
}

impl TcpStream {
    /// Opens a connection to a remote host. If `addr` yields several addresses, they are tried one
    /// after the other.
    ///
    /// # Errors
    /// That of the last address, if none can be connected to; also if there is none.
    ///
    /// # Cancellation
    /// The attempt under way is given up, and no other address is tried.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        first_that(addr, |addr| connect_to(addr, None))
    }

    /// Opens a connection to one address, for `timeout` at most.
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) if it takes longer,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `timeout` is zero, and those of `connect`.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot set a 0 duration timeout",
            ));
        }
        if sched::blocks_thread() {
            return std_net::TcpStream::connect_timeout(addr, timeout).map(TcpStream::bare);
        }
        connect_to(addr, Some(timeout))
    }

    pub(crate) fn as_std(&self) -> &std_net::TcpStream {
        self.0.std()
    }

    fn bare(stream: std_net::TcpStream) -> TcpStream {
        TcpStream(Socket::new(stream))
    }

    /// Receives what is there, or `WouldBlock`.
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_DONTWAIT)
    }

    /// Peeks at what has been received: the next read finds it again. Waits for something to be
    /// there.
    ///
    /// # Errors
    /// Those of `recv`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_PEEK)
    }

    /// Shuts down the reading half, the writing half, or both. Whoever waits in them returns.
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
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream(self.0.clone_as(self.0.std().try_clone()?)))
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// Those of `getpeername`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.std().peer_addr()
    }

    /// Sets whether small writes are sent at once (`TCP_NODELAY`) rather than gathered.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.std().set_nodelay(nodelay)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.std().nodelay()
    }
}

fn connect_to(addr: &SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // Owned from here on, so that a failed attempt closes it.
    let stream = TcpStream::bare(socket(family, libc::SOCK_STREAM)?.into());
    connect(stream.as_fd(), &SockAddr::inet(addr), timeout)?;
    Ok(stream)
}

fn accepted((fd, addr): (OwnedFd, SockAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    Ok((TcpStream::bare(fd.into()), addr.to_inet()?))
}

impl TcpListener {
    /// A listener bound to the first of the addresses that it can be bound to. With port 0 the
    /// system chooses one; [`local_addr`](TcpListener::local_addr) says which.
    ///
    /// # Errors
    /// That of the last address, if none can be bound to; also if there is none.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        let listener = first_that(addr, |addr| std_net::TcpListener::bind(addr))?;
        Ok(TcpListener(Socket::new(listener)))
    }

    /// Waits for a connection, and returns it with the address of its other end.
    ///
    /// # Errors
    /// Those of `accept`. Some concern one connection only
    /// ([`ConnectionAborted`](io::ErrorKind::ConnectionAborted)), and too many open files
    /// (`EMFILE`) is over when one is closed: a server goes on after these.
    ///
    /// # Cancellation
    /// No connection is lost: one that was accepted when the request came is returned.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accepted(self.0.accept()?)
    }

    pub(crate) fn expect_connection(&self) -> Expecting<'_> {
        self.0.expect_connection()
    }

    /// One of the connections that were accepted ahead.
    pub(crate) fn accept_ahead(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        self.0.accept_ahead().map(|connection| accepted(connection?))
    }

    /// Accepts what is there, after `poll` has said that there is something; or `WouldBlock`.
    pub(crate) fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accepted(self.0.try_accept()?)
    }

    /// An endless iterator over the connections.
    ///
    /// While its fiber comes back for the next one at once, and others wait in line, it accepts the
    /// whole line in one go, by io_uring's *multishot* accept. What it has not returned when it is
    /// dropped, or its fiber cancelled, is there for the next `accept` or iterator of this
    /// listener and its clones, and closed with the last of them. It takes one at a time while
    /// somebody else waits in `accept`, once half of the process's descriptors are in use or a
    /// full line might take half of those that are free, on plain threads, and without io_uring.
    /// Who accepts by the descriptor alone (other processes, [`io::batch`](crate::io::batch), std)
    /// does not see what was accepted ahead.
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
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener(self.0.clone_as(self.0.std().try_clone()?)))
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        let Incoming { listener, backoff, pace } = self;
        let accepted = backoff.next(|| listener.0.accept_next(pace));
        Some(accepted.map(|fd| TcpStream::bare(fd.into())))
    }
}

impl FusedIterator for Incoming<'_> {}

/// What streams and listeners have under the same names.
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

            /// Sets how many routers a packet may pass (`IP_TTL`).
            ///
            /// # Errors
            /// Those of `setsockopt`.
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                self.0.std().set_ttl(ttl)
            }

            /// How many routers a packet may pass.
            ///
            /// # Errors
            /// Those of `getsockopt`.
            pub fn ttl(&self) -> io::Result<u32> {
                self.0.std().ttl()
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

common!(TcpStream);
common!(TcpListener);
super::socket::stream!(TcpStream, tells: true);
super::socket::timeouts!(TcpStream);
super::socket::descriptor!(TcpStream, std_net::TcpStream, ask_timeouts);
super::socket::descriptor!(TcpListener, std_net::TcpListener, no_timeouts);

fn ask_timeouts(stream: &std_net::TcpStream) -> [io::Result<Option<Duration>>; 2] {
    [stream.read_timeout(), stream.write_timeout()]
}

fn no_timeouts(_: &std_net::TcpListener) -> [io::Result<Option<Duration>>; 2] {
    [Ok(None), Ok(None)]
}
