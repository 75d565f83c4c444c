//! UDP.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{self as std_net, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::ToSocketAddrs;
use super::lookup::{first_that, nowhere};
use super::socket::{Socket, Way};
use crate::sys::socket::SockAddr;

/// A UDP socket.
///
/// # Examples
/// ```
/// use ramie::net::UdpSocket;
///
/// ramie::Runtime::new()?.run(|| {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let addr = server.local_addr()?;
///     let echo = ramie::spawn(move || {
///         let mut buf = [0; 64];
///         let (n, from) = server.recv_from(&mut buf)?;
///         server.send_to(&buf[..n], from)
///     });
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(addr)?;
///     client.send(b"hello")?;
///     let mut buf = [0; 64];
///     assert_eq!(client.recv(&mut buf)?, 5);
///     echo.join().unwrap().map(drop)
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct UdpSocket(Socket<std_net::UdpSocket>);

impl UdpSocket {
    /// A socket bound to the first of the addresses that it can be bound to.
    ///
    /// # Errors
    /// That of the last address, if none can be bound to; also if there is none.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let socket = first_that(addr, |addr| std_net::UdpSocket::bind(addr))?;
        Ok(UdpSocket(Socket::new(socket)))
    }

    /// Receives one datagram, and says who has sent it. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Those of `recvmsg`.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, addr) = self.0.recv_from(buf, 0)?;
        Ok((n, addr.to_inet()?))
    }

    /// Receives what is there, or `WouldBlock`.
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_DONTWAIT)
    }

    /// As `try_recv`.
    pub(crate) fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, addr) = self.0.recv_from(buf, libc::MSG_DONTWAIT)?;
        Ok((n, addr.to_inet()?))
    }

    /// As [`recv_from`](UdpSocket::recv_from), but leaves the datagram to the next call.
    ///
    /// # Errors
    /// Those of `recvmsg`.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, addr) = self.0.recv_from(buf, libc::MSG_PEEK)?;
        Ok((n, addr.to_inet()?))
    }

    /// Sends one datagram to `addr`; if it yields several addresses, to the first.
    ///
    /// # Errors
    /// Those of `sendmsg`, and if there is no address.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let addr = addr.to_socket_addrs()?.next().ok_or_else(nowhere)?;
        self.0.send_to(buf, &SockAddr::inet(&addr))
    }

    /// Sets where [`send`](UdpSocket::send) sends to and from whom [`recv`](UdpSocket::recv) takes:
    /// the first of the addresses that the socket can be connected to.
    ///
    /// # Errors
    /// That of the last address, if none can be connected to; also if there is none.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        first_that(addr, |addr| self.0.std().connect(addr)) // which only notes it
    }

    /// Receives one datagram from where the socket is connected. What does not fit is lost.
    ///
    /// # Errors
    /// Those of `recv`; also what became of an earlier datagram
    /// ([`ConnectionRefused`](io::ErrorKind::ConnectionRefused)).
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, 0)
    }

    /// As [`recv`](UdpSocket::recv), but leaves the datagram to the next call.
    ///
    /// # Errors
    /// As `recv`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf, libc::MSG_PEEK)
    }

    /// Sends one datagram to where the socket is connected.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)
    }

    /// Receives several datagrams at once, one into each buffer, and returns for each its length
    /// and who has sent it. Waits for the first, and takes those that are there by then, 1024 at
    /// most. What does not fit into a buffer is lost. Not in std.
    ///
    /// # Errors
    /// Those of `recvmmsg`.
    ///
    /// # Cancellation
    /// Nothing has been received then.
    ///
    /// # Examples
    /// ```
    /// use ramie::net::UdpSocket;
    /// use std::io::{IoSlice, IoSliceMut};
    ///
    /// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// a.connect(b.local_addr()?)?;
    /// assert_eq!(a.send_many(&[IoSlice::new(b"one"), IoSlice::new(b"three")])?, 2);
    ///
    /// let mut bufs = [[0; 16]; 4];
    /// let mut bufs = bufs.each_mut().map(|buf| IoSliceMut::new(buf));
    /// let received = b.recv_many(&mut bufs)?;
    /// assert_eq!(received, [(3, a.local_addr()?), (5, a.local_addr()?)]);
    /// assert_eq!(&bufs[1][..5], b"three");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_many(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Vec<(usize, SocketAddr)>> {
        self.0.recv_many(bufs)
    }

    /// Sends each buffer as a datagram to where the socket is connected, as many as there is room
    /// for, 1024 at most. Waits for room for the first. Returns how many were sent. Not in std.
    ///
    /// # Errors
    /// Those of `sendmmsg`, for the first; one that concerns another ends the count before it.
    ///
    /// # Cancellation
    /// Nothing has been sent then.
    pub fn send_many(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_many(bufs, None)
    }

    /// As [`send_many`](UdpSocket::send_many), each to the address with the same index. Not in std.
    ///
    /// # Errors
    /// As `send_many`.
    ///
    /// # Panics
    /// If there are not as many addresses as buffers.
    ///
    /// # Cancellation
    /// Nothing has been sent then.
    pub fn send_many_to(&self, bufs: &[IoSlice<'_>], addrs: &[SocketAddr]) -> io::Result<usize> {
        assert_eq!(bufs.len(), addrs.len(), "each datagram has an address");
        let addrs: Vec<_> = addrs.iter().map(SockAddr::inet).collect();
        self.0.send_many(bufs, Some(&addrs))
    }

    /// A second handle of the same socket.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket(self.0.clone_as(self.0.std().try_clone()?)))
    }

    /// Sets whether operations fail with [`WouldBlock`](io::ErrorKind::WouldBlock) instead of
    /// waiting.
    ///
    /// # Errors
    /// Those of `fcntl`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.std().set_nonblocking(nonblocking)?;
        self.0.keep_nonblocking(nonblocking);
        Ok(())
    }
}

/// What never waits, and is std's.
macro_rules! forward {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl UdpSocket { $(
            $(#[$doc])*
            ///
            /// # Errors
            /// Those of the system call.
            pub fn $name(&self $(, $arg: $type)*) -> io::Result<$out> {
                self.0.std().$name($($arg),*)
            }
        )* }
    };
}

forward! {
    /// The address of this end.
    local_addr() -> SocketAddr;
    /// The address that the socket is connected to.
    peer_addr() -> SocketAddr;
    /// Takes the socket's pending error out.
    take_error() -> Option<io::Error>;
    /// Sets whether datagrams may go to broadcast addresses.
    set_broadcast(broadcast: bool) -> ();
    /// Whether datagrams may go to broadcast addresses.
    broadcast() -> bool;
    /// Sets how many routers a packet may pass.
    set_ttl(ttl: u32) -> ();
    /// How many routers a packet may pass.
    ttl() -> u32;
    /// Sets whether multicast datagrams come back to this host.
    set_multicast_loop_v4(on: bool) -> ();
    /// Whether multicast datagrams come back to this host.
    multicast_loop_v4() -> bool;
    /// Sets how many routers a multicast packet may pass.
    set_multicast_ttl_v4(ttl: u32) -> ();
    /// How many routers a multicast packet may pass.
    multicast_ttl_v4() -> u32;
    /// Sets whether multicast datagrams come back to this host.
    set_multicast_loop_v6(on: bool) -> ();
    /// Whether multicast datagrams come back to this host.
    multicast_loop_v6() -> bool;
    /// Joins a multicast group on the interface with this address.
    join_multicast_v4(group: &Ipv4Addr, interface: &Ipv4Addr) -> ();
    /// Joins a multicast group on the interface with this index.
    join_multicast_v6(group: &Ipv6Addr, interface: u32) -> ();
    /// Leaves a multicast group.
    leave_multicast_v4(group: &Ipv4Addr, interface: &Ipv4Addr) -> ();
    /// Leaves a multicast group.
    leave_multicast_v6(group: &Ipv6Addr, interface: u32) -> ();
}

super::socket::timeouts!(UdpSocket);
super::socket::descriptor!(UdpSocket, std_net::UdpSocket, ask_timeouts);

fn ask_timeouts(socket: &std_net::UdpSocket) -> [io::Result<Option<Duration>>; 2] {
    [socket.read_timeout(), socket.write_timeout()]
}
