//! From names to addresses, off the worker.

use std::io;
use std::iter;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs as StdAddrs,
};
use std::option;
use std::slice;
use std::vec;

use crate::sched::blocking;

/// Objects that can be resolved to one or more [`SocketAddr`]s.
///
/// Differs from [`std::net::ToSocketAddrs`] in that names are looked up on the blocking pool while
/// the fiber waits. It is implemented for the same types.
///
/// # Examples
/// ```
/// use ramie::net::ToSocketAddrs;
///
/// let addr = ("127.0.0.1", 80).to_socket_addrs()?.next();
/// assert_eq!(addr, "127.0.0.1:80".parse().ok());
/// # std::io::Result::Ok(())
/// ```
pub trait ToSocketAddrs {
    /// The addresses, one after the other.
    type Iter: Iterator<Item = SocketAddr>;

    /// Converts to addresses, which may mean to ask a name server.
    ///
    /// # Errors
    /// If a text is no address, or a name is not known.
    ///
    /// # Cancellation
    /// A lookup under way is waited for: the C library cannot be asked to stop.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// Types that are addresses already: std's conversion waits for nobody.
macro_rules! at_once {
    ($($type:ty),* $(,)?) => { $(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                StdAddrs::to_socket_addrs(self)
            }
        }
    )* };
}

at_once!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)].into_iter()),
            Err(_) => blocking(|| StdAddrs::to_socket_addrs(self)),
        }
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        ToSocketAddrs::to_socket_addrs(&(&*self.0, self.1))
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self.parse() {
            Ok(addr) => Ok(vec![addr].into_iter()),
            Err(_) => blocking(|| StdAddrs::to_socket_addrs(self)),
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        ToSocketAddrs::to_socket_addrs(&**self)
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        ToSocketAddrs::to_socket_addrs(&**self)
    }
}

/// Calls `f` with one address after the other until it succeeds; else returns the last error.
pub(super) fn first_that<T>(
    addrs: impl ToSocketAddrs,
    mut f: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut error = None;
    for addr in addrs.to_socket_addrs()? {
        match f(&addr) {
            Ok(value) => return Ok(value),
            // Nobody wants the other addresses tried.
            Err(failure) if crate::is_cancelled(&failure) => return Err(failure),
            Err(failure) => error = Some(failure),
        }
    }
    Err(error.unwrap_or_else(nowhere))
}

/// The error if there is no address.
pub(super) fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
}
