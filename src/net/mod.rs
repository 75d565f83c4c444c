//! Networking: what [`std::net`] has, with the same names, signatures and errors.
//!
//! On a fiber, accepting, connecting, receiving and sending suspend that fiber; on a plain thread
//! they block it. Everything else (addresses, options) never waits and is std's own. Sockets of the
//! Unix family are in [`os::unix::net`](crate::os::unix::net).
//!
//! One socket may be used by many fibers and threads at the same time, through shared references:
//! one may receive while another sends, and [`shutdown`](TcpStream::shutdown) wakes both.
//! [`split`](TcpStream::split) and [`into_split`](TcpStream::into_split) make two values of a
//! stream where code asks for these.
//!
//! # Timeouts
//! [`set_read_timeout`](TcpStream::set_read_timeout) and its like work as in std: an operation that
//! takes longer fails with [`WouldBlock`](std::io::ErrorKind::WouldBlock). To limit anything else,
//! or several operations together, there is [`time::timeout`](crate::time::timeout).
//!
//! # Non-blocking mode
//! After `set_nonblocking(true)`, operations that would wait fail with
//! [`WouldBlock`](std::io::ErrorKind::WouldBlock), as in std. A descriptor that comes from
//! elsewhere in non-blocking mode behaves on a fiber as if it were not: the fiber waits.
//!
//! # Where it differs from std
//! - Names are looked up on the blocking pool. That is why [`ToSocketAddrs`] is a trait of this
//!   crate; it is implemented for the same types.
//! - [`Incoming`] pauses after an error that says that there is no room for another connection (too
//!   many open files, no memory), for 1 to 100 ms: the connection stays in line, so that the next
//!   attempt would fail at once.
//! - [`Incoming`] may accept a whole line of connections at a time, as
//!   [`TcpListener::incoming`] says.
//! - A write to a closed connection never raises `SIGPIPE`, whatever the process's disposition.
//!
//! | file        | what                                                            |
//! |-------------|-----------------------------------------------------------------|
//! | `tcp.rs`    | [`TcpStream`], [`TcpListener`]                                  |
//! | `udp.rs`    | [`UdpSocket`]                                                   |
//! | `unix.rs`   | the Unix family                                                 |
//! | `halves.rs` | a stream's two directions: [`ReadHalf`] and its like            |
//! | `many.rs`   | several datagrams at once                                       |
//! | `backoff.rs` | what [`Incoming`] does when there is no room                   |
//! | `line.rs`   | connections that [`Incoming`] has accepted ahead               |
//! | `lookup.rs` | [`ToSocketAddrs`]                                               |
//! | `socket.rs` | what they have in common                                        |
#![forbid(unsafe_code)]

mod backoff;
mod halves;
mod line;
mod lookup;
mod many;
mod socket;
mod tcp;
mod udp;
pub(crate) mod unix;

pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub(crate) use line::Expecting;
pub use lookup::ToSocketAddrs;
pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
